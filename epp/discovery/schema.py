"""The shapes of the documents that are read: the public APIs' fields, all of them, and no others.

A field that the EPP does not use is ``Any`` and optional, so that whole manifests can be given; one
that no API has is a mistake of the user. The description of a type is what a problem says was
expected. Source of the fields: the Gateway API Inference Extension's InferencePool v1 and v1alpha2
InferenceObjective v1alpha2 and InferenceModelRewrite v1alpha2.
"""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

__all__ = [
    "ADDRESS_EXPECTED",
    "MAX_ENDPOINTS",
    "MAX_OBJECTIVES",
    "MAX_REWRITES",
    "MAX_TARGET_PORTS",
    "EndpointEntry",
    "EndpointList",
    "InferenceModelRewrite",
    "InferenceObjective",
    "InferencePoolV1",
    "InferencePoolV1Alpha2",
    "ObjectMeta",
    "PoolRef",
]

ADDRESS_EXPECTED = "an IPv4 or IPv6 address or a DNS name, without scheme or port"
MAX_ENDPOINTS = 10_000
MAX_OBJECTIVES = 10_000
MAX_REWRITES = 1_000
MAX_TARGET_PORTS = 8

_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

Name: TypeAlias = Annotated[
    str,
    Meta(
        max_length=253,
        pattern=rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*\Z",
        description="a name of lower-case letters, digits, '-' and '.', up to 253 characters",
    ),
]
Namespace: TypeAlias = Annotated[
    str,
    Meta(
        max_length=63,
        pattern=rf"^{_DNS_LABEL}\Z",
        description="a namespace of lower-case letters, digits and '-', up to 63 characters",
    ),
]
EntryName: TypeAlias = Annotated[
    str,
    Meta(
        max_length=253,
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z",
        description="a name of letters, digits, '-', '_' and '.', up to 253 characters",
    ),
]
Text: TypeAlias = Annotated[str, Meta(description="text")]
Address: TypeAlias = Annotated[str, Meta(description=ADDRESS_EXPECTED)]
PortNumber: TypeAlias = Annotated[
    int, Meta(ge=1, le=65535, description="a port number from 1 to 65535")
]
EntryPort: TypeAlias = Annotated[
    PortNumber
    | Annotated[
        str,
        Meta(
            pattern=r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}"
            r"|655[0-2][0-9]|6553[0-5])\Z"
        ),
    ],
    Meta(description="a port number from 1 to 65535"),
]
Priority: TypeAlias = Annotated[
    int,
    Meta(ge=-(2**31), le=2**31 - 1, description="a whole number from -2147483648 to 2147483647"),
]
ModelName: TypeAlias = Annotated[
    str,
    Meta(min_length=1, max_length=256, description="the name of a model, up to 256 characters"),
]
Weight: TypeAlias = Annotated[
    int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")
]
Time: TypeAlias = Annotated[datetime, Meta(tz=True, description="a time like 2026-01-31T12:00:00Z")]
LabelKey: TypeAlias = Annotated[
    str,
    Meta(
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?\Z",
        description="a label's name",
    ),
]
LabelValue: TypeAlias = Annotated[
    str,
    Meta(
        max_length=63,
        pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z",
        description="a label's value: text of up to 63 letters, digits, '-', '_' and '.' "
        "(in quotes where it looks like a number, true or false)",
    ),
]
FailureMode: TypeAlias = Annotated[
    Literal["FailOpen", "FailClose"], Meta(description="FailOpen or FailClose")
]
Labels: TypeAlias = dict[LabelKey, LabelValue]


