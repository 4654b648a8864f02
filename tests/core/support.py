"""Fakes, builders and a virtual clock, shared by the tests of the core."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from epp.core.exchange import Exchange, ExchangeLimits
from epp.core.flow import BandOptions, Charge, CostOptions, FlowLimits, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions, make_detector
from epp.core.gate import Ending, Route
from epp.core.headers import Headers
from epp.core.pool import Lease
from epp.core.replies import Reply
from epp.core.request import FlowKey, Outcome, Request
from epp.core.resources import Endpoint, Objective, PoolResources, PoolSpec
from epp.core.router import MakeDetector, Router
from epp.core.scheduling import LeastLoaded, Scheduler
from epp.core.timers import Timers

__all__ = [
    "LONG_OUTPUTS",
    "Clock",
    "CountingRecorder",
    "Harness",
    "RecordingGateWaiter",
    "RecordingStream",
    "RecordingWaiter",
    "at_most",
    "completed",
    "destination",
    "endpoint",
    "headers",
    "request",
    "resources",
]


LONG_OUTPUTS = CostOptions(default_output_tokens=256)
"""Outputs are expected to be of this length before any was seen."""


def endpoint(number: int, **labels: str) -> Endpoint:
    """Return the endpoint of this number; :func:`destination` is its ``ip:port``."""
    return Endpoint(
        name=f"default/server-{number}", address=f"10.0.0.{number}", port=8000, labels=labels
    )


def destination(number: int) -> str:
    """Return the ``ip:port`` of the endpoint of this number."""
    return f"10.0.0.{number}:8000"


def resources(
    numbers: Iterable[int] = (), objectives: Mapping[str, int] | None = None
) -> PoolResources:
    """Return a pool with the endpoints of these numbers and objectives of these priorities."""
    return PoolResources(
        pool=PoolSpec(name="pool"),
        objectives={
            name: Objective(name=name, priority=priority)
            for name, priority in (objectives or {}).items()
        },
        endpoints=tuple(endpoint(number) for number in numbers),
    )


def headers(*pairs: tuple[bytes, bytes], path: bytes = b"/v1/completions") -> Headers:
    """Return the headers of a request, with a path and what else is given."""
    return Headers([(b":path", path), *pairs])


def request(
    priority: int = 0,
    fairness_id: str = "tenant",
    *,
    objective: str = "",
    body_bytes: int = 0,
    prompt_tokens: int = 0,
    max_output_tokens: int | None = None,
    subset: Iterable[int] | None = None,
    wait_limit_s: float | None = None,
    slo_ttft_s: float | None = None,
) -> Request:
    """Return a request of a priority; ``subset`` names endpoints by their numbers."""
    return Request(
        flow=FlowKey(priority, fairness_id),
        objective=objective,
        body_bytes=body_bytes,
        prompt_tokens=prompt_tokens,
        max_output_tokens=max_output_tokens,
        subset=None if subset is None else frozenset(map(destination, subset)),
        wait_limit_s=wait_limit_s,
        slo_ttft_s=slo_ttft_s,
    )


def completed(output_tokens: int | None = None, duration_s: float = 1.0) -> Ending:
    """Return the ending of a request that was served."""
    return Ending(
        status=200,
        cause="complete",
        duration_s=duration_s,
        response_bytes=None,
        output_tokens=output_tokens,
    )


def at_most(max_requests: int, max_tokens: int | None = None) -> MakeDetector:
    """Return what makes a detector with a fixed limit for each endpoint."""
    options = ConcurrencyOptions(max_requests=max_requests, max_tokens=max_tokens)
    return partial(make_detector, options)


class RecordingStream:
    """A proxy's stream that keeps what it is sent, and insists on its own contract."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.has_ended = False

    def send(self, reply: Reply) -> None:
        assert not self.has_ended, f"{reply} after the stream's end"
        self.replies.append(reply)

    def end(self) -> None:
        assert not self.has_ended, "the stream was ended twice"
        self.has_ended = True

    def take(self) -> list[Reply]:
        """Return the replies since the last call."""
        replies, self.replies = self.replies, []
        return replies


