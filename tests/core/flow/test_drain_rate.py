"""The measured rate against its formula, written down as a sum over all that happened."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow.drain_rate import DrainRate

from .reference_rate import ReferenceRate

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["backlog", "idle", "dispatch", "dispatch many", "ask"]),
        st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, 59.0, 61.0]),
    ),
    max_size=40,
)


@given(_STEPS)
def test_is_its_formula(steps: list[tuple[str, float]]) -> None:
    measured, expected, now = DrainRate(), ReferenceRate(), 5000.0
    backlogged, cost = False, 1
    for step, delay_s in steps:
        now += delay_s
        if step in ("backlog", "idle"):
            backlogged = step == "backlog"
            measured.backlog(backlogged, now)
            expected.backlog(backlogged, now)
        elif step != "ask" and backlogged:
            for _ in range(12 if step == "dispatch many" else 1):
                measured.dispatched(cost, now)
                expected.dispatched(cost, now)
                cost += 7
        if not expected.is_on_the_edge(now):
            rate, per_s = expected.cost_per_s(now), expected.requests_per_s(now)
            assert measured.cost_per_s(now) == (None if rate is None else pytest.approx(rate))
            assert measured.requests_per_s(now) == (None if per_s is None else pytest.approx(per_s))


def test_a_steady_drain_is_measured_from_the_first_seconds_on() -> None:
    rate, now = DrainRate(), 0.0
    rate.backlog(True, now)
    for _ in range(200):
        now += 0.25
        rate.dispatched(10, now)
        if now >= 3.0:
            assert rate.requests_per_s(now) == pytest.approx(4.0, rel=0.05)
            assert rate.cost_per_s(now) == pytest.approx(40.0, rel=0.05)


def test_a_slow_drain_can_be_told_too() -> None:
    rate, now = DrainRate(), 0.0
    rate.backlog(True, now)
    for _ in range(30):
        now += 4.0
        rate.dispatched(10, now)
    assert rate.requests_per_s(now) == pytest.approx(0.25, rel=0.05)


def test_time_in_which_nobody_waits_does_not_count() -> None:
    rate, now = DrainRate(), 0.0
    for _ in range(30):
        rate.backlog(True, now)
        now += 0.25
        rate.dispatched(10, now)
        rate.backlog(False, now)
        now += 20.0
    assert rate.requests_per_s(now) == pytest.approx(4.0, rel=0.05)


def test_too_little_tells_nothing() -> None:
    rate = DrainRate()
    rate.backlog(True, 0.0)
    for _ in range(4):
        rate.dispatched(10, 1.0)
    assert rate.requests_per_s(3.0) is None
    for _ in range(100):
        rate.dispatched(10, 1.1)
    assert rate.requests_per_s(1.2) is None
    assert rate.requests_per_s(3.0) is not None


def test_what_was_long_ago_is_forgotten() -> None:
    rate = DrainRate()
    rate.backlog(True, 0.0)
    for _ in range(100):
        rate.dispatched(10, 5.0)
    rate.backlog(False, 5.0)
    assert rate.requests_per_s(64.0) == pytest.approx(100 / (60 * (1 - math.exp(-5 / 60))))
    rate.backlog(True, 66.0)
    assert rate.requests_per_s(66.0) is None
