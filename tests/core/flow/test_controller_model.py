"""The flow control against its naive reference, in any order of events."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epp.core.flow import FlowController, FlowLimits, Ticket
from epp.core.pool import Lease, Pool
from epp.core.request import Outcome
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers

from ..support import Clock, CountingRecorder, destination, endpoint, request
from .reference import Decision, ReferenceQueue

_SIZES = st.sampled_from([0, 1, 30, 100, 250, 400])
_LIMITS = st.builds(
    FlowLimits,
    max_requests=st.sampled_from([3, 6, 40]),
    max_bytes=st.sampled_from([300, 10_000]),
    band_max_requests=st.sampled_from([2, 4, 30]),
    band_max_bytes=st.sampled_from([250, 10_000]),
    wait_limit_s=st.sampled_from([None, 8.0, 60.0]),
    no_endpoint_wait_limit_s=st.sampled_from([None, 3.0, 60.0]),
    reject_hopeless=st.booleans(),
)
_SUBSETS = st.none() | st.none() | st.sets(st.integers(min_value=1, max_value=4), max_size=3)
_DELAYS_S = st.sampled_from([0.0, 0.001, 0.5, 1.0, 2.9, 3.0, 8.0, 31.0])


class _Waiter:
    """Passes the decision on, under the request's number."""

    def __init__(self, machine: "FlowMachine", number: int) -> None:
        self._machine = machine
        self._number = number

    def dispatched(self, lease: Lease, waited_s: float, now: float) -> None:
        self._machine.leases.append(lease)
        where = lease.endpoint.destination
        self._decide(Decision(self._number, Outcome.DISPATCHED, now, where, waited_s))

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        self._decide(Decision(self._number, outcome, now, retry_after_s=retry_after_s))

    def _decide(self, decision: Decision) -> None:
        self._machine.reference.decisions.append(decision)


