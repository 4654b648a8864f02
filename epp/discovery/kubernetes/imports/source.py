"""Imported pools: their imports come from one API server, their endpoints from those of members."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from epp.discovery.cluster import ClusterOptions
from epp.discovery.declared import EXPERIMENTAL_GROUP
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.imports.member import MemberCluster
from epp.discovery.kubernetes.imports.objects import (
    IMPORT_API_VERSION,
    IMPORT_KIND,
    InferencePoolImport,
)
from epp.discovery.kubernetes.imports.pools import ImportCatalog, ImportedPools
from epp.discovery.kubernetes.objects import InferenceObjective
from epp.discovery.kubernetes.source import SourceStatistics
from epp.discovery.kubernetes.text import listed
from epp.discovery.kubernetes.view import ClusterView, KnownPool, Scope
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watched_source import WatchedSource
from epp.discovery.kubernetes.watching import Watching
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName
from epp.discovery.label_selector import parse_label_selector
from epp.discovery.source import ResourceListener
from epp.errors import UsageError

__all__ = ["ImportSource"]

logger = logging.getLogger(__name__)


class ImportSource(WatchedSource):
    """The InferencePoolImports of one namespace that the ``options`` choose, and all that belongs
    to them (:class:`epp.discovery.source.ResourceSource`).

    ``members`` are connections to the member clusters, by their names. At the start members are
    waited for ``member_wait_s`` at most: one that is not there joins later, and the others are
    served. What was known of a member stays while its API server cannot be reached. Raises
    UsageError for options that mean nothing.

    ``coalesce_s``, ``on_pools``, ``on_objectives`` and ``sleep`` are as in
    :class:`~epp.discovery.kubernetes.source.KubernetesSource`. :attr:`on_members` is called when
    the pools in the :attr:`members` may have changed, or, for who acts as the exporting controller,
    the imports there.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        members: Mapping[str, ClusterConnection],
        options: ClusterOptions,
        *,
        coalesce_s: float = 0.05,
        member_wait_s: float = 5.0,
        pace: Pace = Pace(),  # noqa: B008 - frozen
        on_pools: Callable[[KnownPools], None] = lambda _pools: None,
        on_objectives: Callable[[str, Changes[InferenceObjective]], None] = lambda _g, _c: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(coalesce_s=coalesce_s, on_objectives=on_objectives, sleep=sleep)
        self._options = options
        self._member_wait_s = member_wait_s
        self._on_pools = on_pools
        self.on_members: Callable[[], None] = lambda: None
        namespace = options.pool_namespace
        self._catalog = ImportCatalog(_scope_of(options), members)
        self._view = ClusterView(namespace, None)
        self._pools = ImportedPools()
        self._watching = Watching(connection, namespace, pace=pace, wake=self._wake)
        self.members = {
            name: MemberCluster(
                name,
                member,
                namespace,
                keeps_imports=options.act_as_exporting_controller,
                pace=pace,
                wake=self._wake,
                on_objects=lambda: self.on_members(),
            )
            for name, member in members.items()
        }
        self._notes: frozenset[str] = frozenset()

    @property
    def api_version(self) -> str:
        """Of the imports."""
        return IMPORT_API_VERSION

    def pools(self) -> Iterator[KnownPool]:
        """All imports of the namespace, also those that are not served."""
        served, endpoints = self._catalog.served(), self._pools.endpoints()
        for name, found in self._catalog.shelf.objects.items():
            yield KnownPool(
                found=found,
                is_wanted=name in served,
                problem=self._catalog.shelf.problems.get(name, ""),
                endpoints=endpoints.get(f"{self._options.pool_namespace}/{name}"),
            )

    def known_pools(self) -> KnownPools:
        """Return which pools there are, which are served, and which would be."""
        served = self._catalog.served()
        return KnownPools(
            served=_pool_names(served),
            wanted=_pool_names({*served, *self._options.pool_names}),
            existing=_pool_names(self._catalog.shelf.objects),
            kinds=frozenset({(EXPERIMENTAL_GROUP, IMPORT_KIND)}),
        )

    def statistics(self) -> SourceStatistics:
        """Return what there is to tell for metrics."""
        watches = list(self._watching.statistics())
        shelves = [member.state.shelf for member in self.members.values()]
        for member in self.members.values():
            watches += member.watching.statistics()
        problems = self._view.problems()
        problems[IMPORT_KIND] = len(self._catalog.shelf.problems)
        problems["InferencePool"] = sum(len(shelf.problems) for shelf in shelves)
        excluded = sum(member.state.view.excluded_endpoints for member in self.members.values())
        return SourceStatistics(
            watches=tuple(watches),
            problems=problems,
            excluded_endpoints=excluded + self._pools.excluded_endpoints,
        )

    # Start and end

    def _start(self) -> None:
        self._watching.follow(
            IMPORT_API_VERSION, "inferencepoolimports", InferencePoolImport, self._imports_changed
        )
        self._follow_referring(self._watching, self._view)
        for member in self.members.values():
            member.start()

    async def _wait_until_known(self) -> None:
        """All members too, unless they do not answer in time."""
        await self._until(lambda: self._watching.is_known)
        try:
            async with asyncio.timeout(self._member_wait_s):
                await self._until(lambda: all(map(_is_known, self.members.values())))
        except TimeoutError:
            self._tell_late()

    def _all_watching(self) -> Iterator[Watching]:
        yield self._watching
        for member in self.members.values():
            yield member.watching

    # What changes

    def _imports_changed(self, changes: Changes[InferencePoolImport]) -> None:
        self._catalog.changed(changes)
        served = {pool.spec.key: pool.spec for pool in self._catalog.served().values()}
        for key in self._view.wanted_pods.keys() - served.keys():
            self._view.withdraw(key)
        for key, spec in served.items():
            is_new = key not in self._view.wanted_pods
            self._view.serve(spec, "")
            if is_new:
                self._view.pods_listed(key, "", ())  # its endpoints are in the members
        for cluster, names in self._catalog.by_cluster().items():
            self.members[cluster].want(names)
        self._on_pools(self.known_pools())

    # What comes of it

    async def _flush(self, listener: ResourceListener) -> None:
        self._tell_rejections(self._rejections(), listener)
        await self._work_off(self._view.flush, self._pools.local)
        for cluster, member in self.members.items():
            await self._work_off(member.state.view.flush, self._pools.member(cluster))
        await self._work_off(self._pools.flush, listener)
        self._tell_notes()

    def _rejections(self) -> Iterator[str]:
        yield from self._catalog.shelf.take_rejections()
        yield from self._view.take_rejections()
        for cluster, member in self.members.items():
            for rejection in member.state.shelf.take_rejections():
                yield f"cluster {cluster}: {rejection}"

    def _tell_late(self) -> None:
        for cluster, member in self.members.items():
            if not _is_known(member):
                why = member.watching.problem() or f"cluster {cluster}: no answer yet"
                logger.warning("a member is not there, others are served: %s", why)

    def _tell_notes(self) -> None:
        """Log why something is not used, once for as long as it is so."""
        notes = frozenset(self._all_notes())
        for note in sorted(notes - self._notes):
            logger.warning("%s", note)
        self._notes = notes

    def _all_notes(self) -> Iterator[str]:
        namespace = self._options.pool_namespace
        for name in set(self._options.pool_names) - self._catalog.shelf.objects.keys():
            yield f"there is no {IMPORT_KIND} {namespace}/{name}; it is served as soon as there is"
        for name, clusters in self._catalog.strangers().items():
            title = f"{IMPORT_KIND} {namespace}/{name}"
            yield f"{title}: not among --member-clusters, so not used: {listed(clusters)}"
        for cluster, member in self.members.items():
            unused = member.state.unused() if member.has_told else {}
            for name, reason in unused.items():
                title = f"cluster {cluster}: InferencePool {namespace}/{name}"
                yield f"{title} is not used: it {reason}"
        for key, destinations in self._pools.shared().items():
            yield (
                f"pool {key}: used by pods of several clusters, the first of which counts: "
                f"{listed(destinations)}"
            )


def _is_known(member: MemberCluster) -> bool:
    return member.has_told and member.watching.is_known


def _scope_of(options: ClusterOptions) -> Scope:
    if options.pool_group != EXPERIMENTAL_GROUP:
        found = f'found "{options.pool_group}"'
        raise UsageError(
            f"--pool-group: {found}; expected {EXPERIMENTAL_GROUP}, the group of {IMPORT_KIND}"
        )
    selector = None
    if options.pool_selector:
        selector = parse_label_selector(options.pool_selector, "--pool-selector")
    return Scope(
        namespace=options.pool_namespace,
        group=options.pool_group,
        names=frozenset(options.pool_names),
        selector=selector,
    )


def _pool_names(names: Iterable[str]) -> frozenset[PoolName]:
    return frozenset(PoolName(EXPERIMENTAL_GROUP, IMPORT_KIND, name) for name in names)
