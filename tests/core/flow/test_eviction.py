"""Rule R13: running work of negative priority makes room for more important work that waits."""

import pytest

from epp.core.claims import RequestClaims
from epp.core.flow import BandOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.request import Outcome

from ..support import (
    Harness,
    RecordingGateWaiter,
    RecordingWaiter,
    at_most,
    destination,
    request,
)
from .evicting import assert_at_rest, evicting
from .offers import offer

_NUMBERS = (1, 2, 3)


def run(
    harness: Harness, *priorities: int, subset: set[int] | None = None
) -> list[RecordingWaiter]:
    """Offer requests that are dispatched at once, one second after the other."""
    waiters = []
    for priority in priorities:
        waiter, _ = offer(harness, request(priority, subset=subset))
        assert waiter.outcome is Outcome.DISPATCHED
        waiters.append(waiter)
        harness.clock.advance(1.0)
    return waiters


def evicted(waiters: list[RecordingWaiter]) -> list[bool]:
    return [bool(waiter.evictions) for waiter in waiters]


def test_a_running_request_of_negative_priority_makes_room() -> None:
    harness = evicting()
    (batch,) = run(harness, -10)
    urgent, _ = offer(harness, request(10))
    assert batch.evictions == [harness.now]
    assert batch.retry_after_s is not None
    assert batch.retry_after_s >= 1
    assert harness.recorder.evicted_requests == [batch.request]
    assert urgent.outcome is None  # the capacity is not free before the victim has ended
    harness.clock.advance(0.5)
    harness.finish(batch)
    assert urgent.outcome is Outcome.DISPATCHED
    harness.finish(urgent)
    assert_at_rest(harness)


def test_nothing_is_evicted_where_it_is_off() -> None:
    harness = evicting(eviction=False)
    (batch,) = run(harness, -10)
    offer(harness, request(10))
    harness.clock.advance(5.0)
    assert not batch.evictions


@pytest.mark.parametrize(
    ("running", "waiting", "is_evicted"),
    [
        (-1, 0, True),
        (-10, -5, True),
        (-5, -5, False),
        (-5, -10, False),
        (0, 10, False),
        (5, 10, False),
    ],
)
def test_only_a_negative_priority_gives_way_and_only_to_a_higher_one(
    running: int, waiting: int, is_evicted: bool
) -> None:
    harness = evicting()
    waiters = run(harness, running)
    offer(harness, request(waiting))
    assert evicted(waiters) == [is_evicted]


def test_nobody_gives_way_where_there_is_room() -> None:
    harness = evicting(slots=3)
    waiters = run(harness, -10, -10)
    assert run(harness, 10)
    assert evicted(waiters) == [False, False]


def test_the_lowest_priority_goes_first_whichever_endpoint_it_is_at() -> None:
    harness = evicting(_NUMBERS)
    waiters = run(harness, -1, -10, -5)
    offer(harness, request(10))
    assert evicted(waiters) == [False, True, False]


def test_the_lowest_priority_goes_first_at_one_endpoint_as_well() -> None:
    harness = evicting(slots=3)
    waiters = run(harness, -5, -10, -1)
    offer(harness, request(10))
    assert evicted(waiters) == [False, True, False]


def test_of_one_priority_the_newest_goes_first() -> None:
    harness = evicting(_NUMBERS)
    waiters = run(harness, -10, -10, -10)
    offer(harness, request(10))
    assert evicted(waiters) == [False, False, True]


def test_of_one_priority_the_least_advanced_goes_first() -> None:
    harness = evicting(_NUMBERS)
    waiters = run(harness, -10, -10, -10)
    for waiter, tokens in zip(waiters, (64, 128, 192), strict=True):
        assert waiter.charge is not None
        harness.router.flow.progress(waiter.charge, waiter.request, tokens)
        harness.router.flow.progress(waiter.charge, waiter.request, tokens)
    offer(harness, request(10))
    assert evicted(waiters) == [True, False, False]


def test_many_that_advance_stay_in_order() -> None:
    harness = evicting(slots=100)
    waiters = run(harness, *[-10] * 100)
    for tokens in range(1, 10):
        for number, waiter in enumerate(waiters):
            assert waiter.charge is not None
            progress = 64 * tokens * (1 + number % 50)
            harness.router.flow.progress(waiter.charge, waiter.request, progress)
    offer(harness, request(10))
    for number in (50, 0, 51, 1):  # who is as far as another one, but began later, goes first
        assert waiters[number].evictions
        assert sum(evicted(waiters)) == 1 + [50, 0, 51, 1].index(number)
        harness.finish(waiters[number])
        offer(harness, request(10))


def test_it_helps_only_at_an_endpoint_where_the_blocked_request_can_go() -> None:
    harness = evicting(_NUMBERS)
    waiters = [run(harness, -10, subset={number})[0] for number in (2, 1, 3)]
    offer(harness, request(10, subset={2}))
    assert evicted(waiters) == [True, False, False]


