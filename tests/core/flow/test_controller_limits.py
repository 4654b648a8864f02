"""How much may wait and how long: limits, displacement, deadlines, Retry-After."""

import pytest

from epp.core.flow import FlowLimits
from epp.core.request import Outcome, Request

from ..support import Harness, RecordingWaiter, destination, request
from .offers import many, offer, outcomes, wait

# R7: limits


def _full(harness: Harness, *offered: Request) -> list[RecordingWaiter]:
    harness.occupy(1)
    return wait(harness, *offered)


def test_r7_a_full_queue_displaces_the_youngest_of_the_lowest_band() -> None:
    harness = Harness([1], limits=FlowLimits(max_requests=4))
    waiters = _full(harness, request(0), request(-10), request(-10), request(-5))
    (newcomer,) = wait(harness, request(10))
    assert outcomes(waiters) == [None, None, Outcome.DISPLACED, None]
    assert newcomer.outcome is None
    assert harness.router.flow.requests == 4


def test_r7_nobody_is_displaced_by_an_equal() -> None:
    harness = Harness([1], limits=FlowLimits(max_requests=2))
    waiters = _full(harness, request(0), request(5))
    assert offer(harness, request(0))[0].outcome is Outcome.REJECTED_CAPACITY
    assert outcomes(waiters) == [None, None]


def test_r7_room_in_bytes_may_take_several() -> None:
    harness = Harness([1], limits=FlowLimits(max_bytes=100))
    waiters = _full(
        harness,
        request(-10, body_bytes=40),
        request(-10, body_bytes=0),
        request(-10, body_bytes=30),
        request(0, body_bytes=30),
    )
    wait(harness, request(10, body_bytes=60))
    assert outcomes(waiters) == [Outcome.DISPLACED, None, Outcome.DISPLACED, None]
    assert harness.router.flow.bytes == 90


def test_r7_nobody_is_displaced_in_vain() -> None:
    harness = Harness([1], limits=FlowLimits(max_bytes=100))
    waiters = _full(harness, request(-10, body_bytes=50), request(0, body_bytes=50))
    assert offer(harness, request(0, body_bytes=60))[0].outcome is Outcome.REJECTED_CAPACITY
    assert offer(harness, request(10, body_bytes=101))[0].outcome is Outcome.REJECTED_CAPACITY
    assert outcomes(waiters) == [None, None]


@pytest.mark.parametrize("limits", [FlowLimits(band_max_requests=1), FlowLimits(band_max_bytes=15)])
def test_r7_a_full_band_rejects_though_the_queue_has_room(limits: FlowLimits) -> None:
    harness = Harness([1], limits=limits)
    _full(harness, request(0, body_bytes=10), request(-10, body_bytes=10))
    assert offer(harness, request(0, body_bytes=10))[0].outcome is Outcome.REJECTED_CAPACITY
    wait(harness, request(10, body_bytes=10))


def test_r7_limits_bound_the_queue_and_not_what_can_go() -> None:
    harness = Harness([1, 2], limits=FlowLimits(max_requests=0, max_bytes=0))
    assert offer(harness, request(body_bytes=1 << 30))[0].destination
    assert offer(harness, request(body_bytes=1 << 30))[0].destination
    assert offer(harness, request())[0].outcome is Outcome.REJECTED_CAPACITY


def _drained_at_4_per_s(*, reject_hopeless: bool = True) -> Harness:
    """Return a pool that has served four requests a second for five, with 20 still waiting."""
    limits = FlowLimits(wait_limit_s=None, reject_hopeless=reject_hopeless)
    harness = Harness([1, 2], limits=limits)
    harness.occupy(2)
    lease = harness.occupy(1)
    waiters = wait(harness, *many(40))
    for number in range(20):
        harness.clock.advance(0.25)
        harness.give_back(lease)
        dispatched = waiters[number].lease
        assert dispatched is not None
        lease = dispatched
    return harness


def test_r7_who_would_expire_before_its_turn_is_rejected_on_arrival() -> None:
    harness = _drained_at_4_per_s()
    waiter, _ = offer(harness, request(wait_limit_s=4.0))
    assert waiter.outcome is Outcome.REJECTED_WAIT
    assert waiter.retry_after_s in range(4, 8)
    wait(harness, request(wait_limit_s=6.0), request(1, wait_limit_s=0.1), request())
    wait(harness, request(wait_limit_s=1.0, subset={2}))


