"""Resources from the API server: what is watched of it, and when what has changed is told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import msgspec

from epp.core.resources import PoolSpec
from epp.discovery.cluster import ClusterOptions
from epp.discovery.declared import API_VERSIONS
from epp.discovery.kubernetes.acceptance import KnownPools, PoolName
from epp.discovery.kubernetes.connection import ClusterConnection
from epp.discovery.kubernetes.mirror import Changes
from epp.discovery.kubernetes.objects import (
    InferenceModelRewrite,
    InferenceObjective,
    InferencePool,
)
from epp.discovery.kubernetes.reflector import Pace
from epp.discovery.kubernetes.statistics import WatchStatistics
from epp.discovery.kubernetes.view import GROUPS, ClusterView, KnownObjective, KnownPool, Scope
from epp.discovery.kubernetes.watching import Watching
from epp.discovery.label_selector import parse_label_selector
from epp.discovery.source import ResourceListener
from epp.errors import UsageError

__all__ = ["KubernetesSource", "SourceStatistics"]

logger = logging.getLogger(__name__)

_POOL_KIND: Final = "InferencePool"
_CHUNK: Final = 100
"""How many pods or endpoints are worked off before others get their turn: that takes the view and
the core together less than 2 ms."""


class SourceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the source has to tell of itself.

    ``watches`` has an item for each collection that is followed, and one more for the pods of pools
    that are followed no more. ``problems`` are numbers of objects that are no good, by kind;
    ``excluded_endpoints`` how many endpoints are left out because pools have too many.
    """

    watches: tuple[WatchStatistics, ...]
    problems: dict[str, int]
    excluded_endpoints: int


class KubernetesSource:
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
        self._options = options
        self._coalesce_s = coalesce_s
        self._on_pools = on_pools
        self._on_objectives = on_objectives
        self._sleep = sleep
        self._view = ClusterView(options.pool_namespace, _scope_of(options))
        if options.endpoint_selector:
            parse_label_selector(options.endpoint_selector, "--endpoint-selector")
            self._view.serve(_standalone_pool(options), options.endpoint_selector)
        self._wake = asyncio.Event()
        self._watching = Watching(
            connection, options.pool_namespace, pace=pace, wake=self._wake.set
        )
        self._missing: frozenset[str] = frozenset()
        self._is_loaded = False

    # What there is

    @property
    def api_version(self) -> str:
        """That of the pool objects. Raises UsageError for a group that has none."""
        return f"{self._options.pool_group}/{_version_of(self._options.pool_group)}"

    def pools(self) -> Iterator[KnownPool]:
        """All pool objects of the namespace, also those that are not served."""
        return self._view.pools()

    def objectives(self) -> Iterator[KnownObjective]:
        """All objectives of the namespace, also those of other pools."""
        return self._view.objectives()

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

    # Start, run, end

    async def load(self, listener: ResourceListener) -> None:
        """Follow the API server from now on, and return as soon as the listener knows all.

        A pool that is asked for by name and does not exist is none to wait for. The first state may
        be long in coming: without an API server it does not come.
        """
        try:
            self._start()
            while not self._watching.is_known:
                await self._wake.wait()
                self._watching.raise_failure()
                self._wake.clear()
            await self._flush(listener)
        except BaseException:
            await self.close()
            raise
        self._is_loaded = True

    async def run(self, listener: ResourceListener) -> None:
        """Tell the listener of all that changes, until cancelled; :meth:`load` may have been called
        before."""
        try:
            if not self._is_loaded:
                await self.load(listener)
            while True:
                await self._wake.wait()
                await self._sleep(self._coalesce_s)
                self._watching.raise_failure()
                self._wake.clear()
                await self._flush(listener)
        finally:
            await self.close()

    async def close(self) -> None:
        """Follow nothing any more."""
        await self._watching.close()

    def _start(self) -> None:
        options = self._options
        follow = self._watching.follow
        if not options.endpoint_selector:
            follow(self.api_version, "inferencepools", InferencePool, self._pools_changed)
        for group in GROUPS:
            version = f"{group}/v1alpha2"
            objectives = partial(self._objectives_changed, group)
            follow(version, "inferenceobjectives", InferenceObjective, objectives, is_needed=False)
            rewrites = partial(self._view.rewrites_changed, group)
            follow(
                version, "inferencemodelrewrites", InferenceModelRewrite, rewrites, is_needed=False
            )
        self._watching.follow_pods(self._view)
        self._on_pools(self.known_pools())

    # What changes

    def _pools_changed(self, changes: Changes[InferencePool]) -> None:
        self._view.pools_changed(changes)
        self._watching.follow_pods(self._view)
        self._on_pools(self.known_pools())

    def _objectives_changed(self, group: str, changes: Changes[InferenceObjective]) -> None:
        self._view.objectives_changed(group, changes)
        self._on_objectives(group, changes)

    async def _flush(self, listener: ResourceListener) -> None:
        for rejection in self._view.take_rejections():
            logger.warning("rejected, what it was before stays: %s", rejection)
            listener.rejected()
        while self._view.flush(listener, _CHUNK):  # noqa: ASYNC110 - this waits for nothing
            await asyncio.sleep(0)
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
