"""The state of the scheduling, read when Prometheus asks."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from epp.core.router import Router
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.observability.families import counter, gauge

__all__ = ["SchedulingState"]

_POOL = ("inference_pool",)


class SchedulingState(Collector):
    """What is known of the engines' prefix caches, and what came of it."""

    def __init__(self, router: Router) -> None:
        self._router = router

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: the names are known only when there is a pool."""
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the families."""
        spec = self._router.spec
        observers = self._router.scheduler.observers
        caches = [each for each in observers if isinstance(each, PrefixCache)]
        if spec is None or not caches:
            return
        pool = (spec.name,)
        indices = [cache.index for cache in caches]
        for name, text, value in (
            ("prefix_indexer_size", "Blocks in the prefix index.", sum(i.blocks for i in indices)),
            (
                "prefix_indexer_utilization_ratio",
                "How full the prefix index is: 1 is its bound.",
                max(index.fullness for index in indices),
            ),
        ):
            yield gauge(name, text, {pool: value}, _POOL)
        for name, text, value in (
            (
                "prefix_indexer_looked_up_blocks",
                "Blocks of the prompts that were dispatched.",
                sum(cache.looked_up_blocks for cache in caches),
            ),
            (
                "prefix_indexer_hit_blocks",
                "Blocks of these that their endpoint had already, by the index.",
                sum(cache.hit_blocks for cache in caches),
            ),
            (
                "prefix_indexer_evicted_blocks",
                "Blocks that gave way to newer ones in the index.",
                sum(index.evicted_blocks for index in indices),
            ),
        ):
            yield counter(name, text, {pool: value}, _POOL)
