"""What is counted of requests, as they go by.

Counting is on the request path, so it is done with plain numbers, which one thread changes; they
become metrics when Prometheus asks. (``prometheus_client`` takes a lock for each number and looks
at a histogram's bounds one by one: 8 µs per request, here it is 1.)
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from epp.core.gate import Ending
from epp.core.request import FlowKey, Outcome, Request
from epp.observability.families import counter

__all__ = ["Histogram", "RequestMetrics"]

_PREFIX: Final = "llm_d_epp_"
_LATENCY_S: Final = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45,
    60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
_REQUEST_BYTES: Final = tuple(64 * 2**k for k in range(0, 25, 2))
_RESPONSE_BYTES: Final = tuple(2**k for k in range(0, 25, 2))

_FLOW_LABELS: Final = ("model_name", "target_model_name", "fairness_id", "priority")
_DISPATCHED: Final = Outcome.DISPATCHED  # read off its enumeration once: that takes a while
_MAX_FLOWS: Final = 1_000
_MAX_PRIORITIES: Final = 100
_OTHER: Final = "other"


class Histogram:
    """Counts values by the smallest of ``bounds``, in ascending order, that is not below them."""

    __slots__ = ("_bounds", "_counts", "_names", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._names = _names(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: tuple[str, ...]) -> None:
        """Add the series with these labels to a family."""
        totals = zip(self._names, accumulate(self._counts), strict=True)
        family.add_metric(labels, list(totals), self._sum)


@lru_cache
def _names(bounds: tuple[float, ...]) -> list[str]:
    """Return what Prometheus calls these bounds, and the one that is always there."""
    return [floatToGoString(bound) for bound in (*bounds, float("inf"))]  # type: ignore[no-untyped-call]


class RequestMetrics(Collector):
    """What is counted of the requests of all pools together, by flow.

    At most 1,000 different (model, target model, fairness id, priority) get series of their own;
    whoever comes later is counted under ``other``, the first 100 priorities of these apart.
    """

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str, FlowKey], _FlowSeries] = {}
        self._rest = _FlowSeries((_OTHER, _OTHER, _OTHER, _OTHER))
        self._overrides: dict[tuple[int, str], int] = {}

    def expect(self, priority: int, default_fairness_id: str) -> None:
        """Have the series of a priority begin at zero."""
        self._flow_of("", "", FlowKey(priority, default_fairness_id))

    # What is counted

    def wait_ended(self, request: Request, outcome: Outcome) -> None:
        """Count the end of a wait."""
        flow = self._flow(request)
        if outcome is _DISPATCHED:
            flow.requests += 1
            flow.running += 1
            flow.request_bytes.observe(request.body_bytes)
        elif outcome is not Outcome.CANCELLED:
            flow.failed(outcome.value)

    def adopted(self, request: Request) -> None:
        """Count a request that runs, and not as one that was sent."""
        self._flow(request).running += 1

    def overridden(self, priority: int, rule: str) -> None:
        """Count a dispatch out of turn."""
        key = (priority, rule)
        self._overrides[key] = self._overrides.get(key, 0) + 1

    def settled(self, request: Request, charged: int, actual: int) -> None:
        """Count a cost, and how far its estimate was off."""
        flow = self._flow(request)
        flow.cost += actual
        flow.misjudged += abs(actual - charged)

    def ended(self, request: Request, ending: Ending) -> None:
        """Count the end of an exchange."""
        flow = self._flow(request)
        flow.running -= 1
        flow.duration_s.observe(ending.duration_s)
        if ending.response_bytes is not None:
            flow.response_bytes.observe(ending.response_bytes)
        if ending.status >= 400:
            flow.failed(str(ending.status))
        elif ending.cause != "complete":
            flow.failed(ending.cause)

    def _flow(self, request: Request) -> "_FlowSeries":
        model = request.model
        return self._flow_of(request.client_model or model, model, request.flow)

    def _flow_of(self, model: str, target: str, flow: FlowKey) -> "_FlowSeries":
        found = self._flows.get((model, target, flow))
        if found is None and len(self._flows) >= _MAX_FLOWS:
            model, target, flow = _OTHER, _OTHER, FlowKey(flow.priority, _OTHER)
            found = self._flows.get((model, target, flow))
            if found is None and len(self._flows) >= _MAX_FLOWS + _MAX_PRIORITIES:
                return self._rest
        if found is None:
            labels = (model, target, flow.fairness_id, str(flow.priority))
            found = self._flows[model, target, flow] = _FlowSeries(labels)
        return found

    def _series(self) -> "Iterator[_FlowSeries]":
        yield from self._flows.values()
        if len(self._flows) >= _MAX_FLOWS + _MAX_PRIORITIES:
            yield self._rest

    # What Prometheus gets

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self._flow_counts()
        yield self._flow_histogram(
            "request_duration_seconds",
            "From arrival to the response's end.",
            lambda series: series.duration_s,
        )
        yield self._flow_histogram(
            "request_size_bytes", "Size of request bodies.", lambda series: series.request_bytes
        )
        yield self._flow_histogram(
            "response_size_bytes",
            "Size of response bodies, where they pass through the EPP.",
            lambda series: series.response_bytes,
        )
        yield counter(
            "flow_control_out_of_turn_total",
            "Requests that went before those of a higher priority, by the rule that let them.",
            {(str(priority), rule): count for (priority, rule), count in self._overrides.items()},
            ("priority", "rule"),
        )

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []

    def _flow_counts(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            f"{_PREFIX}request_total", "Requests sent to an endpoint.", labels=_FLOW_LABELS
        )
        running = GaugeMetricFamily(
            f"{_PREFIX}request_running", "Requests now at an endpoint.", labels=_FLOW_LABELS
        )
        errors = CounterMetricFamily(
            f"{_PREFIX}request_error_total",
            "Requests that failed: refused by the EPP (by outcome), answered with a status of 400"
            " or more (by status), or aborted.",
            labels=(*_FLOW_LABELS, "error_code"),
        )
        for series in self._series():
            requests.add_metric(series.labels, series.requests)
            running.add_metric(series.labels, series.running)
            for code, count in series.errors.items():
                errors.add_metric((*series.labels, code), count)
        yield from (requests, running, errors, *self._costs())

    def _costs(self) -> Iterator[Metric]:
        yield counter(
            "flow_control_served_cost_total",
            "What the requests that have ended have cost, in the unit of the configuration.",
            {series.labels: series.cost for series in self._series()},
            _FLOW_LABELS,
        )
        yield counter(
            "flow_control_misjudged_cost_total",
            "By how much what was charged to requests while they ran was off, in all.",
            {series.labels: series.misjudged for series in self._series()},
            _FLOW_LABELS,
        )

    def _flow_histogram(
        self, name: str, text: str, histogram: "Callable[[_FlowSeries], Histogram]"
    ) -> Metric:
        family = HistogramMetricFamily(_PREFIX + name, text, labels=_FLOW_LABELS)
        for series in self._series():
            histogram(series).add_to(family, series.labels)
        return family


class _FlowSeries:
    __slots__ = ("cost", "duration_s", "errors", "labels", "misjudged", "request_bytes", "requests",
                 "response_bytes", "running")  # fmt: skip

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.requests = 0
        self.running = 0
        self.cost = 0
        self.misjudged = 0
        self.errors: dict[str, int] = {}
        self.duration_s = Histogram(_LATENCY_S)
        self.request_bytes = Histogram(_REQUEST_BYTES)
        self.response_bytes = Histogram(_RESPONSE_BYTES)

    def failed(self, code: str) -> None:
        self.errors[code] = self.errors.get(code, 0) + 1