class ObjectMeta(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """``metadata`` of a Kubernetes object."""

    name: Name
    namespace: Namespace = "default"
    labels: Any = None
    annotations: Any = None
    creation_timestamp: Any = None
    deletion_grace_period_seconds: Any = None
    deletion_timestamp: Any = None
    finalizers: Any = None
    generate_name: Any = None
    generation: Any = None
    managed_fields: Any = None
    owner_references: Any = None
    resource_version: Any = None
    self_link: Any = None
    uid: Any = None


class _Object(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    api_version: Text
    kind: Text
    metadata: ObjectMeta
    status: Any = None


class PoolMeta(ObjectMeta, rename="camel", frozen=True, kw_only=True):
    """``metadata`` of an InferencePool: pools are chosen by labels, and annotations say whose
    requests are for them."""

    labels: Labels = {}
    annotations: dict[Text, Text] = {}


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """An item of ``targetPorts``."""

    number: PortNumber


class LabelSelector(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """``selector`` of an InferencePool v1: all labels must match; none selects everything."""

    match_labels: Labels = {}


class EndpointPickerRef(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How gateways find the EPP, and what they do without it: only the latter matters here."""

    group: Any = None
    kind: Any = None
    name: Any = None
    port: Any = None
    failure_mode: FailureMode = "FailClose"


class ExtensionRef(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The predecessor of :class:`EndpointPickerRef` in v1alpha2."""

    group: Any = None
    kind: Any = None
    name: Any = None
    port_number: Any = None
    failure_mode: FailureMode = "FailClose"


class PoolSpecV1(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``spec`` of an InferencePool v1. Without Kubernetes there may be nothing to refer to."""

    selector: LabelSelector
    target_ports: Annotated[
        tuple[Port, ...],
        Meta(min_length=1, max_length=MAX_TARGET_PORTS, description="a list of 1 to 8 ports"),
    ]
    app_protocol: Any = None
    endpoint_picker_ref: EndpointPickerRef = EndpointPickerRef()


class InferencePoolV1(_Object, frozen=True, kw_only=True, rename="camel"):
    """InferencePool, ``inference.networking.k8s.io/v1``."""

    metadata: PoolMeta
    spec: PoolSpecV1


class PoolSpecV1Alpha2(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``spec`` of an InferencePool v1alpha2."""

    selector: Labels
    target_port_number: PortNumber
    extension_ref: ExtensionRef = ExtensionRef()


class InferencePoolV1Alpha2(_Object, frozen=True, kw_only=True, rename="camel"):
    """InferencePool, ``inference.networking.x-k8s.io/v1alpha2``."""

    metadata: PoolMeta
    spec: PoolSpecV1Alpha2


class PoolRef(msgspec.Struct, frozen=True, kw_only=True):
    """The pool that an objective or a rewrite belongs to."""

    name: Name
    group: Text = "inference.networking.k8s.io"
    kind: Text = "InferencePool"


class ObjectiveSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``spec`` of an InferenceObjective."""

    pool_ref: PoolRef
    priority: Priority = 0


class InferenceObjective(_Object, frozen=True, kw_only=True, rename="camel"):
    """InferenceObjective v1alpha2 of ``inference.networking.x-k8s.io`` or ``llm-d.ai``."""

    spec: ObjectiveSpec


class RewriteMeta(ObjectMeta, rename="camel", frozen=True, kw_only=True):
    """``metadata`` of an InferenceModelRewrite, whose age matters."""

    creation_timestamp: Time | None = None


class ModelMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on the model that a request names."""

    value: ModelName
    type: Annotated[Literal["Exact"], Meta(description="Exact")] = "Exact"


class RewriteMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on requests."""

    model: ModelMatch


class TargetModel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A model to ask for in place of the one that was matched."""

    model_rewrite: ModelName
    weight: Weight | None = None


class ModelRule(msgspec.Struct, frozen=True, kw_only=True):
    """An item of ``rules``: one of the matches must hold, where there are any."""

    targets: Annotated[
        tuple[TargetModel, ...],
        Meta(min_length=1, max_length=64, description="a list of 1 to 64 targets"),
    ]
    matches: Annotated[
        tuple[RewriteMatch, ...], Meta(max_length=256, description="a list of up to 256 matches")
    ] = ()


class RewriteSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """``spec`` of an InferenceModelRewrite."""

    pool_ref: PoolRef
    rules: Annotated[
        tuple[ModelRule, ...],
        Meta(min_length=1, max_length=256, description="a list of 1 to 256 rules"),
    ]


class InferenceModelRewrite(_Object, frozen=True, kw_only=True, rename="camel"):
    """InferenceModelRewrite v1alpha2 of ``inference.networking.x-k8s.io`` or ``llm-d.ai``."""

    metadata: RewriteMeta
    spec: RewriteSpec


class EndpointEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model server, or several behind one DNS name; without ``port``, at the pool's ports."""

    name: EntryName
    address: Address
    namespace: Namespace = "default"
    port: EntryPort | None = None
    labels: dict[Text, Text] = {}
    annotations: dict[Text, Text] = {}


class EndpointList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A document with a list of endpoints; ``apiVersion`` and ``kind`` may be left out."""

    endpoints: Annotated[
        tuple[EndpointEntry, ...],
        Meta(max_length=MAX_ENDPOINTS, description=f"a list of up to {MAX_ENDPOINTS} endpoints"),
    ]
    api_version: Text = ""
    kind: Text = ""
    metadata: Any = None
