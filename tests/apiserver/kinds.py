"""The kinds that the emulator knows, and how each of them is served and written."""

import msgspec

__all__ = ["KINDS", "Kind", "find_kind"]


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A served version of a kind.

    ``builtin`` kinds leave out kind and version of the items of a list, those of custom resources
    do not. Which of the writing rules hold, depends on the kind, too: ``has_generation``,
    ``has_status`` (a status that only its subresource can change), ``upsert`` (PUT creates), and
    ``unconditional`` (PUT needs no resourceVersion). ``field_labels`` are what a field selector may
    name besides name and namespace. ``virtual`` kinds are answered and not stored.
    """

    group: str
    version: str
    kind: str
    plural: str
    builtin: bool = False
    has_generation: bool = True
    has_status: bool = True
    upsert: bool = False
    unconditional: bool = False
    virtual: bool = False
    namespaced: bool = True
    field_labels: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """``plural.group``, as messages name the resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def storage(self) -> str:
        """What tells the stored kinds apart: both versions of events are one."""
        return "events" if self.kind == "Event" else self.qualified

    @property
    def path(self) -> str:
        """Where the group and version is served."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"


GATEWAY = "inference.networking.k8s.io"
EXPERIMENTAL = "inference.networking.x-k8s.io"
LLM_D = "llm-d.ai"
_POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_REGARDING_FIELDS = tuple(name.replace("involvedObject", "regarding") for name in _EVENT_FIELDS)


def _event(group: str, fields: tuple[str, ...]) -> Kind:
    return Kind(
        group=group,
        version="v1",
        kind="Event",
        plural="events",
        builtin=True,
        has_generation=False,
        has_status=False,
        upsert=True,
        unconditional=True,
        field_labels=fields,
    )


def _review(group: str, kind: str, plural: str) -> Kind:
    return Kind(
        group=group,
        version="v1",
        kind=kind,
        plural=plural,
        builtin=True,
        virtual=True,
        namespaced=False,
    )


KINDS = (
    Kind(
        group="",
        version="v1",
        kind="Pod",
        plural="pods",
        builtin=True,
        unconditional=True,
        field_labels=_POD_FIELDS,
    ),
    Kind(
        group="",
        version="v1",
        kind="Service",
        plural="services",
        builtin=True,
        has_generation=False,
        unconditional=True,
        field_labels=("spec.clusterIP", "spec.type"),
    ),
    _event("", _EVENT_FIELDS),
    _event("events.k8s.io", _REGARDING_FIELDS),
    Kind(
        group="coordination.k8s.io",
        version="v1",
        kind="Lease",
        plural="leases",
        builtin=True,
        has_generation=False,
        has_status=False,
        upsert=True,
    ),
    Kind(group=GATEWAY, version="v1", kind="InferencePool", plural="inferencepools"),
    Kind(group=EXPERIMENTAL, version="v1alpha2", kind="InferencePool", plural="inferencepools"),
    Kind(
        group=EXPERIMENTAL,
        version="v1alpha1",
        kind="InferencePoolImport",
        plural="inferencepoolimports",
    ),
    *(
        Kind(group=group, version="v1alpha2", kind=kind, plural=f"{kind.lower()}s")
        for group in (EXPERIMENTAL, LLM_D)
        for kind in ("InferenceObjective", "InferenceModelRewrite")
    ),
    _review("authentication.k8s.io", "TokenReview", "tokenreviews"),
    _review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews"),
)


def find_kind(api_version: str, kind: str) -> Kind:
    """Return the kind of an object."""
    for known in KINDS:
        if (known.api_version, known.kind) == (api_version, kind):
            return known
    raise KeyError(f"the emulator knows no {kind} of {api_version}")