def test_r7_rejection_on_arrival_can_be_turned_off() -> None:
    wait(_drained_at_4_per_s(reject_hopeless=False), request(wait_limit_s=0.001))


# R8: deadlines


@pytest.mark.parametrize(
    ("general_s", "own_s", "budget_s"),
    [(60.0, None, 60.0), (60.0, 0.25, 0.25), (5.0, 100.0, 5.0), (None, 7.0, 7.0)],
)
def test_r8_the_wait_ends_at_the_smaller_of_both_budgets(
    general_s: float | None, own_s: float | None, budget_s: float
) -> None:
    harness = Harness([1], limits=FlowLimits(wait_limit_s=general_s))
    harness.clock.advance(0.123)
    start_s = harness.now
    (waiter,) = _full(harness, request(wait_limit_s=own_s))
    harness.clock.advance_to(start_s + budget_s - 1e-6)
    assert waiter.outcome is None
    harness.clock.advance(1000.0)
    assert waiter.outcome is Outcome.EXPIRED
    assert waiter.decided_s == start_s + budget_s


def test_r8_without_a_budget_the_wait_has_no_end() -> None:
    harness = Harness([1], limits=FlowLimits(wait_limit_s=None))
    (waiter,) = _full(harness, request())
    harness.clock.advance(1e9)
    assert waiter.outcome is None
    assert len(harness.timers) == 0


def test_r8_an_expired_request_frees_its_place_at_once() -> None:
    harness = Harness([1], limits=FlowLimits(max_requests=1, wait_limit_s=1.0))
    _full(harness, request())
    harness.clock.advance(1.0)
    wait(harness, request())


def test_r8_a_change_of_regime_starts_the_other_budget_afresh() -> None:
    harness = Harness([1], limits=FlowLimits(wait_limit_s=10.0, no_endpoint_wait_limit_s=3.0))
    harness.occupy(1)
    waiter, ticket = offer(harness, request())
    harness.clock.advance(9.0)
    harness.apply([])
    assert ticket.deadline_s == harness.now + 3.0
    harness.clock.advance(2.9)
    harness.apply([1])
    assert ticket.deadline_s == harness.now + 10.0
    harness.apply([1, 2])
    assert waiter.destination == destination(2)


def test_r8_other_changes_of_membership_leave_the_deadline() -> None:
    harness = Harness([1, 2], limits=FlowLimits(wait_limit_s=10.0))
    start_s = harness.now
    harness.occupy(1)
    harness.occupy(2)
    _, ticket = offer(harness, request())
    harness.clock.advance(1.0)
    harness.apply([1])
    assert ticket.deadline_s == start_s + 10.0


# R9 and R10: cancellation, one outcome


def test_r9_a_cancelled_request_counts_against_no_limit() -> None:
    harness = Harness([1], limits=FlowLimits(max_requests=1, max_bytes=10))
    harness.occupy(1)
    waiter, ticket = offer(harness, request(body_bytes=10))
    harness.clock.advance(0.5)
    harness.router.flow.cancel(ticket, harness.now)
    assert waiter.outcome is None
    assert harness.recorder.waits[-1][1:] == (Outcome.CANCELLED, 0.5)
    assert len(harness.timers) == 0
    wait(harness, request(body_bytes=10))


def test_r10_a_request_leaves_once() -> None:
    harness = Harness([1])
    _, ticket = offer(harness, request())
    with pytest.raises(AssertionError, match="left the queue twice"):
        harness.router.flow.cancel(ticket, harness.now)


# Retry-After


@pytest.mark.parametrize(("waiting", "expected_s"), [(0, range(1, 2)), (19, range(4, 7))])
def test_retry_after_is_when_the_queue_will_have_drained(waiting: int, expected_s: range) -> None:
    harness = _drained_at_4_per_s()
    for ticket in [ticket for band in harness.router.flow.bands() for ticket in band][waiting:]:
        harness.router.flow.cancel(ticket, harness.now)
    advice = {harness.router.flow.retry_after_s(harness.now) for _ in range(200)}
    assert advice <= set(expected_s)
    assert len(advice) > 1 or waiting == 0


def test_retry_after_has_bounds() -> None:
    harness = _drained_at_4_per_s()
    wait(harness, *many(1000))
    assert harness.router.flow.retry_after_s(harness.now) == 60
    unknown = {Harness([1]).router.flow.retry_after_s(0.0) for _ in range(3)}
    assert unknown <= set(range(1, 6))
