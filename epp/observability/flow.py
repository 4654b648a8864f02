"""The state of the flow control, read when Prometheus asks."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from epp.core.flow import Band, FlowController
from epp.core.flow.flows import Flow
from epp.core.router import Router
from epp.observability.families import gauge

__all__ = ["FlowState"]

_BAND: Final = ("priority", "inference_pool")
_FLOW: Final = ("fairness_id", "priority", "inference_pool")
_REASONS: Final = (
    "inflight", "waiting", "kv", "stale", "warming", "no-endpoints", "holdback", "filtered",
)  # fmt: skip
_MAX_FLOWS: Final = 100
_OTHER: Final = "other"


_Bands: TypeAlias = dict[tuple[str, str], tuple[Band, FlowController]]
"""The bands of all pools, each with what it is one of, by priority and the name of the pool."""


class FlowState(Collector):
    """What waits, for how long it will, why, and how fairly: by band, and by flow.

    ``routers`` returns those of the pools that there are, ``now`` the time of their clock. Of each
    band, the 100 flows with the most waiting requests have series of their own; the others
    are added up under ``other``.
    """

    def __init__(self, routers: Callable[[], Iterable[Router]], now: Callable[[], float]) -> None:
        self._routers = routers
        self._now = now

    def describe(self) -> list[GaugeMetricFamily]:
        """Return nothing: the names are known only when there is a pool."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families."""
        flows = {each.spec.name: each.flow for each in self._routers() if each.spec is not None}
        if not flows:
            return
        now = self._now()
        bands = {
            (str(band.priority), pool): (band, flow)
            for pool, flow in flows.items()
            for band in flow.bands()
        }
        yield from _sizes(bands, now)
        yield from _prospects(bands, now)
        yield _gates(bands)
        yield from _flows(bands)
        shares: dict[str, dict[tuple[str], float]] = {}
        for pool, flow in flows.items():
            for name, used, limit in flow.utilization():
                shares.setdefault(name, {})[pool,] = used / limit if limit else 1.0
        for name, by_pool in shares.items():
            yield gauge(
                f"flow_control_global_capacity_utilization_{name}",
                f"How full the queue is, in {name}: 1 is its limit.",
                by_pool,
                ("inference_pool",),
            )


def _sizes(bands: _Bands, now: float) -> Iterator[GaugeMetricFamily]:
    sizes = {key: band.requests for key, (band, _) in bands.items()}
    yield gauge("flow_control_queue_size", "Requests that wait.", sizes, _BAND)
    volumes = {key: band.bytes for key, (band, _) in bands.items()}
    yield gauge("flow_control_queue_bytes", "Bytes of body that wait.", volumes, _BAND)
    costs = {key: band.cost for key, (band, _) in bands.items()}
    yield gauge("flow_control_queue_cost", "Expected cost of what waits.", costs, _BAND)
    ages = {
        key: now - band.oldest().entered_s if band.requests else 0.0
        for key, (band, _) in bands.items()
    }
    yield gauge(
        "flow_control_queue_oldest_age_seconds", "Age of the oldest that waits.", ages, _BAND
    )
    for name, limit in (("requests", "max_requests"), ("bytes", "max_bytes")):
        shares = {
            key: getattr(band, name) / (getattr(band.options, limit) or 1)
            for key, (band, _) in bands.items()
        }
        yield gauge(
            f"flow_control_capacity_utilization_{name}",
            f"How full the queue of the priority is, in {name}: 1 is its limit.",
            shares,
            _BAND,
        )


def _prospects(bands: _Bands, now: float) -> Iterator[GaugeMetricFamily]:
    rates = {key: band.drain_rate.requests_per_s(now) for key, (band, _) in bands.items()}
    yield gauge(
        "flow_control_drain_rate",
        "Requests per second that left the queue for an endpoint, while there was a queue.",
        {key: rate for key, rate in rates.items() if rate is not None},
        _BAND,
    )
    waits = {key: flow.estimated_wait_s(band, now) for key, (band, flow) in bands.items()}
    yield gauge(
        "flow_control_estimated_wait_seconds",
        "How long the last in the queue will wait, if it drains as it did.",
        {key: wait for key, wait in waits.items() if wait is not None},
        _BAND,
    )
    indices = {key: band.fairness(now) for key, (band, _) in bands.items()}
    yield gauge(
        "flow_control_fairness_index",
        "Jain's index of the service that the flows got that wait: 1 is fair.",
        {key: index for key, index in indices.items() if index is not None},
        _BAND,
    )


def _gates(bands: _Bands) -> GaugeMetricFamily:
    closed = {}
    for key, (band, flow) in bands.items():
        closed_by = flow.closed_by(band)
        closed.update({(*key, reason): float(reason == closed_by) for reason in _REASONS})
    return gauge(
        "flow_control_gate_closed",
        "1 for the reason for which the requests of the priority wait.",
        closed,
        (*_BAND, "reason"),
    )


def _flows(bands: _Bands) -> Iterator[GaugeMetricFamily]:
    sizes: dict[tuple[str, str, str], float] = {}
    lags: dict[tuple[str, str, str], float] = {}
    for (priority, pool), (band, _) in bands.items():
        shown = heapq.nlargest(_MAX_FLOWS, band.flows.values(), key=_waiting)
        for flow in shown:
            key = (flow.id, priority, pool)
            sizes[key] = flow.requests
            if band.options.fairness == "weighted-fair":
                lags[key] = band.policy.virtual_time - flow.virtual_time
        rest = band.requests - sum(flow.requests for flow in shown)
        if rest:
            sizes[_OTHER, priority, pool] = sizes.get((_OTHER, priority, pool), 0) + rest
    yield gauge("flow_control_flow_queue_size", "Requests of a flow that wait.", sizes, _FLOW)
    yield gauge(
        "flow_control_flow_virtual_time_lag",
        "How much service by weight a flow got less (or, below 0, more) than its band's measure.",
        lags,
        _FLOW,
    )


def _waiting(flow: Flow) -> int:
    return flow.requests
