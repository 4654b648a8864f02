"""The state of the scheduling, read when Prometheus asks."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from epp.core.router import Router
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.observability.families import counter, gauge

__all__ = ["SchedulingState"]

_POOL = ("inference_pool",)


class SchedulingState(Collector):
    """What is known of the engines' prefix caches, and what came of it.

    ``routers`` returns those of the pools that there are.
    """

    def __init__(self, routers: Callable[[], Iterable[Router]]) -> None:
        self._routers = routers

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: the names are known only when there is a pool."""
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the families; none where there is no pool with such a cache."""
        found: dict[tuple[str], list[PrefixCache]] = {}
        for router in self._routers():
            observers = router.scheduler.observers
            caches = [each for each in observers if isinstance(each, PrefixCache)]
            if router.spec is not None and caches:
                found[router.spec.name,] = caches
        if not found:
            return

        def by_pool(value: Callable[[PrefixCache], int]) -> dict[tuple[str], float]:
            return {pool: sum(map(value, caches)) for pool, caches in found.items()}

        yield gauge(
            "prefix_indexer_size",
            "Blocks in the prefix index.",
            by_pool(lambda cache: cache.index.blocks),
            _POOL,
        )
        yield gauge(
            "prefix_indexer_utilization_ratio",
            "How full the prefix index is: 1 is its bound.",
            {pool: max(each.index.fullness for each in caches) for pool, caches in found.items()},
            _POOL,
        )
        yield counter(
            "prefix_indexer_looked_up_blocks",
            "Blocks of the prompts that were dispatched.",
            by_pool(lambda cache: cache.looked_up_blocks),
            _POOL,
        )
        yield counter(
            "prefix_indexer_hit_blocks",
            "Blocks of these that their endpoint had already, by the index.",
            by_pool(lambda cache: cache.hit_blocks),
            _POOL,
        )
        yield counter(
            "prefix_indexer_evicted_blocks",
            "Blocks that gave way to newer ones in the index.",
            by_pool(lambda cache: cache.index.evicted_blocks),
            _POOL,
        )
