"""Traffic through a pool's flow control, with the rules checked at every step."""

import random
from collections.abc import Mapping

from hypothesis import strategies as st

from epp.core.flow import FlowOptions, Ticket
from epp.core.gate import Ending
from epp.core.pool import Mask, Pool
from epp.core.request import Outcome, Request
from epp.core.scheduling import LeastLoaded

from ..support import Harness, RecordingWaiter, completed, destination, request

__all__ = ["STEPS", "Entry", "Traffic", "full", "has_room"]

_NUMBERS = st.integers(min_value=0, max_value=1_000)
_ENDPOINTS = st.integers(min_value=1, max_value=4)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from([-10, 0, 10]), _NUMBERS, st.none()),
        st.tuples(
            st.just("offer"),
            st.sampled_from([-10, 0, 10]),
            _NUMBERS,
            st.sets(_ENDPOINTS, max_size=2),
        ),
        st.tuples(st.just("end"), _NUMBERS, _NUMBERS),
        st.tuples(st.just("end"), _NUMBERS, _NUMBERS),
        st.tuples(st.just("cancel"), _NUMBERS),
        st.tuples(st.just("progress"), _NUMBERS, _NUMBERS),
        st.tuples(st.just("limit"), _ENDPOINTS, st.integers(min_value=0, max_value=4)),
        st.tuples(st.just("members"), st.sets(_ENDPOINTS, max_size=4)),
        st.tuples(st.just("move"), _NUMBERS, _ENDPOINTS),
        st.tuples(st.just("wait"), st.sampled_from([0.001, 0.5, 7.0, 61.0])),
    ),
    max_size=120,
)
"""What may happen, in any order."""


def has_room(offered: Request, pool: Pool) -> bool:
    """Whether some endpoint could take a request at once."""
    return any(
        in_flight < limit
        for member, in_flight, limit in pool
        if offered.subset is None or member.destination in offered.subset
    )


class _StrictScheduler(LeastLoaded):
    """Insists at each dispatch on R1 and R4."""

    harness: Harness
    is_strict = True

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        slots = super().pick(request, pool, mask, now, rng)
        if not slots:
            return ()
        (slot,) = slots
        assert pool.in_flight[slot] < pool.limit[slot], "R4: dispatched beyond the limit"
        assert pool.active[slot], "R4: dispatched to an endpoint that has left"
        where = pool.endpoint(slot).destination
        assert request.subset is None or where in request.subset, "R5: beyond its candidates"
        if self.is_strict:
            for band in self.harness.router.flow.bands():
                if band.priority > request.flow.priority:
                    able = [ticket for ticket in band if has_room(ticket.request, pool)]
                    assert not able, "R1: a lower band got what a higher one could use"
        return slots


class Entry:
    """A request, what it really costs, and how it stands."""

    def __init__(self, offered: Request, output_tokens: int) -> None:
        self.request = offered
        self.output_tokens = output_tokens
        self.waiter = RecordingWaiter()
        self.waiter.request = offered
        self.ticket: Ticket | None = None

    @property
    def cost(self) -> int:
        return max(1, self.request.prompt_tokens + 2 * self.output_tokens)

    @property
    def is_waiting(self) -> bool:
        return self.ticket is not None and self.ticket.is_waiting

    @property
    def charged(self) -> int:
        assert self.waiter.charge is not None
        return self.waiter.charge.cost