class _Decision:
    """Keeps a decision, and insists that there is only one.

    ``on_decision`` is called from within it, as a waiter may call back.
    """

    def __init__(self, on_decision: Callable[[], None] = lambda: None) -> None:
        self.outcome: Outcome | None = None
        self.waited_s: float | None = None
        self.retry_after_s: int | None = None
        self.decided_s: float | None = None
        self.evictions: list[float] = []
        self._on_decision = on_decision

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        assert outcome not in (Outcome.DISPATCHED, Outcome.CANCELLED)
        self._decide(outcome, now)
        self.retry_after_s = retry_after_s
        self._on_decision()

    def _decide(self, outcome: Outcome, now: float) -> None:
        assert self.outcome is None, f"{outcome} after {self.outcome}"
        self.outcome = outcome
        self.decided_s = now


class RecordingWaiter(_Decision):
    """A waiter of the flow control."""

    def __init__(self, on_decision: Callable[[], None] = lambda: None) -> None:
        super().__init__(on_decision)
        self.request = request()
        self.lease: Lease | None = None
        self.charge: Charge | None = None

    @property
    def destination(self) -> str:
        assert self.lease is not None, f"not dispatched but {self.outcome}"
        return self.lease.endpoint.destination

    def dispatched(self, lease: Lease, charge: Charge, waited_s: float, now: float) -> None:
        self._decide(Outcome.DISPATCHED, now)
        self.lease = lease
        self.charge = charge
        self.waited_s = waited_s
        self._on_decision()

    def evicted(self, retry_after_s: int, now: float) -> None:
        assert self.outcome is Outcome.DISPATCHED
        self.evictions.append(now)
        self.retry_after_s = retry_after_s
        self._on_decision()


class RecordingGateWaiter(_Decision):
    """A waiter of a gate. What has passed has no outcome."""

    def __init__(self, on_decision: Callable[[], None] = lambda: None) -> None:
        super().__init__(on_decision)
        self.destination = ""
        self.route: Route | None = None
        self.has_passed = False

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        assert not self.has_passed
        self._decide(Outcome.DISPATCHED, now)
        self.route = route
        self.destination = route.destination
        self.waited_s = waited_s
        self._on_decision()

    def evicted(self, retry_after_s: int, now: float) -> None:
        self.evictions.append(now)
        self.retry_after_s = retry_after_s

    def passed(self, destination: str, now: float) -> None:
        assert self.outcome is None, f"passed after {self.outcome}"
        assert not self.has_passed
        self.has_passed = True
        self.destination = destination
        self._on_decision()


