"""Metrics of several processes, exported by the core."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.core.request import WAIT_OUTCOMES, Outcome
from epp.workers.hub import Hub
from epp.workers.tally import Tally

__all__ = ["WorkerMetrics"]

_PREFIX: Final = "llm_d_epp_"
_REFUSALS: Final = tuple(
    outcome for outcome in WAIT_OUTCOMES if outcome not in (Outcome.DISPATCHED, Outcome.CANCELLED)
)


class WorkerMetrics(Collector):
    """Reads the hub and the tally when Prometheus asks. ``workers`` is how many there should be."""

    def __init__(self, hub: Hub, tally: Tally, workers: int) -> None:
        self._hub = hub
        self._tally = tally
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        hub, tally = self._hub, self._tally
        yield _gauge("workers", "Workers that are connected to the core.", hub.connected)
        is_degraded = hub.connected < self._workers
        yield _gauge("degraded", "1 while a worker has no core, or is not there.", is_degraded)
        streams = GaugeMetricFamily(
            f"{_PREFIX}worker_streams_inflight", "Open streams by worker.", labels=["worker"]
        )
        for worker, count in sorted(hub.open_streams.items()):
            streams.add_metric([str(worker)], count)
        yield streams
        yield _counter("worker_restarts", "Workers that were restarted.", tally.worker_restarts)
        yield _counter("core_restarts", "How often the core was restarted.", tally.core_restarts)
        yield _counter(
            "degraded_seconds", "Time that workers were without a core.", tally.degraded_s
        )
        yield _counter(
            "degraded_picks", "Requests that workers dispatched themselves.", tally.degraded_picks
        )
        refusals = CounterMetricFamily(
            f"{_PREFIX}degraded_refusals",
            "Requests that workers refused without a core.",
            labels=["outcome"],
        )
        for outcome in _REFUSALS:
            refusals.add_metric([outcome.value], tally.degraded_refusals[outcome])
        yield refusals


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(_PREFIX + name, text, value=value)
