"""Files full of Kubernetes manifests and endpoint lists → what they declare, checked.

This module knows documents one by one; which pool is meant and what belongs to it is decided in
``selection``. It reads no files and logs nothing.
"""

import difflib
from collections.abc import Iterable, Mapping
from json import dumps
from typing import TypeVar

import msgspec

from epp.discovery.checking import check, describe, did_you_mean
from epp.discovery.declared import (
    API_VERSIONS,
    POOL_GROUP,
    DeclaredObjective,
    DeclaredPool,
    DeclaredRewrite,
    declare_objective,
    declare_pool,
    declare_rewrite,
)
from epp.discovery.documents import Document, Node, parse_documents
from epp.discovery.hosts import canonical_host
from epp.discovery.problems import Problems
from epp.discovery.schema import (
    ADDRESS_EXPECTED,
    MAX_ENDPOINTS,
    MAX_OBJECTIVES,
    MAX_REWRITES,
    EndpointEntry,
    EndpointList,
    InferenceModelRewrite,
    InferenceObjective,
    InferencePoolV1,
    InferencePoolV1Alpha2,
)

__all__ = [
    "DeclaredEndpoint",
    "ManifestFile",
    "Manifests",
    "parse_manifests",
]

_T = TypeVar("_T")

_ENDPOINT_LIST = "EndpointList"
# Higher than difflib's default, lest InferencePoolImport and other real kinds count as mistyped.
_TYPO_RATIO = 0.9
# More than a kind and two names of the greatest length that Kubernetes allows.
_SHOWN_TITLE_CHARACTERS = 400


class ManifestFile(msgspec.Struct, frozen=True):
    """A file's bytes, and its name as problems shall say it."""

    name: str
    data: bytes


class DeclaredEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of an endpoint list. ``host`` is canonical: an IP address or a DNS name.

    ``port`` None stands for the pool's target ports. ``origin`` is where it was declared, as
    problems say it.
    """

    name: str
    namespace: str
    host: str
    port: int | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    origin: str


class Manifests(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that some files declare; ``ignored`` names the objects that are none of ours."""

    pools: tuple[DeclaredPool, ...]
    objectives: tuple[DeclaredObjective, ...]
    rewrites: tuple[DeclaredRewrite, ...]
    endpoints: tuple[DeclaredEndpoint, ...]
    ignored: tuple[str, ...]


def parse_manifests(files: Iterable[ManifestFile]) -> Manifests:
    """Return what the files declare.

    Raises :class:`~epp.discovery.problems.ManifestError` with all that is wrong in all of them.
    """
    problems = Problems()
    reader = _Reader(problems)
    for file in files:
        for document in parse_documents(file.name, file.data, problems):
            reader.read(_Subject(document, document.root))
    for what, found, most in (
        ("endpoints", len(reader.endpoints), MAX_ENDPOINTS),
        ("objectives", len(reader.objectives), MAX_OBJECTIVES),
        ("rewrites", len(reader.rewrites), MAX_REWRITES),
    ):
        if found > most:
            problems.add(f"found {found} {what} in all files; expected up to {most}")
    problems.raise_any()
    return Manifests(
        pools=tuple(reader.pools),
        objectives=tuple(reader.objectives),
        rewrites=tuple(reader.rewrites),
        endpoints=tuple(reader.endpoints),
        ignored=tuple(reader.ignored),
    )


class _Subject:
    """A document, or an item of a ``List``, and how problems and logs name it."""

    def __init__(self, document: Document, node: Node, path: str = "") -> None:
        self.document = document
        self.node = node
        self.path = path
        self.api_version = _text(node, "apiVersion")
        self.kind = _text(node, "kind")

    @property
    def title(self) -> str:
        """``Kind namespace/name``, as far as the document says it."""
        metadata = self.node.value.get("metadata") if isinstance(self.node.value, dict) else None
        name = _text(metadata, "name")
        namespace = _text(metadata, "namespace") or "default"
        words = (self.kind, f"{namespace}/{name}" if name else "")
        # Escaped and cut: whatever stands there must not break the line that names it.
        return dumps(" ".join(word for word in words if word))[1:-1][:_SHOWN_TITLE_CHARACTERS]

    @property
    def group(self) -> str:
        return self.api_version.partition("/")[0]

    @property
    def origin(self) -> str:
        return f"{self.document.file}:{self.node.line}"

    def has(self, key: str) -> bool:
        return isinstance(self.node.value, dict) and key in self.node.value