class CountingRecorder:
    """Counts what happens, and insists on one outcome and one ending for each request."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.waits: list[tuple[Request, Outcome, float]] = []
        self.endings: list[Ending] = []
        self.ended_requests: list[Request] = []
        self.adoptions = 0
        self.evicted_requests: list[Request] = []
        self.overrides: Counter[tuple[int, str]] = Counter()
        self.settlements: list[tuple[Request, int, int]] = []
        self.early: list[str] = []
        self.skipped: list[str] = []
        self._decided: dict[int, Request] = {}

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        assert id(request) not in self._decided, "a request has two outcomes"
        assert waited_s >= 0
        self._decided[id(request)] = request
        self.outcomes[outcome] += 1
        self.waits.append((request, outcome, waited_s))

    def adopted(self, request: Request) -> None:
        assert id(request) not in self._decided, "a request is adopted that was decided on"
        self._decided[id(request)] = request
        self.adoptions += 1

    def overridden(self, priority: int, rule: str) -> None:
        self.overrides[priority, rule] += 1

    def settled(self, request: Request, charged: int, actual: int) -> None:
        assert charged >= 0
        assert actual >= 0
        self.settlements.append((request, charged, actual))

    def evicted(self, request: Request) -> None:
        assert id(request) in self._decided, "an eviction without a dispatch"
        assert not any(request is other for other in self.evicted_requests), "two evictions"
        assert not any(request is other for other in self.ended_requests), "an eviction too late"
        self.evicted_requests.append(request)

    def ended(self, request: Request, ending: Ending) -> None:
        assert id(request) in self._decided, "an ending without a dispatch"
        assert not any(request is other for other in self.ended_requests), "two endings"
        assert ending.duration_s >= 0
        self.ended_requests.append(request)
        self.endings.append(ending)

    def refused_early(self, reason: str) -> None:
        self.early.append(reason)

    def rewrite_skipped(self, reason: str) -> None:
        self.skipped.append(reason)


class Clock:
    """A virtual clock that drives timers as a careful driver would.

    It sleeps until the time it was last told of, and no other, so a deadline that the timers forget
    to announce is missed here too.
    """

    def __init__(self, timers: Timers, now: float = 1000.0) -> None:
        self.now = now
        self._timers = timers
        self.wakes_up_s = math.inf
        timers.on_earlier = self._on_earlier

    def advance(self, seconds: float) -> None:
        """Let time pass, running every timer at its own deadline."""
        self.advance_to(self.now + seconds)

    def advance_to(self, target_s: float) -> None:
        """Let time pass until ``target_s``."""
        while self.wakes_up_s <= target_s:
            self.now = max(self.now, self.wakes_up_s)
            self.wakes_up_s = math.inf
            self._timers.run(self.now)
            deadline_s = self._timers.next_deadline()
            if deadline_s is not None:
                assert deadline_s > self.now, "a timer that is due did not run"
                self.wakes_up_s = min(self.wakes_up_s, deadline_s)
        self.now = max(self.now, target_s)

    def _on_earlier(self, deadline_s: float) -> None:
        self.wakes_up_s = min(self.wakes_up_s, deadline_s)


class Harness:
    """One pool's router with a virtual clock, and exchanges on it."""

    def __init__(
        self,
        numbers: Iterable[int] | None = (1,),
        *,
        objectives: Mapping[str, int] | None = None,
        limits: FlowLimits | None = None,
        band: BandOptions | None = None,
        options: FlowOptions | None = None,
        max_concurrency: int = 1,
        detector: MakeDetector | None = None,
        scheduler: Scheduler | None = None,
        exchange_limits: ExchangeLimits | None = None,
        router_type: type[Router] = Router,
    ) -> None:
        self.timers = Timers()
        self.clock = Clock(self.timers)
        self.recorder = CountingRecorder()
        self.objectives = objectives or {}
        self.exchange_limits = exchange_limits or ExchangeLimits()
        self.router = router_type(
            scheduler=scheduler or LeastLoaded(),
            options=options
            or FlowOptions(
                limits=limits or FlowLimits(), band=band or BandOptions(), cost=LONG_OUTPUTS
            ),
            make_detector=detector or at_most(max_concurrency),
            timers=self.timers,
            rng=random.Random(0),
            recorder=self.recorder,
        )
        if numbers is not None:
            self.apply(numbers)

    @property
    def now(self) -> float:
        return self.clock.now

    def apply(self, numbers: Iterable[int]) -> None:
        """Make these the endpoints of the pool."""
        self.router.apply(resources(numbers, self.objectives), self.now)

    def exchange(self) -> tuple[Exchange, RecordingStream]:
        """Open a stream."""
        stream = RecordingStream()
        return Exchange(stream, lambda headers: self.router, self.exchange_limits), stream

    def occupy(self, number: int) -> Lease:
        """Take capacity at an endpoint, as a request that runs there does."""
        slots = self.router.pool.mask_of([destination(number)]).nonzero()[0]
        return self.router.pool.lease(int(slots[0]))

    def give_back(self, lease: Lease) -> None:
        """Release a lease of :meth:`occupy`, and let the next go."""
        lease.release()
        self.router.flow.pump(self.now)

    def finish(self, waiter: RecordingWaiter, ending: Ending | None = None) -> None:
        """End a dispatched request as the router does, and let the next go."""
        assert waiter.lease is not None
        assert waiter.charge is not None
        waiter.lease.release()
        self.router.flow.ended(waiter.charge, waiter.request, ending or completed(), self.now)
        self.router.flow.pump(self.now)

    def assert_at_rest(self) -> None:
        """Nothing is held any more."""
        assert self.router.pool.total_in_flight == 0
        assert not any(self.router.pool._tokens)
        assert self.router.flow.requests == 0
        assert self.router.flow.bytes == 0
        assert len(self.timers) == 0
        for band in self.router.flow.bands():
            assert (band.requests, band.bytes, band.cost, band.running) == (0, 0, 0, 0)
            assert not any((band.flows, band.lanes, band.arrivals))
        taken = self.recorder.outcomes[Outcome.DISPATCHED] + self.recorder.adoptions
        assert len(self.recorder.endings) == taken