class FlowMachine(RuleBasedStateMachine):
    """Whatever happens, the flow control decides what the rules say, in their order, at once."""

    @initialize(
        limits=_LIMITS,
        max_concurrency=st.integers(min_value=1, max_value=3),
        numbers=st.sets(st.integers(min_value=1, max_value=4)),
    )
    def start(self, limits: FlowLimits, max_concurrency: int, numbers: set[int]) -> None:
        self.timers = Timers()
        self.clock = Clock(self.timers)
        self.recorder = CountingRecorder()
        self.pool = Pool(max_concurrency=max_concurrency)
        self.flow = FlowController(
            self.pool,
            LeastLoaded(),
            limits,
            timers=self.timers,
            rng=random.Random(0),
            recorder=self.recorder,
        )
        self.reference = ReferenceQueue(limits, max_concurrency)
        self.leases: list[Lease] = []
        self.tickets: dict[int, Ticket] = {}
        self.offered = 0
        self.cancelled = 0
        self.has_drained = False
        self.set_members(numbers)

    @rule(
        priority=st.sampled_from([-10, 0, 0, 10]),
        body_bytes=_SIZES,
        subset=_SUBSETS,
        wait_limit_s=st.sampled_from([None, None, 1.0, 5.0, 100.0]),
        waited_s=st.sampled_from([None, None, None, 0.5, 4.0]),
    )
    def offer(
        self,
        priority: int,
        body_bytes: int,
        subset: set[int] | None,
        wait_limit_s: float | None,
        waited_s: float | None = None,
    ) -> None:
        self.offered += 1
        offered = request(priority, body_bytes=body_bytes, subset=subset, wait_limit_s=wait_limit_s)
        waiter, now = _Waiter(self, self.offered), self.clock.now
        since_s = None if waited_s is None else now - waited_s
        self.tickets[self.offered] = self.flow.offer(offered, waiter, now, since_s)
        self.reference.offer(self.offered, offered, now, now if since_s is None else since_s)

    @rule(priority=st.sampled_from([-10, 0, 10]), count=st.integers(min_value=2, max_value=8))
    def offer_many(self, priority: int, count: int) -> None:
        for _ in range(count):
            self.offer(priority, 10, None, None)

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(min_value=0))
    def release(self, index: int) -> None:
        lease = self.leases.pop(index % len(self.leases))
        lease.release()
        self.flow.pump(self.clock.now)
        self.reference.release(lease.endpoint.destination, self.clock.now)

    @precondition(lambda self: self.leases and self.flow.requests)
    @rule(count=st.integers(min_value=5, max_value=20), delay_s=st.sampled_from([0.05, 0.3]))
    def serve(self, count: int, delay_s: float) -> None:
        """A pool that works: somebody comes for each one who goes."""
        for number in range(count):
            if self.leases:
                self.advance(delay_s)
                self.release(number)
                self.offer((number % 3 - 1) * 10, 1, None, None)

    @precondition(lambda self: self.leases)
    @rule(index=st.integers(min_value=0), number=st.integers(min_value=1, max_value=5))
    def move(self, index: int, number: int) -> None:
        lease = self.leases[index % len(self.leases)]
        where, target = lease.endpoint.destination, destination(number)
        if lease.move(target):
            self.flow.pump(self.clock.now)
        self.reference.move(where, target, self.clock.now)

    @precondition(lambda self: self.flow.requests)
    @rule(index=st.integers(min_value=0))
    def cancel(self, index: int) -> None:
        number = self.reference.waiting[index % len(self.reference.waiting)].number
        self.cancelled += 1
        self.flow.cancel(self.tickets[number], self.clock.now)
        self.reference.cancel(number, self.clock.now)

    @rule(delay_s=_DELAYS_S)
    def advance(self, delay_s: float) -> None:
        start_s = self.clock.now
        self.clock.advance(delay_s)
        self.reference.time_passed(start_s, self.clock.now)

    @rule(numbers=st.sets(st.integers(min_value=1, max_value=4)))
    def set_members(self, numbers: set[int]) -> None:
        if self.pool.apply([endpoint(number) for number in sorted(numbers)]):
            self.flow.membership_changed(self.clock.now)
        self.reference.set_members(set(map(destination, numbers)), self.clock.now)

    @precondition(lambda self: self.offered > 60)
    @rule(is_over=st.booleans())
    def drain(self, is_over: bool) -> None:
        self.flow.begin_drain()
        self.reference.is_draining = True
        if is_over:
            self.flow.end_drain(self.clock.now)
            self.reference.end_drain(self.clock.now)

    @invariant()
    def every_decision_was_expected(self) -> None:
        assert not self.reference.decisions

    @invariant()
    def the_same_requests_wait(self) -> None:
        waiting = self.reference.waiting
        bands = self.flow.bands()
        assert [band.priority for band in bands] == sorted(
            (band.priority for band in bands), reverse=True
        )
        for band in bands:
            expected = [entry for entry in waiting if entry.priority == band.priority]
            tickets = sorted(band, key=lambda ticket: ticket.sequence)
            assert [ticket.request for ticket in tickets] == [e.request for e in expected]
            deadlines = [self.reference.deadline_s(entry) for entry in expected]
            assert [ticket.deadline_s or float("inf") for ticket in tickets] == deadlines
            assert band.requests == len(expected)
            assert band.bytes == sum(entry.request.body_bytes for entry in expected)
        assert self.flow.requests == len(waiting)
        assert self.flow.bytes == sum(entry.request.body_bytes for entry in waiting)
        assert self.flow.utilization() == [
            ("requests", self.flow.requests, self.reference.limits.max_requests),
            ("bytes", self.flow.bytes, self.reference.limits.max_bytes),
        ]

    @invariant()
    def limits_hold(self) -> None:
        limits = self.reference.limits
        assert self.flow.requests <= limits.max_requests
        assert self.flow.bytes <= limits.max_bytes
        for band in self.flow.bands():
            assert band.requests <= limits.band_max_requests
            assert band.bytes <= limits.band_max_bytes

    @invariant()
    def the_same_requests_run(self) -> None:
        in_flight = {where: count for where, count in self.reference.in_flight.items() if count}
        held: dict[str, int] = {}
        for lease in self.leases:
            where = lease.endpoint.destination
            held[where] = held.get(where, 0) + 1
        assert held == in_flight
        assert self.pool.total_in_flight == len(self.leases)

    @invariant()
    def outcomes_add_up(self) -> None:
        assert self.recorder.outcomes[Outcome.CANCELLED] == self.cancelled
        assert self.recorder.outcomes.total() == self.offered - self.flow.requests
        for recorded, _, waited_s in self.recorder.waits[-1:]:
            assert waited_s >= 0
            assert recorded.flow.fairness_id == "tenant"

    @invariant()
    def timers_are_those_of_the_waiting(self) -> None:
        with_deadline = [t for band in self.flow.bands() for t in band if t.timer is not None]
        assert len(self.timers) == len(with_deadline)

    def teardown(self) -> None:
        if not hasattr(self, "flow"):
            return
        self.flow.end_drain(self.clock.now)
        for lease in self.leases:
            lease.release()
        assert (self.flow.requests, self.flow.bytes, len(self.timers)) == (0, 0, 0)
        assert self.pool.total_in_flight == 0
        assert self.recorder.outcomes.total() == self.offered


TestFlowMachine = FlowMachine.TestCase
TestFlowMachine.settings = settings(max_examples=150)
