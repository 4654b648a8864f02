"""How much may wait and how long: limits, displacement, deadlines, Retry-After."""

import math

import pytest

from epp.core.flow import BandOptions, FlowLimits
from epp.core.request import Outcome, Request

from ..support import Harness, RecordingWaiter, completed, destination, request
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


@pytest.mark.parametrize("band", [BandOptions(max_requests=1), BandOptions(max_bytes=15)])
def test_r7_a_full_band_rejects_though_the_queue_has_room(band: BandOptions) -> None:
    harness = Harness([1], band=band)
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
    harness.clock.advance(0.25)
    harness.give_back(lease)
    for waiter in waiters[:19]:
        harness.clock.advance(0.25)
        harness.finish(waiter, completed(output_tokens=256))  # as was estimated
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


@pytest.mark.parametrize(
    ("of_band_s", "own_s", "budget_s"),
    [
        (2.0, None, 2.0),
        (2.0, 1.0, 1.0),
        (90.0, None, 90.0),
        (math.inf, None, None),
        (math.inf, 5.0, 5.0),
    ],
)
def test_r8_a_band_may_have_a_budget_of_its_own(
    of_band_s: float, own_s: float | None, budget_s: float | None
) -> None:
    harness = Harness([1], band=BandOptions(wait_limit_s=of_band_s))
    harness.occupy(1)
    _, ticket = offer(harness, request(wait_limit_s=own_s))
    assert ticket.deadline_s == (None if budget_s is None else harness.now + budget_s)


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

_COST = 512  # of a request without a prompt, by the estimate


def test_the_wait_of_those_who_stand_in_the_queue_can_be_told() -> None:
    harness = _drained_at_4_per_s()
    (band,) = harness.router.flow.bands()
    wait_s = harness.router.flow.estimated_wait_s(band, harness.now)
    assert wait_s == pytest.approx(20 / 4, rel=0.05)
    wait(harness, request(5))
    assert harness.router.flow.estimated_wait_s(band, harness.now) > wait_s
    idle = Harness([1])
    assert idle.router.flow.estimated_wait_s(idle.router.flow.bands()[0], 0.0) is None


def test_who_passes_by_those_that_wait_does_not_disturb_the_measured_rate() -> None:
    harness = Harness([1, 2], limits=FlowLimits(wait_limit_s=None))
    lease = harness.occupy(1)
    waiters = wait(harness, *[request(subset={1}) for _ in range(40)])
    harness.give_back(lease)
    for waiter in waiters[:20]:
        for _ in range(5):
            harness.clock.advance(0.05)
            passing, _ = offer(harness, request(5, subset={2}))
            harness.finish(passing, completed(output_tokens=256))
        harness.finish(waiter, completed(output_tokens=256))
    (_, band) = harness.router.flow.bands()
    wait_s = harness.router.flow.estimated_wait_s(band, harness.now)
    assert wait_s == pytest.approx(19 / 4, rel=0.05)


@pytest.mark.parametrize(("waiting", "least_s"), [(0, 1), (8, 2), (20, 5)])
def test_retry_after_is_when_the_queue_will_have_drained(waiting: int, least_s: int) -> None:
    harness = _drained_at_4_per_s()
    for ticket in [ticket for band in harness.router.flow.bands() for ticket in band][waiting:]:
        harness.router.flow.cancel(ticket, harness.now)
    advice_s = harness.router.flow.retry_after_s(harness.now, _COST)
    assert least_s <= advice_s <= 1.25 * least_s + 2


def test_each_refused_client_is_given_a_later_time() -> None:
    harness = _drained_at_4_per_s()
    advice = [harness.router.flow.retry_after_s(harness.now, _COST) for _ in range(100)]
    assert advice == sorted(advice)
    assert max(map(advice.count, advice)) <= 5
    assert advice[99] in range(28, 42)  # 20 that wait and 100 that come back, at 4 a second


def test_retry_after_has_bounds() -> None:
    harness = _drained_at_4_per_s()
    wait(harness, *many(4000))
    assert harness.router.flow.retry_after_s(harness.now) == 300
    unknown = {Harness([1]).router.flow.retry_after_s(0.0) for _ in range(3)}
    assert unknown <= set(range(1, 6))
