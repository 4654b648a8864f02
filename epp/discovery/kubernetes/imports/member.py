"""A member cluster: the pools that it exports, and their pods."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from epp.discovery.declared import POOL_GROUP, DeclaredPool
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.imports.objects import (
    EXPORT_ANNOTATION,
    EXPORT_TO_ALL,
    IMPORT_API_VERSION,
    InferencePoolImport,
    MemberPool,
)
from epp.discovery.kubernetes.members import selector_text
from epp.discovery.kubernetes.reading import read_pool
from epp.discovery.kubernetes.shelf import Shelf
from epp.discovery.kubernetes.view import ClusterView
from epp.discovery.kubernetes.watch.mirror import Changes, Key
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watching import Watching

if TYPE_CHECKING:
    from epp.discovery.kubernetes.watch.reflector import Reflector

__all__ = ["MemberCluster", "MemberView"]

_POOL_API: Final = f"{POOL_GROUP}/v1"


class MemberView:
    """Which pools of a member are used: those that are wanted, exist, and are exported.

    No I/O. :attr:`view` tells of their endpoints.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._wanted: frozenset[str] = frozenset()
        self.shelf: Shelf[MemberPool, DeclaredPool] = Shelf("InferencePool", POOL_GROUP, read_pool)
        self.view = ClusterView(namespace, None)

    def want(self, names: frozenset[str]) -> None:
        """Use the pools of these names, and no others."""
        for name in self._wanted - names:
            self.view.withdraw(self._key(name))
        new, self._wanted = names - self._wanted, names
        self._serve(new)

    def pools_changed(self, changes: Changes[MemberPool]) -> None:
        """Take what has become of the InferencePools of the namespace."""
        for _ in self.shelf.take(changes):
            pass
        changed = {each.metadata.name for each in (*changes.present, *changes.gone)}
        self._serve(changed & self._wanted)

    def unused(self) -> dict[str, str]:
        """Return why pools that are wanted are not used, a reason each."""
        reasons = {name: self._why_not(name) for name in sorted(self._wanted)}
        return {name: reason for name, reason in reasons.items() if reason}

    def _serve(self, names: Iterable[str]) -> None:
        for name in names:
            if self._why_not(name):
                self.view.withdraw(self._key(name))
            else:
                spec = self.shelf.declared[name].spec
                self.view.serve(spec, selector_text(spec.selector))

    def _why_not(self, name: str) -> str:
        found = self.shelf.objects.get(name)
        if found is None:
            return "does not exist"
        if found.metadata.annotations.get(EXPORT_ANNOTATION) != EXPORT_TO_ALL:
            return f"is without the annotation {EXPORT_ANNOTATION}: {EXPORT_TO_ALL}"
        return "" if name in self.shelf.declared else f"is no good: {self.shelf.problems[name]}"

    def _key(self, name: str) -> str:
        return f"{self._namespace}/{name}"


class MemberCluster:
    """Follows a member cluster; ``cluster`` is its name.

    ``wake`` is called after each change, ``on_objects`` after those of pools and imports, which are
    followed with ``keeps_imports``.
    """

    def __init__(
        self,
        cluster: str,
        connection: ClusterConnection,
        namespace: str,
        *,
        keeps_imports: bool,
        pace: Pace,
        wake: Callable[[], None],
        on_objects: Callable[[], None],
    ) -> None:
        self.cluster = cluster
        self.connection = connection
        self.state = MemberView(namespace)
        self._keeps_imports = keeps_imports
        self._on_objects = on_objects
        self._pools: Reflector[MemberPool] | None = None
        self._imports: Reflector[InferencePoolImport] | None = None
        self.watching = Watching(connection, namespace, cluster=cluster, pace=pace, wake=wake)
        connection.statistics.cluster = cluster

    def start(self) -> None:
        """Follow it from now on."""
        self._pools = self.watching.follow(
            _POOL_API, "inferencepools", MemberPool, self._pools_changed, "InferencePool"
        )
        if self._keeps_imports:
            self._imports = self.watching.follow(
                IMPORT_API_VERSION,
                "inferencepoolimports",
                InferencePoolImport,
                lambda _changes: self._on_objects(),
            )

    def want(self, names: frozenset[str]) -> None:
        """Use the pools of these names, as far as they are exported."""
        self.state.want(names)
        self.watching.follow_pods(self.state.view)

    @property
    def has_told(self) -> bool:
        """Whether its pools, and its imports where they are followed, are known."""
        followed = (self._pools, self._imports) if self._keeps_imports else (self._pools,)
        return all(each is not None and each.is_known for each in followed)

    @property
    def pools(self) -> Mapping[Key, MemberPool]:
        """Its InferencePools as they are now."""
        return {} if self._pools is None else self._pools.objects

    @property
    def imports(self) -> Mapping[Key, InferencePoolImport]:
        """Its InferencePoolImports as they are now."""
        return {} if self._imports is None else self._imports.objects

    def _pools_changed(self, changes: Changes[MemberPool]) -> None:
        self.state.pools_changed(changes)
        self.watching.follow_pods(self.state.view)
        self._on_objects()
