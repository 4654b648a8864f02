"""Metrics of the scrapes, and of what the engines said."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.core.pool import Column, Pool
from epp.core.resources import Endpoint
from epp.core.router import Router
from epp.observability.families import counter

__all__ = ["ScrapeMetrics", "ScrapeState", "Scraped"]

_PREFIX: Final = "llm_d_epp_"
_LABELS: Final = ("inference_pool", "endpoint_name", "model_server_endpoint")

_COLUMNS: Final[tuple[tuple[str, str, Callable[[Pool, float], Column]], ...]] = (
    (
        "engine_waiting_requests",
        "Requests in the engine's own queue.",
        lambda pool, now: pool.waiting,
    ),
    ("engine_running_requests", "Requests in the engine's batch.", lambda pool, now: pool.running),
    (
        "engine_kv_cache_usage_ratio",
        "Share of the KV cache in use.",
        lambda pool, now: pool.kv_ratio,
    ),
    (
        "scrape_age_seconds",
        "Since the engine last said so.",
        lambda pool, now: now - pool.scraped_s,
    ),
)


class ScrapeState(Protocol):
    """What a scraper (:class:`epp.engines.Scraper`) tells."""

    @property
    def results(self) -> Mapping[str, int]:
        """Scrapes, by ``ok`` or what failed."""

    @property
    def untold(self) -> Mapping[str, int]:
        """Those that were ok and left something out, by what that was."""

    @property
    def page_bytes(self) -> int:
        """The size of all pages."""

    @property
    def fetch_s(self) -> float:
        """What all fetches took."""

    def engine_at(self, destination: str) -> str:
        """Return whose page the endpoint's last one was, empty where that is not known."""


Scraped: TypeAlias = tuple[Router, ScrapeState]
"""A pool's router, and what keeps it informed of its engines' load."""


class ScrapeMetrics(Collector):
    """Reads the scrapers and the pools that they scrape for when Prometheus asks.

    ``scraped`` returns those that there are, ``now`` the time of the routers' clock. What scrapers
    have counted is added up, that of those that are gone too.
    """

    def __init__(self, scraped: Callable[[], Iterable[Scraped]], now: Callable[[], float]) -> None:
        self._scraped = scraped
        self._now = now
        self._gone = _Totals()

    def forget(self, scraper: ScrapeState) -> None:
        """A scraper will not be there any more: keep what it has counted."""
        self._gone.add(scraper)

    def collect(self) -> Iterator[Metric]:
        """Yield the families, none where nothing ever was scraped; an endpoint that has said
        nothing yet has no series."""
        scraped = list(self._scraped())
        if not (scraped or self._gone.results):
            return
        yield from self._scrapes([scraper for _, scraper in scraped])
        yield from self._columns([router for router, _ in scraped])
        engines = GaugeMetricFamily(
            f"{_PREFIX}engine_info",
            "Whose metrics the endpoint's last page had.",
            labels=(*_LABELS, "engine"),
        )
        for router, scraper in scraped:
            for endpoint, _, _ in router.pool:
                if engine := scraper.engine_at(endpoint.destination):
                    engines.add_metric([*_labels(router, endpoint), engine], 1)
        yield engines

    def _scrapes(self, scrapers: list[ScrapeState]) -> Iterator[Metric]:
        totals = _Totals()
        totals.add(self._gone)
        for scraper in scrapers:
            totals.add(scraper)
        yield counter(
            "engine_scrapes_total",
            "Fetches of an engine's metrics page, by result.",
            {(result,): count for result, count in totals.results.items()},
            ("result",),
        )
        yield counter(
            "engine_values_missing_total",
            "Pages that did not tell this, and else were of use.",
            {(value,): count for value, count in totals.untold.items()},
            ("value",),
        )
        yield CounterMetricFamily(
            f"{_PREFIX}engine_scrape_bytes_total",
            "Metrics pages of the engines that were fetched.",
            value=totals.page_bytes,
        )
        yield CounterMetricFamily(
            f"{_PREFIX}engine_scrape_seconds_total",
            "What fetching metrics pages took, all fetches together.",
            value=totals.fetch_s,
        )

    def _columns(self, routers: list[Router]) -> Iterator[Metric]:
        now = self._now()
        for name, text, column in _COLUMNS:
            family = GaugeMetricFamily(_PREFIX + name, text, labels=_LABELS)
            for router in routers:
                values = column(router.pool, now).tolist()
                for slot in router.pool.active.nonzero()[0].tolist():
                    if not math.isnan(values[slot]):
                        labels = _labels(router, router.pool.endpoint(slot))
                        family.add_metric(labels, values[slot])
            yield family

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []


class _Totals:
    """What several scrapers have counted."""

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.untold: Counter[str] = Counter()
        self.page_bytes = 0
        self.fetch_s = 0.0

    def add(self, scraper: "ScrapeState | _Totals") -> None:
        self.results.update(scraper.results)
        self.untold.update(scraper.untold)
        self.page_bytes += scraper.page_bytes
        self.fetch_s += scraper.fetch_s


def _labels(router: Router, endpoint: Endpoint) -> list[str]:
    spec = router.spec
    return ["" if spec is None else spec.name, endpoint.name, endpoint.destination]
