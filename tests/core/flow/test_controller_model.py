"""The flow control against its naive reference, in any order of events."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epp.core.flow import BandOptions, Charge, FlowController, FlowLimits, FlowOptions, Ticket
from epp.core.gate import Ending
from epp.core.pool import Lease, Pool
from epp.core.request import FlowKey, Outcome, Request
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers

from ..support import Clock, CountingRecorder, destination, endpoint, request
from .reference import ReferenceQueue
from .reference_state import Decision

_SIZES = st.sampled_from([0, 1, 30, 100, 250, 400])
_PRIORITIES = st.sampled_from([-10, 0, 0, 10])
_OBJECTIVES = st.sampled_from(["", "x", "y", "z"])
_FLOWS = st.sampled_from(["a", "a", "b", "c"])
_WEIGHTS = {"b": 2.0, "c": 0.5}
_OUTPUTS = st.sampled_from([None, 0, 1, 10, 256, 1000])
_LIMITS = st.builds(
    FlowLimits,
    max_requests=st.sampled_from([3, 6, 40]),
    max_bytes=st.sampled_from([300, 10_000]),
    wait_limit_s=st.sampled_from([None, 8.0, 60.0]),
    no_endpoint_wait_limit_s=st.sampled_from([None, 3.0, 60.0]),
    reject_hopeless=st.booleans(),
)
_BANDS = st.builds(
    BandOptions,
    max_requests=st.sampled_from([2, 4, 30]),
    max_bytes=st.sampled_from([250, 10_000]),
    fairness=st.sampled_from(["weighted-fair", "weighted-fair", "round-robin", "global-strict"]),
    ordering=st.sampled_from(["fcfs", "fcfs", "edf", "slo-deadline"]),
    min_share=st.sampled_from([0.0, 0.0, 0.25, 0.5]),
    max_wait_s=st.sampled_from([None, None, 0.5, 5.0]),
    wait_limit_s=st.sampled_from([None, None, 4.0]),
)
_OPTIONS = st.builds(
    FlowOptions,
    limits=_LIMITS,
    band=_BANDS,
    negative_band=st.none() | _BANDS,
    bands=st.just({}) | st.builds(lambda band: {10: band}, _BANDS),
    weights=st.just(_WEIGHTS),
)
_SUBSETS = st.none() | st.none() | st.sets(st.integers(min_value=1, max_value=4), max_size=3)
_DELAYS_S = st.sampled_from([0.0, 0.001, 0.5, 1.0, 2.9, 3.0, 8.0, 31.0, 61.0])
_NUMBERS = st.integers(min_value=0)


class _Waiter:
    """Passes the decision on, under the request's number."""

    def __init__(self, machine: "FlowMachine", number: int, offered: Request) -> None:
        self._machine = machine
        self._number = number
        self._request = offered

    def dispatched(self, lease: Lease, charge: Charge, waited_s: float, now: float) -> None:
        self._machine.running[self._number] = (self._request, lease, charge)
        where = lease.endpoint.destination
        self._decide(Decision(self._number, Outcome.DISPATCHED, now, where, waited_s))

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        self._decide(Decision(self._number, outcome, now, retry_after_s=retry_after_s))

    def _decide(self, decision: Decision) -> None:
        self._machine.reference.decisions.append(decision)


