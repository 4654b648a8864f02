"""R12: headroom for higher bands, counted only over bands that have traffic."""

import pytest
from hypothesis import given

from epp.core.claims import RequestClaims
from epp.core.flow import FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.flow.usage_limits import ceilings
from epp.core.request import Outcome

from ..support import RecordingGateWaiter, completed, destination, request
from .traffic import STEPS, Traffic

_PATIENT = FlowLimits(wait_limit_s=None, no_endpoint_wait_limit_s=None, reject_hopeless=False)


def _traffic(limit: int = 10, numbers: tuple[int, ...] = (1,), **usage: object) -> Traffic:
    usage_limit = UsageLimitOptions(**usage)  # type: ignore[arg-type]
    options = FlowOptions(limits=_PATIENT, usage_limit=usage_limit)
    return Traffic(numbers, options=options, limit=limit, strict=False)


def _holdback(**more: object) -> Traffic:
    return _traffic(policy="priority-holdback", ceiling=1.0, min_ceiling=0.5, **more)


# The formulas


@pytest.mark.parametrize(
    ("domain", "priorities", "expected"),
    [
        ("rank", [10], [1.0]),
        ("rank", [10, 0, -90], [1.0, 0.75, 0.5]),
        ("value", [10, 0, -90], [1.0, 0.95, 0.5]),
        ("value", [0], [1.0]),
    ],
)
def test_ceilings_of_bands(domain: str, priorities: list[int], expected: list[float]) -> None:
    options = UsageLimitOptions(
        policy="priority-holdback",
        ceiling=1.0,
        min_ceiling=0.5,
        domain=domain,  # type: ignore[arg-type]
    )
    assert ceilings(options, priorities) == pytest.approx(expected)


def test_a_static_ceiling_is_one_for_all() -> None:
    assert ceilings(UsageLimitOptions(ceiling=0.8), [1, 0, -1]) == [0.8] * 3
    traffic = _traffic(policy="static", ceiling=0.8)
    for number in range(20):
        traffic.offer(request(number % 3))
    assert len(traffic.running) == 8
    assert traffic.flow.closed_by(traffic.flow.bands()[-1]) == "holdback"


# Holdback


def test_r12_a_lower_band_leaves_headroom_while_a_higher_one_has_traffic() -> None:
    traffic = _holdback()
    high = traffic.offer(request(10))
    for _ in range(20):
        traffic.offer(request(0))
    assert len(traffic.running) == 5
    assert traffic.flow.closed_by(traffic.flow.bands()[1]) == "holdback"
    for _ in range(5):
        assert traffic.offer(request(10)).waiter.outcome is Outcome.DISPATCHED
    traffic.end(high)
    assert len(traffic.running) == 9


def test_r12_alone_a_band_uses_all() -> None:
    traffic = _holdback()
    for _ in range(20):
        traffic.offer(request(-5))
    assert len(traffic.running) == 10


def test_r12_what_an_idle_band_kept_is_given_away_by_a_timer() -> None:
    traffic = _holdback()
    high = traffic.offer(request(10))
    for _ in range(20):
        traffic.offer(request(0))
    traffic.end(high)
    assert len(traffic.running) == 5
    traffic.wait(59.9)
    assert len(traffic.running) == 5
    traffic.wait(0.1)
    assert len(traffic.running) == 10
    assert len(traffic.harness.timers) == 0


def test_r12_traffic_that_goes_on_is_not_forgotten() -> None:
    traffic = _holdback()
    high = traffic.offer(request(10))
    for _ in range(20):
        traffic.offer(request(0))
    for _ in range(5):
        traffic.end(high)
        traffic.wait(59.9)
        assert len(traffic.running) == 5
        high = traffic.offer(request(10))
    traffic.wait(1_000.0)
    assert len(traffic.running) == 6


def test_r12_a_refused_request_is_no_traffic() -> None:
    traffic = _holdback()
    refused = traffic.offer(request(10, subset={9}))
    assert refused.waiter.outcome is Outcome.REJECTED_NO_ENDPOINTS
    for _ in range(20):
        traffic.offer(request(0))
    assert len(traffic.running) == 10


def test_r12_what_was_adopted_is_traffic() -> None:
    traffic = _holdback()
    router, now = traffic.harness.router, traffic.harness.now
    claims = RequestClaims(objective="high")
    router.priority_of = lambda objective: 10  # type: ignore[method-assign]
    adopted = router.adopt(claims, destination(1), now, RecordingGateWaiter())
    for _ in range(20):
        traffic.offer(request(0))
    assert len(traffic.running) == 4
    router.finish(adopted, completed(), now)
    traffic.wait(60.0)
    assert len(traffic.running) == 10


def test_r12_a_reflective_ceiling_lets_lower_bands_through_less_often_the_fuller_the_pool_is() -> (
    None
):
    traffic = _traffic(policy="soft-reflective-ceiling", limit=100)
    for _ in range(40):
        assert traffic.offer(request(10)).waiter.outcome is Outcome.DISPATCHED
    for _ in range(40):
        traffic.offer(request(0))
    at_first = len(traffic.running) - 40
    assert 10 <= at_first < 40
    assert traffic.flow.closed_by(traffic.flow.bands()[1]) in (None, "holdback")
    while len(traffic.running) < 100:
        assert traffic.offer(request(10)).waiter.outcome is Outcome.DISPATCHED
    assert traffic.offer(request(10)).is_waiting
    traffic.offer(request(0))
    assert traffic.flow.closed_by(traffic.flow.bands()[1]) == "holdback"


def test_r12_how_often_a_band_is_let_through_does_not_depend_on_its_flows() -> None:
    served = []
    for flows in (1, 3, 30):
        traffic = _traffic(policy="soft-reflective-ceiling", limit=100)
        for _ in range(60):
            traffic.offer(request(10))
        for number in range(60):
            traffic.offer(request(0, f"tenant-{number % flows}"))
        served.append(len(traffic.running) - 60)
    assert served == [served[0]] * 3
    assert 5 < served[0] < 40


@given(steps=STEPS)
def test_r12_the_highest_band_is_never_held_back(steps: list[tuple[object, ...]]) -> None:
    """A band with nothing above it waits for capacity, and for nothing else."""
    traffic = _holdback(limit=3, numbers=(1, 2))
    for step in steps:
        traffic.step(step)
        for entry in traffic.waiting:
            if entry.request.flow.priority == 10:
                _assert_no_room(traffic, entry.request.subset)
    traffic.end_all()


def _assert_no_room(traffic: Traffic, subset: frozenset[str] | None) -> None:
    for member, in_flight, limit in traffic.pool:
        assert in_flight >= limit or (subset is not None and member.destination not in subset)
