"""When requests go: priority, placement, the empty pool, drain. One test or more for each rule."""

import pytest

from epp.core.flow import FlowLimits, Ticket
from epp.core.request import Outcome, Request

from ..support import Harness, RecordingWaiter, destination, request
from .offers import many, offer, outcomes, wait

# R1 to R3: strictly by priority, then by arrival


def test_r1_higher_priorities_overtake_whatever_waits() -> None:
    harness = Harness([1])
    lease = harness.occupy(1)
    priorities = [-10, 0, 10, -10, 10, 7, -(2**63), 2**63]
    waiters = wait(harness, *map(request, priorities))
    harness.give_back(lease)
    order = []
    for _ in priorities:
        (number,) = (
            number
            for number, waiter in enumerate(waiters)
            if waiter.lease is not None and not waiter.lease.is_released
        )
        order.append(number)
        harness.finish(waiters[number])
    assert order == [7, 2, 4, 5, 1, 0, 3, 6]


def test_r1_a_newcomer_of_higher_priority_does_not_wait_behind_lower_ones() -> None:
    harness = Harness([1, 2])
    leases = [harness.occupy(1), harness.occupy(2)]
    (low,) = wait(harness, request(-1, subset={1}))
    harness.give_back(leases[1])
    high, _ = offer(harness, request(1))
    assert high.destination == destination(2)
    assert low.outcome is None


# R4 to R6: dispatch is placement, and nothing waits that could go


def test_r4_the_lease_is_taken_before_the_waiter_is_told() -> None:
    harness = Harness([1], max_concurrency=2)
    seen = []
    waiter = RecordingWaiter(lambda: seen.append(harness.router.pool.total_in_flight))
    offer(harness, request(), waiter)
    assert seen == [1]
    assert waiter.waited_s == 0.0


def test_r5_a_head_that_cannot_go_blocks_nobody_and_keeps_its_place() -> None:
    harness = Harness([1, 2])
    first, second = harness.occupy(1), harness.occupy(2)
    head, same, other = wait(
        harness, request(10, subset={1}), request(10, subset={1}), request(-10)
    )
    harness.give_back(second)
    assert other.destination == destination(2)
    assert (head.outcome, same.outcome) == (None, None)
    (younger,) = wait(harness, request(10))
    harness.give_back(first)
    assert head.destination == destination(1)
    assert (same.outcome, younger.outcome) == (None, None)


def test_r5_the_hint_holds_by_address_and_port() -> None:
    harness = Harness([1, 2, 3])
    hinted = Request(
        flow=request().flow, subset=frozenset({destination(2), "10.0.0.1:8001", "garbage"})
    )
    assert offer(harness, hinted)[0].destination == destination(2)


@pytest.mark.parametrize("subset", [set(), {9}])
def test_r5_a_hint_that_names_nobody_of_the_pool_is_refused_at_once(subset: set[int]) -> None:
    harness = Harness([1])
    waiter, ticket = offer(harness, request(subset=subset))
    assert waiter.outcome is Outcome.REJECTED_NO_ENDPOINTS
    assert not ticket.is_waiting
    harness.assert_at_rest()


def test_r6_new_capacity_is_filled_at_once() -> None:
    harness = Harness([1])
    harness.occupy(1)
    waiters = wait(harness, *many(5))
    harness.apply([1, 2, 3])
    assert outcomes(waiters) == [Outcome.DISPATCHED] * 2 + [None] * 3
    assert {waiter.destination for waiter in waiters[:2]} == {destination(2), destination(3)}


def test_more_subsets_than_are_remembered() -> None:
    harness = Harness([1], limits=FlowLimits(wait_limit_s=None))
    lease = harness.occupy(1)
    waiters = wait(harness, *[request(subset={1, number}) for number in range(100, 1200)])
    harness.give_back(lease)
    assert waiters[0].destination == destination(1)
    assert len(harness.router.flow._placement._masks) <= 1000


def test_r5_hints_hold_when_the_pool_gets_more_slots() -> None:
    harness = Harness(range(1, 9))
    leases = [harness.occupy(number) for number in range(1, 9)]
    (waiter,) = wait(harness, request(subset={1}))
    harness.router.pool.adopt(destination(9))
    harness.give_back(leases[0])
    assert waiter.destination == destination(1)


# R14: the empty pool


def test_r14_requests_wait_for_the_first_endpoint_within_their_own_budget() -> None:
    harness = Harness([], limits=FlowLimits(no_endpoint_wait_limit_s=5.0, wait_limit_s=1.0))
    start_s = harness.now
    (waiter,) = wait(harness, request())
    harness.clock.advance(10.0)
    assert waiter.outcome is Outcome.EXPIRED_NO_ENDPOINTS
    assert waiter.decided_s == start_s + 5.0