class _Reader:
    """Sorts documents by kind and collects what they declare."""

    def __init__(self, problems: Problems) -> None:
        self.pools: list[DeclaredPool] = []
        self.objectives: list[DeclaredObjective] = []
        self.rewrites: list[DeclaredRewrite] = []
        self.endpoints: list[DeclaredEndpoint] = []
        self.ignored: list[str] = []
        self._problems = problems
        self._origins: dict[tuple[str, ...], str] = {}

    def read(self, subject: _Subject) -> None:
        if subject.kind == "List" and subject.api_version == "v1" and subject.has("items"):
            self._read_items(subject)
        elif subject.kind == "InferencePool":
            self._read_pool(subject)
        elif subject.kind == "InferenceObjective":
            self._read_objective(subject)
        elif subject.kind == "InferenceModelRewrite":
            self._read_rewrite(subject)
        elif subject.kind == _ENDPOINT_LIST or (not subject.kind and subject.has("endpoints")):
            self._read_endpoints(subject)
        elif mistyped := _mistyped_kind(subject.kind):
            hint = f'did you mean "{mistyped}"?'
            self._report(subject, "kind", f"found {describe(subject.kind)}; {hint}")
        elif subject.kind and subject.api_version:
            self.ignored.append(f"{subject.title} ({subject.origin})")
        else:
            expected = "a Kubernetes object (apiVersion and kind) or a list of endpoints"
            found = _describe_keys(subject.node)
            self._report(subject, "", f"found {found}; expected {expected}")

    def _read_items(self, subject: _Subject) -> None:
        fields = subject.node.value
        items = fields["items"] if isinstance(fields, dict) else subject.node
        if not isinstance(items.value, list):
            found = describe(items.value)
            self._report(subject, "items", f"found {found}; expected a list of objects")
            return
        for index, item in enumerate(items.value):
            nested = _Subject(subject.document, item, f"items[{index}]")
            # One level is what kubectl writes; deeper ones would be recursion that a file controls.
            if nested.kind == "List":
                self._report(nested, "kind", "found a List in a List; expected an object")
            else:
                self.read(nested)

    def _read_pool(self, subject: _Subject) -> None:
        if not self._has_known_version(subject):
            return
        found: InferencePoolV1 | InferencePoolV1Alpha2 | None
        if subject.api_version == f"{POOL_GROUP}/v1":
            found = self._check(subject, InferencePoolV1)
        else:
            found = self._check(subject, InferencePoolV1Alpha2)
        if found is None:
            return
        pool = declare_pool(found)
        if not self._is_new(subject, pool.spec.group):
            return
        for path, text in pool.problems:
            self._report(subject, path, text)
        self.pools.append(pool)

    def _read_objective(self, subject: _Subject) -> None:
        if not self._has_known_version(subject):
            return
        found = self._check(subject, InferenceObjective)
        if found is not None and self._is_new(subject, subject.group):
            self.objectives.append(declare_objective(found))

    def _read_rewrite(self, subject: _Subject) -> None:
        if not self._has_known_version(subject):
            return
        found = self._check(subject, InferenceModelRewrite)
        if found is not None and self._is_new(subject, subject.group):
            self.rewrites.append(declare_rewrite(found))

    def _read_endpoints(self, subject: _Subject) -> None:
        found = self._check(subject, EndpointList)
        fields = subject.node.value
        if found is None or not isinstance(fields, dict):
            return
        nodes = fields["endpoints"].value
        assert isinstance(nodes, list)
        for index, (entry, node) in enumerate(zip(found.endpoints, nodes, strict=True)):
            self._take_endpoint(subject, entry, f"endpoints[{index}]", node.line)

    def _take_endpoint(self, subject: _Subject, entry: EndpointEntry, path: str, line: int) -> None:
        host = canonical_host(entry.address)
        if host is None:
            text = f"found {describe(entry.address)}; expected {ADDRESS_EXPECTED}"
            self._report(subject, f"{path}.address", text, line)
            return
        document = subject.document
        origin = f"{document.file}:{line}: document {document.number}, {path}"
        full_name = f"{entry.namespace}/{entry.name}"
        if earlier := self._origins.get(("endpoint", full_name)):
            text = f'found "{full_name}" again; expected each name once (also at {earlier})'
            self._report(subject, f"{path}.name", text, line)
            return
        self._origins["endpoint", full_name] = origin
        self.endpoints.append(
            DeclaredEndpoint(
                name=entry.name,
                namespace=entry.namespace,
                host=host,
                port=None if entry.port is None else int(entry.port),
                labels=entry.labels,
                annotations=entry.annotations,
                origin=origin,
            )
        )

    def _has_known_version(self, subject: _Subject) -> bool:
        known = API_VERSIONS[subject.kind]
        if subject.api_version in known:
            return True
        found = f"found {describe(subject.api_version or None)}"
        self._report(subject, "apiVersion", f"{found}; {did_you_mean(subject.api_version, known)}")
        return False

    def _is_new(self, subject: _Subject, group: str) -> bool:
        """Whether the object stands here for the first time; reports it if not."""
        key = (group, subject.title)
        if earlier := self._origins.get(key):
            text = f"found the same object again; expected it once (also at {earlier})"
            self._report(subject, "metadata.name", text)
            return False
        self._origins[key] = subject.origin
        return True

    def _check(self, subject: _Subject, shape: type[_T]) -> _T | None:
        return check(
            subject.node,
            shape,
            subject.path,
            lambda line, path, text: self._add(subject, path, text, line),
        )

    def _report(self, subject: _Subject, path: str, text: str, line: int | None = None) -> None:
        where = ".".join(part for part in (subject.path, path) if part)
        self._add(subject, where, text, line)

    def _add(self, subject: _Subject, path: str, text: str, line: int | None) -> None:
        document = subject.document
        title = f", {subject.title}" if subject.title else ""
        head = f"{document.file}:{line or subject.node.line}: document {document.number}{title}"
        self._problems.add(f"{head}: {path}: {text}" if path else f"{head}: {text}")


def _text(node: Node | None, key: str) -> str:
    """Return a field that is text, "" where there is none."""
    if node is None or not isinstance(node.value, dict) or key not in node.value:
        return ""
    value = node.value[key].value
    return value if isinstance(value, str) else ""


def _describe_keys(node: Node) -> str:
    if not isinstance(node.value, dict) or not node.value:
        return describe(node.value)
    keys = ", ".join(describe(key) for key in list(node.value)[:5])
    return f"a mapping with {keys}"


def _mistyped_kind(kind: str) -> str | None:
    known = {name.lower(): name for name in (*API_VERSIONS, _ENDPOINT_LIST)}
    found = difflib.get_close_matches(kind.lower()[:100], known, n=1, cutoff=_TYPO_RATIO)
    return known[found[0]] if found else None