class Traffic:
    """A pool with requests that wait and run. After every step, nothing waits that could go."""

    def __init__(
        self, numbers: object = (1, 2), *, options: FlowOptions, limit: int = 1, strict: bool = True
    ) -> None:
        scheduler = _StrictScheduler()
        scheduler.is_strict = strict
        self.harness = Harness(None, options=options, max_concurrency=limit, scheduler=scheduler)
        scheduler.harness = self.harness
        self.harness.apply(numbers)  # type: ignore[arg-type]
        self.flow = self.harness.router.flow
        self.pool = self.harness.router.pool
        self.waiting: list[Entry] = []
        self.running: list[Entry] = []
        self.order: list[Entry] = []
        self.offered = 0
        self.cancelled = 0

    def offer(
        self, offered: Request, output_tokens: int = 0, since_s: float | None = None
    ) -> Entry:
        entry = Entry(offered, output_tokens)
        self.offered += 1
        self.waiting.append(entry)
        entry.ticket = self.flow.offer(offered, entry.waiter, self.harness.now, since_s)
        self._sort()
        return entry

    def end(self, entry: Entry, ending: Ending | None = None) -> None:
        self.running.remove(entry)
        self.harness.finish(entry.waiter, ending or completed(entry.output_tokens))
        self._sort()

    def cancel(self, entry: Entry) -> None:
        assert entry.ticket is not None
        self.waiting.remove(entry)
        self.cancelled += 1
        self.flow.cancel(entry.ticket, self.harness.now)
        self._sort()

    def progress(self, entry: Entry, output_tokens: int) -> None:
        assert entry.waiter.charge is not None
        self.flow.progress(entry.waiter.charge, entry.request, output_tokens)

    def set_limit(self, number: int, limit: int) -> None:
        slot = self.pool.slot_of(destination(number))
        if slot is not None:
            self.pool.set_limit(slot, limit, "kv")
            self.flow.pump(self.harness.now)
            self._sort()

    def members(self, numbers: object) -> None:
        self.harness.apply(sorted(numbers))  # type: ignore[call-overload]
        self._sort()

    def reprioritise(self, priorities: Mapping[str, int]) -> None:
        self.flow.reprioritise(priorities, self.harness.now)
        for entry in self.waiting:
            assert entry.ticket is not None
            entry.request = entry.waiter.request = entry.ticket.request
        self.flow.pump(self.harness.now)
        self._sort()

    def move(self, entry: Entry, number: int) -> None:
        assert entry.waiter.lease is not None
        if entry.waiter.lease.move(destination(number)):
            self.flow.pump(self.harness.now)
        self._sort()

    def wait(self, seconds: float) -> None:
        self.harness.clock.advance(seconds)
        self._sort()

    def step(self, step: tuple[object, ...]) -> None:
        """Do one of STEPS."""
        match step:
            case ("offer", int(priority), int(number), subset):
                hint: object = subset
                offered = request(
                    priority,
                    "abc"[number % 3],
                    objective="xyz"[number % 7 % 3],
                    body_bytes=number,
                    prompt_tokens=number,
                    subset=hint,  # type: ignore[arg-type]
                )
                self.offer(offered, (number * 7) % 400)
            case ("end", int(index), int(tokens)) if self.running:
                entry = self.running[index % len(self.running)]
                unknown = completed(None if tokens % 3 == 0 else tokens)
                self.end(entry, unknown)
            case ("cancel", int(index)) if self.waiting:
                self.cancel(self.waiting[index % len(self.waiting)])
            case ("progress", int(index), int(tokens)) if self.running:
                self.progress(self.running[index % len(self.running)], tokens)
            case ("limit", int(number), int(limit)):
                self.set_limit(number, limit)
            case ("members", set() as numbers):
                self.members(numbers)
            case ("move", int(index), int(number)) if self.running:
                self.move(self.running[index % len(self.running)], number)
            case ("wait", float(seconds)):
                self.wait(seconds)

    def assert_work_conserving(self) -> None:
        """R6: nothing waits that could go."""
        for entry in self.waiting:
            assert not has_room(entry.request, self.pool), "R6: room, and a request that may use it"

    def assert_sums(self) -> None:
        """R10: what is counted is what waits and runs, to the byte and the token."""
        flow = self.flow
        assert flow.requests == len(self.waiting)
        assert flow.bytes == sum(entry.request.body_bytes for entry in self.waiting)
        for band in flow.bands():
            waiting = [e for e in self.waiting if e.request.flow.priority == band.priority]
            running = [e for e in self.running if e.request.flow.priority == band.priority]
            assert (band.requests, band.running) == (len(waiting), len(running))
            assert band.bytes == sum(entry.request.body_bytes for entry in waiting)
            tickets = [entry.ticket for entry in waiting if entry.ticket is not None]
            assert band.cost == sum(ticket.cost for ticket in tickets)
            assert sum(each.cost for each in band.flows.values()) == band.cost
            unsettled = sum(each.unsettled for each in band.flows.values())
            assert unsettled == sum(entry.charged for entry in running)
        assert self.pool.total_in_flight == len(self.running)
        assert sum(self.pool._tokens) == sum(e.request.prompt_tokens for e in self.running)
        outcomes = self.harness.recorder.outcomes
        assert outcomes.total() == self.offered - len(self.waiting)
        assert outcomes[Outcome.CANCELLED] == self.cancelled

    def serve(self, most: int = 1_000) -> list[Entry]:
        """Let what runs end, one after the other; return what went by that, in order."""
        before = len(self.order)
        while self.running and len(self.order) < before + most:
            self.end(self.running[0])
        return self.order[before:]

    def end_all(self) -> None:
        """Let everything end: what waits is refused, what runs ends."""
        self.flow.begin_drain()
        self.flow.end_drain(self.harness.now)
        self._sort()
        while self.running:
            self.end(self.running[0])

    def _sort(self) -> None:
        dispatched = [e for e in self.waiting if e.waiter.outcome is Outcome.DISPATCHED]
        dispatched.sort(key=lambda entry: _turn(self.harness, entry))
        self.running += dispatched
        self.order += dispatched
        self.waiting = [entry for entry in self.waiting if entry.is_waiting]


def full(options: FlowOptions, *, strict: bool = True) -> Traffic:
    """Return traffic through a pool whose only place is taken, by a request that matters most."""
    traffic = Traffic([1], options=options, strict=strict)
    traffic.offer(request(1_000, "other"))
    return traffic


def _turn(harness: Harness, entry: Entry) -> int:
    """Return the place of a dispatch among all decisions."""
    return next(
        number
        for number, (decided, _, _) in enumerate(harness.recorder.waits)
        if decided is entry.request
    )
