"""Rule R13 in any order of events, against the rule as it is written."""

from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import FlowLimits
from epp.core.request import Outcome, Request

from ..support import RecordingWaiter, destination, request
from .evicting import assert_at_rest, evicting

_NUMBERS = (1, 2, 3)
_PRIORITIES = st.sampled_from([-20, -10, -10, -1, 0, 10])
_SUBSETS = st.sampled_from([None, None, frozenset({1}), frozenset({1, 2}), frozenset({3})])
_INDEX = st.integers(0, 30)
_EVENTS = st.one_of(
    *[st.tuples(st.just("offer"), _PRIORITIES, _SUBSETS)] * 3,
    *[st.tuples(st.just("offer"), _PRIORITIES, _SUBSETS)] * 3,
    *[st.tuples(st.just("offer"), _PRIORITIES, st.none())] * 3,
    st.tuples(st.just("end"), _INDEX),
    st.tuples(st.just("end victim"), _INDEX),
    st.tuples(st.just("cancel"), _INDEX),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 3.0, 11.0])),
    st.tuples(st.just("progress"), _INDEX, st.integers(1, 3)),
    st.tuples(st.just("move"), _INDEX, st.sampled_from(_NUMBERS)),
    st.tuples(st.just("limit"), st.sampled_from(_NUMBERS), st.integers(0, 3)),
    st.tuples(st.just("members"), st.sets(st.sampled_from(_NUMBERS))),
)


class _World:
    """A pool with its requests, and what the rule says of each eviction."""

    def __init__(self) -> None:
        self.harness = evicting(_NUMBERS, limits=FlowLimits(wait_limit_s=30.0))
        self.offered: list[_Watched] = []
        self.told: list[_Watched] = []
        self.outstanding: tuple[_Watched, float] | None = None
        self.sequence = 0

    def waiting(self) -> list["_Watched"]:
        return [each for each in self.offered if each.outcome is None and not each.is_over]

    def running(self) -> list["_Watched"]:
        return [
            each for each in self.offered if each.outcome is Outcome.DISPATCHED and not each.is_over
        ]

    def candidates(self, waiting: Request) -> set[int]:
        pool = self.harness.router.pool
        slots = set(pool.active.nonzero()[0].tolist())
        if waiting.subset is None:
            return slots
        return slots & {pool.slot_of(name) for name in waiting.subset}  # type: ignore[arg-type]

    def victims_of(self, blocked: Request) -> list["_Watched"]:
        """Return who may be ended for a request that waits, the first one first; none where it is
        not blocked."""
        pool = self.harness.router.pool
        candidates = self.candidates(blocked)
        if any(pool.in_flight[slot] < pool.limit[slot] for slot in candidates):
            return []
        ranked = []
        for slot in candidates:
            there = [
                each
                for each in self.running()
                if each.lease is not None
                and each.lease.slot == slot
                and each.request.flow.priority < min(0, blocked.flow.priority)
                and not each.evictions
            ]
            over = int(pool.in_flight[slot] - pool.limit[slot]) + 1
            if over <= len(there):
                ranked += [
                    (over, each.request.flow.priority, each.tokens, -each.began, each)
                    for each in there
                ]
        return [each[-1] for each in sorted(ranked, key=lambda each: each[:-1])]

    def check_victim(self, victim: "_Watched") -> None:
        now = self.harness.now
        assert self.outstanding is None, "two at a time"
        victim.evictions.pop()
        by_priority: dict[int, list[list[_Watched]]] = {}
        for each in self.waiting():
            found = self.victims_of(each.request)
            if found:
                by_priority.setdefault(each.request.flow.priority, []).append(found)
        victim.evictions.append(now)
        assert victim in [found[0] for found in by_priority[max(by_priority)]]
        assert victim.request.flow.priority < 0
        assert victim.request.flow.priority < max(by_priority)
        self.outstanding = (victim, now)
        self.told.append(victim)

    def check(self) -> None:
        """Whoever can be helped is being helped."""
        if self.outstanding is not None:
            victim, since_s = self.outstanding
            if victim.is_over or self.harness.now >= since_s + 10.0:
                raise AssertionError("an eviction stays outstanding for too long")
            return
        assert not any(self.victims_of(each.request) for each in self.waiting())