def test_nobody_gives_way_to_a_request_with_room_elsewhere() -> None:
    harness = evicting([1, 2])
    waiters = run(harness, -10, subset={1})
    assert run(harness, 10, subset={1, 2})
    assert evicted(waiters) == [False]


def test_a_lane_that_cannot_be_helped_does_not_keep_others_from_it() -> None:
    harness = evicting([1, 2])
    run(harness, 0, subset={1})
    waiters = run(harness, -10, subset={2})
    offer(harness, request(10, subset={1}))
    assert evicted(waiters) == [False]
    offer(harness, request(5, subset={2}))
    assert evicted(waiters) == [True]


def test_one_at_a_time_each_confirmed_before_the_next() -> None:
    harness = evicting(slots=3)
    waiters = run(harness, -10, -10, -10)
    urgent = [offer(harness, request(10))[0] for _ in range(2)]
    assert evicted(waiters) == [False, False, True]
    harness.clock.advance(5.0)
    assert evicted(waiters) == [False, False, True]
    harness.finish(waiters[2])
    assert [waiter.outcome for waiter in urgent] == [Outcome.DISPATCHED, None]
    assert evicted(waiters) == [False, True, True]
    harness.finish(waiters[1])
    assert [waiter.outcome for waiter in urgent] == [Outcome.DISPATCHED] * 2
    harness.clock.advance(60.0)
    assert evicted(waiters) == [False, True, True]
    for waiter in (waiters[0], *urgent):
        harness.finish(waiter)
    assert_at_rest(harness)


def test_what_ends_by_itself_confirms_nothing() -> None:
    harness = evicting(slots=3)
    waiters = run(harness, -10, -10, -10)
    for _ in range(3):
        offer(harness, request(10))
    harness.finish(waiters[0])
    assert evicted(waiters) == [False, False, True]
    harness.finish(waiters[2])
    assert evicted(waiters) == [False, True, True]


def test_who_does_not_end_is_waited_for_for_ten_seconds() -> None:
    harness = evicting(slots=2)
    waiters = run(harness, -10, -10)
    urgent, _ = offer(harness, request(10))
    harness.clock.advance(9.999)
    assert evicted(waiters) == [False, True]
    harness.clock.advance(0.001)
    assert evicted(waiters) == [True, True]
    harness.clock.advance(10.0)
    harness.finish(waiters[1])
    assert urgent.outcome is Outcome.DISPATCHED
    for waiter in (waiters[0], urgent):
        harness.finish(waiter)
    assert [len(waiter.evictions) for waiter in waiters] == [1, 1]
    assert_at_rest(harness)


def test_who_leaves_the_queue_meanwhile_needs_no_second_one() -> None:
    harness = evicting(slots=2)
    waiters = run(harness, -10, -10)
    _, ticket = offer(harness, request(10))
    harness.router.flow.cancel(ticket, harness.now)
    harness.finish(waiters[1])
    assert evicted(waiters) == [False, True]


def test_who_is_refused_at_once_ends_nobodys_work() -> None:
    harness = evicting(limits=FlowLimits(max_requests=1))
    (batch,) = run(harness, -10)
    harness.router.flow.offer(request(-10), RecordingWaiter(), harness.now)
    refused, _ = offer(harness, request(-10))
    assert refused.outcome is Outcome.REJECTED_CAPACITY
    assert not batch.evictions
    harness = evicting(band=BandOptions(max_requests=0))
    (batch,) = run(harness, -10)
    refused, _ = offer(harness, request(10))
    assert refused.outcome is Outcome.REJECTED_CAPACITY
    assert not batch.evictions


def test_holdback_alone_is_no_reason() -> None:
    """Two of four slots are all that any band may use; two are free."""
    harness = evicting(slots=4, usage_limit=UsageLimitOptions(ceiling=0.5))
    waiters = run(harness, -10, -10)
    held_back, _ = offer(harness, request(10))
    assert held_back.outcome is None
    assert evicted(waiters) == [False, False]


def test_room_is_made_only_for_who_may_use_it() -> None:
    """Of four slots, band 0 may fill less than three quarters while band 10 has traffic: one slot
    more would be of no use to it. Band 10 may fill all."""
    options = UsageLimitOptions(policy="priority-holdback", min_ceiling=0.5)
    harness = evicting(slots=4, usage_limit=options)
    waiters = run(harness, -10, -10, -10)
    run(harness, 10)
    offer(harness, request(0))
    assert evicted(waiters) == [False, False, False]
    offer(harness, request(10))
    assert evicted(waiters) == [False, False, True]


