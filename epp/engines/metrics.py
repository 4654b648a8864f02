"""Metrics of the scrapes, and of what the engines said."""

import math
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.core.resources import Endpoint
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
        yield from self._scrapes()
        pool = self._router.pool
        now = self._clock()
        columns = (
            ("engine_waiting_requests", "Requests in the engine's own queue.", pool.waiting),
            ("engine_running_requests", "Requests in the engine's batch.", pool.running),
            ("engine_kv_cache_usage_ratio", "Share of the KV cache in use.", pool.kv_ratio),
            ("scrape_age_seconds", "Since the engine last said so.", now - pool.scraped_s),
        )
        slots = pool.active.nonzero()[0].tolist()
        for name, text, column in columns:
            family = GaugeMetricFamily(_PREFIX + name, text, labels=_LABELS)
            for slot in slots:
                if not math.isnan(column[slot]):
                    family.add_metric(self._labels(pool.endpoint(slot)), float(column[slot]))
            yield family
        engines = GaugeMetricFamily(
            f"{_PREFIX}engine_info",
            "Whose metrics the endpoint's last page had.",
            labels=(*_LABELS, "engine"),
        )
        for slot in slots:
            endpoint = pool.endpoint(slot)
            if engine := self._scraper.engine_at(endpoint.destination):
                engines.add_metric([*self._labels(endpoint), engine], 1)
        yield engines

    def _scrapes(self) -> Iterator[Metric]:
        scraper = self._scraper
        for name, text, label, counts in (
            (
                "engine_scrapes_total",
                "Fetches of an engine's metrics page, by result.",
                "result",
                scraper.results,
            ),
            (
                "engine_values_missing_total",
                "Pages that did not tell this, and else were of use.",
                "value",
                scraper.untold,
            ),
        ):
            family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
            for value, count in counts.items():
                family.add_metric([value], count)
            yield family
        yield CounterMetricFamily(
            f"{_PREFIX}engine_scrape_bytes_total",
            "Metrics pages of the engines that were fetched.",
            value=scraper.page_bytes,
        )
        yield CounterMetricFamily(
            f"{_PREFIX}engine_scrape_seconds_total",
            "What fetching metrics pages took, all fetches together.",
            value=scraper.fetch_s,
        )

    def _labels(self, endpoint: Endpoint) -> list[str]:
        spec = self._router.spec
        return ["" if spec is None else spec.name, endpoint.name, endpoint.destination]

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []
