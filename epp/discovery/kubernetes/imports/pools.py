"""Imported pools: what one cluster says of them and the endpoints of others → what is served.

No I/O, no clock. Which pools there are, their objectives and rewrites come from the cluster that an
EPP runs for; endpoints from each of the member clusters that export them.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from epp.core.resources import Endpoint, EndpointChanges, PoolResources
from epp.discovery.declared import EXPERIMENTAL_GROUP, DeclaredPool
from epp.discovery.kubernetes.destinations import Destinations
from epp.discovery.kubernetes.imports.objects import (
    IMPORT_KIND,
    InferencePoolImport,
    exporting_clusters,
    read_import,
)
from epp.discovery.kubernetes.shelf import Shelf
from epp.discovery.kubernetes.view import Scope
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.source import ResourceListener

__all__ = ["CLUSTER_LABEL", "ImportCatalog", "ImportedPools"]

CLUSTER_LABEL: Final = "inference-epp/cluster"
"""The label that endpoints of imported pools get beside those of their pods: the cluster."""


class ImportCatalog:
    """The InferencePoolImports of a namespace, those of them that the ``scope`` wants, and from
    which of the ``members`` their endpoints come."""

    def __init__(self, scope: Scope, members: Iterable[str]) -> None:
        self._scope = scope
        self._members = frozenset(members)
        self.shelf = Shelf(IMPORT_KIND, EXPERIMENTAL_GROUP, read_import)

    def changed(self, changes: Changes[InferencePoolImport]) -> None:
        """Take what has become of the imports."""
        for _ in self.shelf.take(changes):
            pass

    def served(self) -> dict[str, DeclaredPool]:
        """Return the imports that are served, by name."""
        declared = self.shelf.declared
        return {name: pool for name, pool in declared.items() if self._scope.wants(pool)}

    def by_cluster(self) -> dict[str, frozenset[str]]:
        """Return for each member the names of the imports that are served and that it backs."""
        names: dict[str, set[str]] = {cluster: set() for cluster in self._members}
        for name in self.served():
            for cluster in self._clusters(name):
                if cluster in names:
                    names[cluster].add(name)
        return {cluster: frozenset(found) for cluster, found in names.items()}

    def strangers(self) -> dict[str, tuple[str, ...]]:
        """Return, by import, the clusters that it names and that are no members."""
        found = {
            name: tuple(each for each in self._clusters(name) if each not in self._members)
            for name in self.served()
        }
        return {name: clusters for name, clusters in found.items() if clusters}

    def _clusters(self, name: str) -> tuple[str, ...]:
        """As the object is now, even if its annotations are no good: what it does not name any
        more must not be served."""
        return exporting_clusters(self.shelf.objects[name])


class _ImportedPool:
    """A pool, as far as it is known, and its endpoints in each cluster by destination."""

    def __init__(self) -> None:
        self.resources: PoolResources | None = None
        self.is_changed = False
        self.destinations = Destinations()
        self._endpoints: dict[str, dict[str, Endpoint]] = {}

    def take(self, cluster: str, changes: EndpointChanges) -> None:
        """Take what has become of the endpoints in a cluster."""
        endpoints = self._endpoints.setdefault(cluster, {})
        for destination in changes.gone:
            self._release(endpoints, destination)
        for found in changes.present:
            self._release(endpoints, found.destination)
            endpoint = endpoints[found.destination] = _of_cluster(found, cluster)
            self.destinations.claim(endpoint)

    def replace(self, cluster: str, present: tuple[Endpoint, ...]) -> None:
        """Take all endpoints that there are in a cluster."""
        kept = {found.destination for found in present}
        gone = tuple(self._endpoints.get(cluster, {}).keys() - kept)
        self.take(cluster, EndpointChanges(present=present, gone=gone))

    def _release(self, endpoints: dict[str, Endpoint], destination: str) -> None:
        before = endpoints.pop(destination, None)
        if before is not None:
            self.destinations.release(before)


class ImportedPools:
    """Makes of what is heard of imported pools what a listener is to hear.

    :attr:`local` hears of the pools without endpoints, :meth:`member` gives who hears of the
    endpoints in a cluster; all they hear is only noted until :meth:`flush`.
    """

    def __init__(self) -> None:
        self._pools: dict[str, _ImportedPool] = {}
        self._touched: dict[str, None] = {}
        self._told: set[str] = set()
        self.local: ResourceListener = _Local(self)

    def member(self, cluster: str) -> ResourceListener:
        """Return who hears of the endpoints in this cluster."""
        return _Member(self, cluster)

    @property
    def excluded_endpoints(self) -> int:
        """How many endpoints are left out, because pools have too many."""
        return sum(pool.destinations.excluded for pool in self._pools.values())

    def endpoints(self) -> Mapping[str, int]:
        """Return how many endpoints each pool that was told of has, by its key."""
        return {key: self._pools[key].destinations.count for key in sorted(self._told)}

    def shared(self) -> dict[str, tuple[str, ...]]:
        """Return, by pool, the destinations that more than one cluster uses."""
        shared = {key: pool.destinations.shared for key, pool in self._pools.items()}
        return {key: destinations for key, destinations in shared.items() if destinations}

    def flush(self, listener: ResourceListener, limit: int) -> bool:
        """Work off what has become of up to so many destinations, and tell the listener; returns
        whether there is more."""
        while self._touched and limit > 0:
            key = next(reversed(self._touched))
            limit -= self._flush_pool(key, listener, limit)
        return bool(self._touched)

    def _flush_pool(self, key: str, listener: ResourceListener, limit: int) -> int:
        """Do something for a pool and return how much it was."""
        pool = self._pools[key]
        if pool.resources is None:
            del self._touched[key]
            if not pool.destinations.claimed:
                del self._pools[key]
            if key in self._told:
                self._told.remove(key)
                listener.pool_gone(key)
            return 1
        changes = pool.destinations.changes(limit)
        is_whole = pool.is_changed
        if not pool.destinations.has_changes:
            del self._touched[key]
            if is_whole:
                pool.is_changed = False
                self._told.add(key)
                endpoints = pool.destinations.all()
                listener.pool_applied(msgspec.structs.replace(pool.resources, endpoints=endpoints))
        if not is_whole and (changes.present or changes.gone):
            listener.endpoints_changed(key, changes)
        return limit if is_whole else 1 + len(changes.present) + len(changes.gone)

    def _touch(self, key: str) -> _ImportedPool:
        self._touched[key] = None
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _ImportedPool()
        return pool


class _Local:
    """Hears of the pools themselves (:class:`epp.discovery.source.ResourceListener`)."""

    def __init__(self, pools: ImportedPools) -> None:
        self._pools = pools

    def pool_applied(self, resources: PoolResources) -> None:
        pool = self._pools._touch(resources.pool.key)
        pool.resources = resources
        pool.is_changed = True

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        """Not called: there are none here."""

    def pool_gone(self, key: str) -> None:
        self._pools._touch(key).resources = None

    def rejected(self) -> None:
        """Not called: whoever reads the objects tells of it."""


class _Member:
    """Hears of the endpoints in a cluster (:class:`epp.discovery.source.ResourceListener`)."""

    def __init__(self, pools: ImportedPools, cluster: str) -> None:
        self._pools = pools
        self._cluster = cluster

    def pool_applied(self, resources: PoolResources) -> None:
        pool = self._pools._touch(resources.pool.key)
        pool.replace(self._cluster, resources.endpoints)

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        self._pools._touch(key).take(self._cluster, changes)

    def pool_gone(self, key: str) -> None:
        self._pools._touch(key).replace(self._cluster, ())

    def rejected(self) -> None:
        """Not called: whoever reads the objects tells of it."""


def _of_cluster(found: Endpoint, cluster: str) -> Endpoint:
    labels = {**found.labels, CLUSTER_LABEL: cluster}
    return msgspec.structs.replace(found, name=f"{cluster}/{found.name}", labels=labels)
