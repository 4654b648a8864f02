"""Resources from the API server: what is watched of it, and when what has changed is told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import msgspec

from epp.core.resources import PoolSpec
from epp.discovery.cluster import ClusterOptions
from epp.discovery.declared import API_VERSIONS
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.statistics import WatchStatistics
from epp.discovery.kubernetes.objects import InferenceObjective, InferencePool
from epp.discovery.kubernetes.view import ClusterView, KnownPool, Scope
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watched_source import WatchedSource
from epp.discovery.kubernetes.watching import Watching
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName
from epp.discovery.label_selector import parse_label_selector
from epp.discovery.source import ResourceListener
from epp.errors import UsageError

__all__ = ["KubernetesSource", "SourceStatistics"]

logger = logging.getLogger(__name__)

_POOL_KIND: Final = "InferencePool"


class SourceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the source has to tell of itself.

    ``watches`` has an item for each collection that is followed, and one more for the pods of pools
    that are followed no more. ``problems`` are numbers of objects that are no good, by kind;
    ``excluded_endpoints`` how many endpoints are left out because pools have too many.
    """

    watches: tuple[WatchStatistics, ...]
    problems: dict[str, int]
    excluded_endpoints: int


class KubernetesSource(WatchedSource):
    """The pools of one namespace that the ``options`` choose, and all that belongs to them.

    What changes within ``coalesce_s`` is told at once. Where the API server cannot be reached, what
    was known of it stays; at the start it is waited for. Raises UsageError for options that mean
    nothing.

    ``on_pools`` is called with the pools that there are whenever that may have changed, and
    ``on_objectives`` with the API group and every change of the objectives in the namespace, those
    of other pools included; both before the listener hears of it. ``sleep`` is for tests.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        options: ClusterOptions,
        *,
        coalesce_s: float = 0.05,
        pace: Pace = Pace(),  # noqa: B008 - frozen
        on_pools: Callable[[KnownPools], None] = lambda _pools: None,
        on_objectives: Callable[[str, Changes[InferenceObjective]], None] = lambda _g, _c: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(coalesce_s=coalesce_s, on_objectives=on_objectives, sleep=sleep)
        self._options = options
        self._on_pools = on_pools
        self._view = ClusterView(options.pool_namespace, _scope_of(options))
        if options.endpoint_selector:
            parse_label_selector(options.endpoint_selector, "--endpoint-selector")
            self._view.serve(_standalone_pool(options), options.endpoint_selector)
        self._watching = Watching(connection, options.pool_namespace, pace=pace, wake=self._wake)
        self._missing: frozenset[str] = frozenset()

    # What there is

    @property
    def api_version(self) -> str:
        """That of the pool objects. Raises UsageError for a group that has none."""
        return f"{self._options.pool_group}/{_version_of(self._options.pool_group)}"

    def pools(self) -> Iterator[KnownPool]:
        """All pool objects of the namespace, also those that are not served."""
        return self._view.pools()

    def known_pools(self) -> KnownPools:
        """Return which pools there are, which are served, and which would be."""
        options = self._options
        group = options.pool_group
        served = {_name_of(key) for key in self._view.wanted_pods}
        wanted = served.union(options.pool_names)
        existing = {pool.found.metadata.name for pool in self._view.pools()}
        return KnownPools(
            served=_pool_names(group, served),
            wanted=_pool_names(group, wanted),
            existing=_pool_names(group, existing),
            kinds=frozenset() if options.endpoint_selector else frozenset({(group, _POOL_KIND)}),
        )

    def statistics(self) -> SourceStatistics:
        """Return what there is to tell for metrics."""
        return SourceStatistics(
            watches=self._watching.statistics(),
            problems=self._view.problems(),
            excluded_endpoints=self._view.excluded_endpoints,
        )

    # Start and end

    def _all_watching(self) -> tuple[Watching, ...]:
        return (self._watching,)

    def _start(self) -> None:
        if not self._options.endpoint_selector:
            self._watching.follow(
                self.api_version, "inferencepools", InferencePool, self._pools_changed
            )
        self._follow_referring(self._watching, self._view)
        self._watching.follow_pods(self._view)
        self._on_pools(self.known_pools())

    async def _wait_until_known(self) -> None:
        await self._until(lambda: self._watching.is_known)

    # What changes

    def _pools_changed(self, changes: Changes[InferencePool]) -> None:
        self._view.pools_changed(changes)
        self._watching.follow_pods(self._view)
        self._on_pools(self.known_pools())

    async def _flush(self, listener: ResourceListener) -> None:
        self._tell_rejections(self._view.take_rejections(), listener)
        await self._work_off(self._view.flush, listener)
        self._tell_missing()

    def _tell_missing(self) -> None:
        existing = {pool.found.metadata.name for pool in self._view.pools()}
        missing = frozenset(self._options.pool_names) - existing
        for name in sorted(missing - self._missing):
            full_name = f"{self._options.pool_namespace}/{name} ({self._options.pool_group})"
            logger.warning(
                "there is no InferencePool %s; it is served as soon as there is", full_name
            )
        self._missing = missing


def _scope_of(options: ClusterOptions) -> Scope | None:
    if options.endpoint_selector:
        return None
    _version_of(options.pool_group)
    selector = None
    if options.pool_selector:
        selector = parse_label_selector(options.pool_selector, "--pool-selector")
    return Scope(
        namespace=options.pool_namespace,
        group=options.pool_group,
        names=frozenset(options.pool_names),
        selector=selector,
    )


def _standalone_pool(options: ClusterOptions) -> PoolSpec:
    return PoolSpec(
        name=options.standalone_name,
        namespace=options.pool_namespace,
        group=options.pool_group,
        target_ports=options.endpoint_target_ports,
    )


def _version_of(pool_group: str) -> str:
    versions = dict(each.split("/") for each in API_VERSIONS[_POOL_KIND])
    if pool_group not in versions:
        expected = " or ".join(versions)
        raise UsageError(f'--pool-group: found "{pool_group}"; expected {expected}')
    return versions[pool_group]


def _name_of(key: str) -> str:
    return key.partition("/")[2]


def _pool_names(group: str, names: set[str]) -> frozenset[PoolName]:
    return frozenset(PoolName(group, _POOL_KIND, name) for name in names)