def test_r14_before_the_first_resources_the_pool_is_empty_too() -> None:
    harness = Harness(None)
    (waiter,) = wait(harness, request())
    harness.apply([1])
    assert waiter.destination == destination(1)


def test_r14_endpoints_that_appear_are_filled_to_their_limit_and_not_beyond() -> None:
    harness = Harness([], max_concurrency=2)
    waiters = wait(harness, *many(10))
    harness.apply([1, 2])
    assert outcomes(waiters) == [Outcome.DISPATCHED] * 4 + [None] * 6


def test_r14_a_full_queue_says_that_there_is_no_endpoint() -> None:
    harness = Harness([], limits=FlowLimits(max_requests=1))
    wait(harness, request())
    assert offer(harness, request())[0].outcome is Outcome.REJECTED_NO_ENDPOINTS


def test_a_request_whose_last_endpoint_leaves_is_told_so() -> None:
    harness = Harness([1, 2])
    lease = harness.occupy(1)
    harness.occupy(2)
    hinted, free = wait(harness, request(10, subset={1}), request())
    harness.apply([2])
    assert (hinted.outcome, free.outcome) == (Outcome.REJECTED_NO_ENDPOINTS, None)
    harness.give_back(lease)
    assert free.outcome is None, "capacity at an endpoint that has left is no capacity"


# R15: drain


def test_r15_a_drain_takes_no_one_serves_who_waits_and_ends() -> None:
    harness = Harness([1])
    lease = harness.occupy(1)
    first, second = wait(harness, request(), request())
    harness.router.begin_drain()
    assert not harness.router.is_ready
    refused, _ = offer(harness, request(100))
    assert refused.outcome is Outcome.SHUTTING_DOWN
    assert refused.retry_after_s in range(1, 61)
    harness.give_back(lease)
    assert first.outcome is Outcome.DISPATCHED
    harness.router.flow.end_drain(harness.now)
    assert second.outcome is Outcome.SHUTTING_DOWN
    assert first.lease is not None
    assert not first.lease.is_released


def test_on_empty_tells_when_the_last_one_has_left() -> None:
    harness, told = Harness([1]), list[int]()
    harness.router.flow.on_empty = lambda: told.append(harness.router.flow.requests)
    lease = harness.occupy(1)
    first, second = wait(harness, request(), request())
    harness.give_back(lease)
    assert told == []
    harness.finish(first)
    assert second.outcome is Outcome.DISPATCHED
    assert told == [0]


# Waiters that call back


def test_a_waiter_may_give_its_lease_back_at_once() -> None:
    harness = Harness([1])
    lease, waiters = harness.occupy(1), list[RecordingWaiter]()

    def finish() -> None:
        harness.finish(waiters[0])

    waiters += [RecordingWaiter(finish), RecordingWaiter()]
    for waiter in waiters:
        offer(harness, request(), waiter)
    harness.give_back(lease)
    assert outcomes(waiters) == [Outcome.DISPATCHED] * 2


def test_a_displaced_waiter_may_withdraw_others_and_free_capacity() -> None:
    harness = Harness([1], limits=FlowLimits(max_bytes=100))
    lease, tickets = harness.occupy(1), list[Ticket]()

    def leave_all() -> None:
        harness.router.flow.cancel(tickets[0], harness.now)
        harness.give_back(lease)

    displaced = RecordingWaiter(leave_all)
    tickets.append(offer(harness, request(-1, body_bytes=50))[1])
    tickets.append(offer(harness, request(-1, body_bytes=50), displaced)[1])
    newcomer, ticket = offer(harness, request(0, body_bytes=100))
    assert displaced.outcome is Outcome.DISPLACED
    assert newcomer.outcome is Outcome.DISPATCHED
    assert not ticket.is_waiting
    assert len(harness.timers) == 0


def test_refused_waiters_may_withdraw_each_other() -> None:
    harness = Harness([1])
    harness.occupy(1)
    tickets: list[Ticket] = []

    def withdraw_others() -> None:
        for ticket in tickets:
            if ticket.is_waiting:
                harness.router.flow.cancel(ticket, harness.now)

    def offer_two(*subsets: set[int] | None) -> None:
        for subset in subsets:
            waiter = RecordingWaiter(withdraw_others)
            tickets.append(offer(harness, request(subset=subset), waiter)[1])
        assert harness.router.flow.requests == 2

    offer_two({1}, {1})
    harness.apply([2])
    assert harness.router.flow.requests == 0
    harness.occupy(2)
    offer_two(None, {2})
    harness.router.flow.end_drain(harness.now)
    assert harness.router.flow.requests == 0


def test_a_waiter_may_offer_another() -> None:
    harness = Harness([1], max_concurrency=2)
    second = RecordingWaiter()

    def offer_second() -> None:
        offer(harness, request(), second)

    offer(harness, request(), RecordingWaiter(offer_second))
    assert second.outcome is Outcome.DISPATCHED
    assert len(harness.timers) == 0