def test_no_work_is_ended_while_the_process_drains() -> None:
    harness = evicting(slots=2)
    waiters = run(harness, -10, -10)
    urgent = [offer(harness, request(10))[0] for _ in range(2)]
    harness.router.begin_drain()
    harness.finish(waiters[1])
    assert urgent[0].outcome is Outcome.DISPATCHED
    assert evicted(waiters) == [False, True]


def test_an_empty_pool_has_nobody_to_evict() -> None:
    harness = evicting()
    waiters = run(harness, -10)
    harness.apply([])
    offer(harness, request(10))
    assert evicted(waiters) == [False]
    harness.apply([2])
    harness.finish(waiters[0])


def test_where_more_runs_than_may_as_many_go_as_are_needed_at_one_endpoint() -> None:
    harness = evicting([1, 2], slots=3)
    first = run(harness, -10, -10, -10, subset={1})
    second = run(harness, -10, -10, -10, subset={2})
    for number, limit in ((1, 2), (2, 1)):
        slot = harness.router.pool.slot_of(destination(number))
        assert slot is not None
        harness.router.pool.set_limit(slot, limit, "waiting")
    urgent, _ = offer(harness, request(10))
    for victim in (first[2], first[1]):
        assert victim.evictions
        assert urgent.outcome is None
        harness.finish(victim)
    assert urgent.destination == destination(1)
    assert evicted(second) == [False] * 3


def test_nobody_goes_where_it_would_not_be_enough() -> None:
    harness = evicting(slots=3)
    waiters = run(harness, 0, -10, 0)
    harness.router.pool.set_limit(0, 2, "waiting")
    offer(harness, request(10))
    assert evicted(waiters) == [False] * 3


@pytest.mark.parametrize(("token_limit", "is_evicted"), [(99, False), (100, True)])
def test_tokens_must_get_free_as_well(token_limit: int, is_evicted: bool) -> None:
    """99 tokens stay, and an endpoint has room where it has less than its limit."""
    harness = Harness([1], options=FlowOptions(eviction=True), detector=at_most(10, max_tokens=100))
    fixed, _ = offer(harness, request(0, prompt_tokens=99))
    batch, _ = offer(harness, request(-10, prompt_tokens=50))
    assert fixed.outcome is batch.outcome is Outcome.DISPATCHED
    harness.router.pool.set_limit(0, 10, "inflight", token_limit)
    offer(harness, request(10))
    assert evicted([batch]) == [is_evicted]


def test_the_victim_is_sought_where_it_is_served() -> None:
    harness = evicting([1, 2])
    waiters = run(harness, -10, subset={1})
    (other,) = run(harness, 0, subset={2})
    harness.finish(other)
    (waiter,) = waiters
    assert waiter.lease is not None
    assert waiter.charge is not None
    assert waiter.lease.move(destination(2))
    harness.router.flow.moved(waiter.charge, harness.now)
    run(harness, 0, subset={1})
    offer(harness, request(10, subset={1}))
    assert evicted(waiters) == [False]
    offer(harness, request(10, subset={2}))
    assert evicted(waiters) == [True]
    harness.router.flow.moved(waiter.charge, harness.now)  # too late to matter
    harness.router.flow.progress(waiter.charge, waiter.request, 64)


def test_the_router_says_where_it_is_served() -> None:
    harness = Harness([1, 2], objectives={"batch": -10}, options=FlowOptions(eviction=True))
    claims = RequestClaims(objective="batch", subset=frozenset({destination(1)}))
    waiter = RecordingGateWaiter()
    admission = harness.router.admit(claims, waiter, harness.now)
    harness.router.served_by(admission, destination(2), harness.now)
    offer(harness, request(10, subset={2}))
    assert waiter.evictions == [harness.now]


def test_what_another_router_has_dispatched_can_be_evicted() -> None:
    harness = Harness([1], objectives={"batch": -10}, options=FlowOptions(eviction=True))
    waiter = RecordingGateWaiter()
    harness.router.adopt(RequestClaims(objective="batch"), destination(1), harness.now, waiter)
    offer(harness, request(10))
    assert waiter.evictions == [harness.now]


def test_victims_that_end_at_once_go_one_after_the_other() -> None:
    harness = evicting(slots=50)
    victims: list[RecordingWaiter] = []
    for _ in range(50):
        waiter = RecordingWaiter()
        victims.append(waiter)
        offer(harness, request(-10), waiter)

    def end(waiter: RecordingWaiter) -> None:
        harness.finish(waiter)

    for waiter in victims:
        waiter._on_decision = lambda waiter=waiter: end(waiter)  # type: ignore[misc]
    urgent = [offer(harness, request(10))[0] for _ in range(60)]
    assert sum(waiter.outcome is Outcome.DISPATCHED for waiter in urgent) == 50
    assert all(len(waiter.evictions) == 1 for waiter in victims)
