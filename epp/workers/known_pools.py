"""What the core has told of its pools: the core keeps it for workers that are yet to come, a worker
for the time in which there may be no core."""

from collections.abc import Iterable, Mapping

from msgspec import structs

from epp.core.claims import RequestClaims
from epp.core.pool_finder import PoolFinder
from epp.core.resources import Endpoint, EndpointChanges, Objective, PoolResources
from epp.core.rewrites import ModelRewrites

__all__ = ["KnownPool", "KnownPools"]


class KnownPool:
    """One pool; ``endpoints`` are by their ``ip:port``."""

    __slots__ = ("_resources", "endpoints", "has_choices")

    def __init__(self, resources: PoolResources) -> None:
        self._resources = resources
        self.endpoints: dict[str, Endpoint] = {e.destination: e for e in resources.endpoints}
        self.has_choices = ModelRewrites(resources.rewrites).has_choices

    @property
    def objectives(self) -> Mapping[str, Objective]:
        """The pool's objectives, by name."""
        return self._resources.objectives

    @property
    def resources(self) -> PoolResources:
        """All of the pool, as it is now."""
        return structs.replace(self._resources, endpoints=tuple(self.endpoints.values()))

    def change(self, changes: EndpointChanges) -> None:
        """Take over what has become of some endpoints, at a cost in proportion to the changes."""
        for destination in changes.gone:
            self.endpoints.pop(destination, None)
        for endpoint in changes.present:
            self.endpoints[endpoint.destination] = endpoint


class KnownPools:
    """All pools, by their keys (``namespace/name``)."""

    def __init__(self) -> None:
        self._pools: dict[str, KnownPool] = {}
        self._finder = PoolFinder()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all pools."""
        return tuple(self._pools)

    @property
    def has_choices(self) -> bool:
        """Whether any rewrite has more than one target, so that conversations matter."""
        return any(pool.has_choices for pool in self._pools.values())

    def resources(self) -> list[PoolResources]:
        """Return all of all pools, as they are now."""
        return [pool.resources for pool in self._pools.values()]

    def find(self, claims: RequestClaims) -> KnownPool | None:
        """Return the pool that a request is for, None where it cannot be told."""
        key = self._finder.find(claims)
        return None if key is None else self._pools[key]

    def put(self, resources: PoolResources) -> None:
        """Know a pool, or all that has become of it."""
        self._pools[resources.pool.key] = KnownPool(resources)
        self._finder.put(resources)

    def change(self, key: str, changes: EndpointChanges) -> None:
        """Take over what has become of some endpoints of a pool. Raises KeyError for one that is
        not known."""
        self._pools[key].change(changes)

    def remove(self, key: str) -> None:
        """Forget a pool. Raises KeyError for one that is not known."""
        del self._pools[key]
        self._finder.remove(key)

    def keep(self, keys: Iterable[str]) -> None:
        """Forget all pools but these."""
        for key in set(self._pools).difference(keys):
            self.remove(key)