class FlowMachine(RuleBasedStateMachine):
    """Whatever happens, the flow control decides what the rules say, in their order, at once."""

    @initialize(
        options=_OPTIONS,
        max_concurrency=st.integers(min_value=1, max_value=3),
        numbers=st.sets(st.integers(min_value=1, max_value=4)),
    )
    def start(self, options: FlowOptions, max_concurrency: int, numbers: set[int]) -> None:
        self.timers = Timers()
        self.clock = Clock(self.timers)
        self.recorder = CountingRecorder()
        self.pool = Pool(max_concurrency=max_concurrency)
        self.flow = FlowController(
            self.pool,
            LeastLoaded(),
            options,
            timers=self.timers,
            rng=random.Random(0),
            recorder=self.recorder,
        )
        self.reference = ReferenceQueue(options, max_concurrency, self.flow.costs.estimate)
        self.running: dict[int, tuple[Request, Lease, Charge]] = {}
        self.tickets: dict[int, Ticket] = {}
        self.moved_in: dict[int, tuple[int, int]] = {}
        self.offered = 0
        self.cancelled = 0
        self.set_members(numbers)

    @rule(
        priority=_PRIORITIES,
        fairness_id=_FLOWS,
        objective=_OBJECTIVES,
        body_bytes=_SIZES,
        prompt_tokens=_SIZES,
        max_output_tokens=st.sampled_from([None, 1, 100]),
        subset=_SUBSETS,
        wait_limit_s=st.sampled_from([None, None, 1.0, 5.0, 100.0]),
        slo_ttft_s=st.sampled_from([None, 0.5, 2.0]),
        waited_s=st.sampled_from([None, None, None, 0.5, 4.0]),
    )
    def offer(self, priority: int, waited_s: float | None = None, **claims: object) -> None:
        self.offered += 1
        number, now = self.offered, self.clock.now
        offered = request(priority, **claims)  # type: ignore[arg-type]
        waiter = _Waiter(self, number, offered)
        since_s = None if waited_s is None else now - waited_s
        self.tickets[number] = self.flow.offer(offered, waiter, now, since_s)
        self.reference.offer(number, offered, now, since_s)

    @rule(priority=_PRIORITIES, count=st.integers(min_value=2, max_value=8))
    def offer_many(self, priority: int, count: int) -> None:
        for number in range(count):
            self.offer(
                priority, fairness_id="abc"[number % 3], objective="xyz"[number % 2], body_bytes=10
            )

    @precondition(lambda self: self.running)
    @rule(index=_NUMBERS, output_tokens=_OUTPUTS, status=st.sampled_from([200, 200, 500]))
    def release(self, index: int, output_tokens: int | None, status: int = 200) -> None:
        number = list(self.running)[index % len(self.running)]
        ended, lease, charge = self.running.pop(number)
        ending = Ending(
            status=status,
            cause="complete",
            duration_s=1.0,
            response_bytes=None,
            output_tokens=output_tokens,
        )
        lease.release()
        self.flow.ended(charge, ended, ending, self.clock.now)
        self.flow.pump(self.clock.now)
        settled, charged, actual = self.recorder.settlements[-1]
        assert settled is ended
        assert charged == self.reference.running[number].charged
        self.reference.release(number, actual, self.clock.now)

    @precondition(lambda self: self.running)
    @rule(index=_NUMBERS, output_tokens=st.integers(min_value=0, max_value=2000))
    def progress(self, index: int, output_tokens: int) -> None:
        number = list(self.running)[index % len(self.running)]
        running, _, charge = self.running[number]
        self.flow.progress(charge, running, output_tokens)
        self.reference.progress(number, running.prompt_tokens + 2 * output_tokens)

    @precondition(lambda self: self.running and self.flow.requests)
    @rule(count=st.integers(min_value=5, max_value=20), delay_s=st.sampled_from([0.05, 0.3]))
    def serve(self, count: int, delay_s: float) -> None:
        """A pool that works: somebody comes for each one who goes."""
        for number in range(count):
            if self.running:
                self.advance(delay_s)
                self.release(number, 100)
                self.offer((number % 3 - 1) * 10, fairness_id="abc"[number % 2], body_bytes=1)

    @precondition(lambda self: self.running)
    @rule(index=_NUMBERS, number=st.integers(min_value=1, max_value=5))
    def move(self, index: int, number: int) -> None:
        moved = list(self.running)[index % len(self.running)]
        lease = self.running[moved][1]
        if lease.move(destination(number)):
            self.flow.pump(self.clock.now)
            self.reference.move(moved, destination(number), self.clock.now)

    @precondition(lambda self: len(self.pool))
    @rule(index=_NUMBERS, limit=st.integers(min_value=1, max_value=4))
    def set_limit(self, index: int, limit: int) -> None:
        """A saturation detector has learned something."""
        slots = self.pool.active.nonzero()[0].tolist()
        slot = slots[index % len(slots)]
        self.pool.set_limit(slot, limit, "kv")
        self.flow.pump(self.clock.now)
        where = self.pool.endpoint(slot).destination
        self.reference.set_limit(where, limit, self.clock.now)

    @precondition(lambda self: self.flow.requests)
    @rule(index=_NUMBERS)
    def cancel(self, index: int) -> None:
        number = self.reference.waiting[index % len(self.reference.waiting)].number
        self.cancelled += 1
        self.flow.cancel(self.tickets[number], self.clock.now)
        self.reference.cancel(number, self.clock.now)

    @precondition(lambda self: self.flow.requests)
    @rule(priorities=st.dictionaries(_OBJECTIVES, _PRIORITIES, min_size=1))
    def reprioritise(self, priorities: dict[str, int]) -> None:
        self.flow.reprioritise(priorities, self.clock.now)
        for band in self.flow.bands():
            self.moved_in[band.priority] = band.requests, band.bytes
        self.flow.pump(self.clock.now)
        self.reference.reprioritise(priorities, self.clock.now)

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
    def who_goes_out_of_turn_is_counted(self) -> None:
        expected = self.reference.overrides
        assert sum(self.recorder.overrides.values()) == len(expected)
        for key, count in self.recorder.overrides.items():
            assert count == expected.count(key)

    @invariant()
    def the_same_requests_wait(self) -> None:
        waiting = self.reference.waiting
        bands = self.flow.bands()
        assert [band.priority for band in bands] == sorted(
            (band.priority for band in bands), reverse=True
        )
        for band in bands:
            expected = [entry for entry in waiting if entry.priority == band.priority]
            tickets = list(band)
            assert [ticket.request for ticket in tickets] == [e.request for e in expected]
            deadlines = [self.reference.deadline_s(entry) for entry in expected]
            assert [ticket.deadline_s or float("inf") for ticket in tickets] == deadlines
            assert band.requests == len(expected)
            assert band.bytes == sum(entry.request.body_bytes for entry in expected)
            assert band.cost == sum(entry.cost for entry in expected)
        assert self.flow.requests == len(waiting)
        assert self.flow.bytes == sum(entry.request.body_bytes for entry in waiting)

    @invariant()
    def limits_hold(self) -> None:
        limits = self.reference.limits
        assert self.flow.requests <= limits.max_requests
        assert self.flow.bytes <= limits.max_bytes
        for band in self.flow.bands():
            requests, volume = self.moved_in.get(band.priority, (0, 0))
            assert band.requests <= max(band.options.max_requests, requests)
            assert band.bytes <= max(band.options.max_bytes, volume)
            self.moved_in[band.priority] = min(requests, band.requests), min(volume, band.bytes)
        assert self.flow.utilization() == [
            ("requests", self.flow.requests, limits.max_requests),
            ("bytes", self.flow.bytes, limits.max_bytes),
        ]

    @invariant()
    def the_same_requests_run(self) -> None:
        expected = self.reference.running
        assert set(self.running) == set(expected)
        for number, (_, lease, charge) in self.running.items():
            assert lease.endpoint.destination == expected[number].destination
            assert charge.cost == expected[number].charged
        assert self.pool.total_in_flight == len(expected)

    @invariant()
    def flows_were_charged_the_same(self) -> None:
        for band in self.flow.bands():
            of_band = [c for _, _, c in self.running.values() if c.band is band]
            assert band.running == len(of_band)
            for flow in band.flows.values():
                assert flow.running == sum(charge.flow is flow for charge in of_band)
                of_flow = [charge.cost for charge in of_band if charge.flow is flow]
                assert flow.unsettled == sum(of_flow)
                key = FlowKey(band.priority, flow.id)
                if band.options.fairness == "weighted-fair":
                    assert flow.virtual_time == self.reference.virtual_time(key)

    @invariant()
    def outcomes_add_up(self) -> None:
        assert self.recorder.outcomes[Outcome.CANCELLED] == self.cancelled
        assert self.recorder.outcomes.total() == self.offered - self.flow.requests
        assert all(waited_s >= 0 for _, _, waited_s in self.recorder.waits[-1:])

    @invariant()
    def timers_are_those_of_the_waiting(self) -> None:
        with_deadline = [t for band in self.flow.bands() for t in band if t.timer is not None]
        assert len(self.timers) == len(with_deadline)

    def teardown(self) -> None:
        if not hasattr(self, "flow"):
            return
        self.flow.end_drain(self.clock.now)
        self.reference.end_drain(self.clock.now)
        self.drain(True)
        while self.running:
            self.release(0, None)
        assert (self.flow.requests, self.flow.bytes, len(self.timers)) == (0, 0, 0)
        assert self.pool.total_in_flight == 0
        assert self.recorder.outcomes.total() == self.offered
        assert not any(band.flows or band.lanes or band.running for band in self.flow.bands())


TestFlowMachine = FlowMachine.TestCase
TestFlowMachine.settings = settings(max_examples=150)