class _Watched(RecordingWaiter):
    def __init__(self, world: _World, offered: Request) -> None:
        super().__init__()
        self.world = world
        self.request = offered
        self.is_over = False
        self.tokens = 0
        self.began = 0
        self.ticket: object = None

    def dispatched(self, *arguments: object) -> None:
        self.world.sequence += 1
        self.began = self.world.sequence
        super().dispatched(*arguments)  # type: ignore[arg-type]

    def evicted(self, retry_after_s: int, now: float) -> None:
        assert not self.evictions
        assert not self.is_over
        outstanding = self.world.outstanding
        if outstanding is not None and now >= outstanding[1] + 10.0:
            self.world.outstanding = None
        super().evicted(retry_after_s, now)
        self.world.check_victim(self)

    def end(self) -> None:
        self.is_over = True
        if self.world.outstanding is not None and self.world.outstanding[0] is self:
            self.world.outstanding = None
        self.world.harness.finish(self)


def _play(world: _World, event: tuple[object, ...]) -> None:
    harness = world.harness
    running, waiting = world.running(), world.waiting()
    match event:
        case ("offer", int(priority), subset):
            waiter = _Watched(world, request(priority, subset=subset))  # type: ignore[arg-type]
            world.offered.append(waiter)
            waiter.ticket = harness.router.flow.offer(waiter.request, waiter, harness.now)
        case ("end", int(index)) if running:
            running[index % len(running)].end()
        case ("end victim", _):
            for victim in [each for each in world.told if not each.is_over][:1]:
                victim.end()
        case ("cancel", int(index)) if waiting:
            waiter = waiting[index % len(waiting)]
            waiter.is_over = True
            harness.router.flow.cancel(waiter.ticket, harness.now)  # type: ignore[arg-type]
        case ("advance", float(seconds)):
            harness.clock.advance(seconds)
            if world.outstanding is not None and harness.now >= world.outstanding[1] + 10.0:
                world.outstanding = None  # nobody else was to be told
        case ("progress", int(index), int(chunks)) if running:
            waiter = running[index % len(running)]
            waiter.tokens += 64 * chunks
            assert waiter.charge is not None
            harness.router.flow.progress(waiter.charge, waiter.request, waiter.tokens)
        case ("move", int(index), int(number)) if running:
            waiter = running[index % len(running)]
            assert waiter.lease is not None
            assert waiter.charge is not None
            if waiter.lease.move(destination(number)):
                harness.router.flow.moved(waiter.charge, harness.now)
        case ("limit", int(number), int(limit)):
            slot = harness.router.pool.slot_of(destination(number))
            if slot is not None:
                harness.router.pool.set_limit(slot, limit, "waiting")
                harness.router.flow.pump(harness.now)
        case ("members", numbers):
            harness.apply(sorted(numbers))  # type: ignore[call-overload]


@given(st.lists(_EVENTS, min_size=20, max_size=60))
def test_r13_in_any_order_of_events(events: list[tuple[object, ...]]) -> None:
    world = _World()
    for event in events:
        _play(world, event)
        world.check()
    while world.running() or world.waiting():
        for waiter in world.running():
            waiter.end()
        world.harness.clock.advance(40.0)
        world.outstanding = None
    eviction = world.harness.router.flow._eviction
    assert eviction is not None
    assert not len(eviction)
    assert not eviction._groups
    assert not eviction.is_outstanding
    told = [each.request for each in world.told]
    assert world.harness.recorder.evicted_requests == told
    assert_at_rest(world.harness)
