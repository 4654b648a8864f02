"""What is counted of the requests of one pool, as they go by: the recorders of the core.

What has the pool for a label is counted here, pool by pool; the rest is passed on to where all
pools are counted together.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp.core.gate import Ending
from epp.core.request import WAIT_OUTCOMES, Outcome, Request
from epp.observability.families import counter
from epp.observability.requests import Histogram, RequestMetrics
from epp.observability.rewrites import RewriteMetrics

__all__ = ["PoolRecorder", "PoolRecorders"]

_WAIT_S: Final = (
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
)  # fmt: skip
_WAIT_LABELS: Final = ("priority", "outcome", "inference_pool")
_DISPATCHED: Final = Outcome.DISPATCHED  # read off its enumeration once: that takes a while
_MAX_GONE: Final = 16
_MAX_PRIORITIES: Final = 100
_OTHER: Final = "other"


class PoolRecorder:
    """The recorder of the core (:class:`epp.core.ports.Recorder`) for one pool.

    ``waits`` and ``evictions`` are what it counts itself, by priority; those of more than 100
    priorities under ``other``.
    """

    def __init__(
        self, requests: RequestMetrics, rewrites: RewriteMetrics, refused: Callable[[str], None]
    ) -> None:
        self._requests = requests
        self._rewrites = rewrites
        self._refused = refused
        self.waits: dict[tuple[str, Outcome], WaitSeries] = {}
        self.evictions: dict[str, int] = {}
        self._labels: dict[int, str] = {}

    def expect(self, priority: int, default_fairness_id: str) -> None:
        """Have the series of a priority begin at zero."""
        self._requests.expect(priority, default_fairness_id)
        for outcome in WAIT_OUTCOMES:
            self._wait(priority, outcome)

    # epp.core.ports.Recorder

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """Count the end of a wait."""
        wait = self._wait(request.flow.priority, outcome)
        wait.total += 1
        wait.duration_s.observe(waited_s)
        self._requests.wait_ended(request, outcome)
        if outcome is _DISPATCHED:
            self._rewrites.dispatched(request)

    def adopted(self, request: Request) -> None:
        """Count a request that runs, and not as one that was sent."""
        self._requests.adopted(request)

    def overridden(self, priority: int, rule: str) -> None:
        """Count a dispatch out of turn."""
        self._requests.overridden(priority, rule)

    def settled(self, request: Request, charged: int, actual: int) -> None:
        """Count what a request has cost, and was expected to."""
        self._requests.settled(request, charged, actual)

    def evicted(self, request: Request) -> None:
        """Count a request that is ended for one of higher priority."""
        label = self._label(request.flow.priority)
        self.evictions[label] = self.evictions.get(label, 0) + 1

    def ended(self, request: Request, ending: Ending) -> None:
        """Count the end of an exchange."""
        self._requests.ended(request, ending)

    def refused_early(self, reason: str) -> None:
        """Count an answer given before the queue."""
        self._refused(reason)

    def rewrite_skipped(self, reason: str) -> None:
        """Count what was not rewritten."""
        self._rewrites.skipped(reason)

    def _wait(self, priority: int, outcome: Outcome) -> "WaitSeries":
        key = (self._label(priority), outcome)
        series = self.waits.get(key)
        if series is None:
            series = self.waits[key] = WaitSeries()
        return series

    def _label(self, priority: int) -> str:
        label = self._labels.get(priority)
        if label is None:
            if len(self._labels) >= _MAX_PRIORITIES:
                return _OTHER
            label = self._labels[priority] = str(priority)
        return label


class WaitSeries:
    """How many requests of a priority left the queue in one way, and after how long."""

    __slots__ = ("duration_s", "total")

    def __init__(self) -> None:
        self.total = 0
        self.duration_s = Histogram(_WAIT_S)


class PoolRecorders(Collector):
    """The recorders by the name of their pool, and what they have counted.

    What was counted of pools that are gone stays, for the 16 that went last: how its requests were
    refused is of interest when a pool has gone. One that comes back goes on where it was.
    """

    def __init__(self, make: Callable[[], PoolRecorder]) -> None:
        self._make = make
        self._recorders: dict[str, PoolRecorder] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def of(self, pool_name: str) -> PoolRecorder:
        """Return the recorder of a pool that there is."""
        self._gone.pop(pool_name, None)
        found = self._recorders.get(pool_name)
        if found is None:
            found = self._recorders[pool_name] = self._make()
        return found

    def forget(self, pool_name: str) -> None:
        """The pool is gone."""
        if pool_name in self._recorders:
            self._gone[pool_name] = None
            self._gone.move_to_end(pool_name)
        if len(self._gone) > _MAX_GONE:
            del self._recorders[self._gone.popitem(last=False)[0]]

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        totals = CounterMetricFamily(
            "llm_d_epp_flow_control_requests_total",
            "Requests that left the queue, by outcome.",
            labels=_WAIT_LABELS,
        )
        durations = HistogramMetricFamily(
            "llm_d_epp_flow_control_request_queue_duration_seconds",
            "Time in the queue.",
            labels=_WAIT_LABELS,
        )
        for pool_name, recorder in self._recorders.items():
            for (priority, outcome), series in recorder.waits.items():
                labels = (priority, outcome.value, pool_name)
                totals.add_metric(labels, series.total)
                series.duration_s.add_to(durations, labels)
        yield from (totals, durations)
        yield counter(
            "flow_control_evictions_total",
            "Running requests that were ended for one of higher priority.",
            {
                (priority, pool_name): count
                for pool_name, recorder in self._recorders.items()
                for priority, count in recorder.evictions.items()
            },
            ("priority", "inference_pool"),
        )

    def describe(self) -> list[Metric]:
        """Return nothing: no other collector has these names."""
        return []
