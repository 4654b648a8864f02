"""Metrics of the scrapes, and of what the engines said."""

import math
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.core.router import Router
from epp.engines.scraper import Scraper

__all__ = ["ScrapeMetrics"]

_PREFIX: Final = "llm_d_epp_"
_LABELS: Final = ("inference_pool", "endpoint_name", "model_server_endpoint")


class ScrapeMetrics(Collector):
    """Reads the scraper and the router's pool when Prometheus asks."""

    def __init__(self, scraper: Scraper, router: Router, clock: Callable[[], float]) -> None:
        self._scraper = scraper
        self._router = router
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """Yield the families; an endpoint that has said nothing yet has no series."""
        scrapes = CounterMetricFamily(
            f"{_PREFIX}engine_scrapes_total",
            "Fetches of an engine's metrics page, by result.",
            labels=["result"],
        )
        for result, count in self._scraper.results.items():
            scrapes.add_metric([result], count)
        yield scrapes
        spec, pool = self._router.spec, self._router.pool
        pool_name = "" if spec is None else spec.name
        now = self._clock()
        columns = (
            ("engine_waiting_requests", "Requests in the engine's own queue.", pool.waiting),
            ("engine_running_requests", "Requests in the engine's batch.", pool.running),
            ("engine_kv_cache_usage_ratio", "Share of the KV cache in use.", pool.kv_ratio),
            ("scrape_age_seconds", "Since the engine last said so.", now - pool.scraped_s),
        )
        for name, text, column in columns:
            family = GaugeMetricFamily(_PREFIX + name, text, labels=_LABELS)
            for slot in pool.active.nonzero()[0].tolist():
                if not math.isnan(column[slot]):
                    endpoint = pool.endpoint(slot)
                    labels = [pool_name, endpoint.name, endpoint.destination]
                    family.add_metric(labels, float(column[slot]))
            yield family

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []
