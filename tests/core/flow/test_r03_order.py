"""R3: the order of the requests of one flow."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import BandOptions, FlowLimits, FlowOptions
from epp.core.flow.options import Ordering

from ..support import request
from .traffic import Entry, Traffic

_GOALS_S = st.lists(st.none() | st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=1, max_size=20)


def _serve_all(traffic: Traffic) -> list[Entry]:
    while traffic.running:
        traffic.end(traffic.running[0])
    return traffic.order[1:]


def _traffic(ordering: Ordering, **limits: object) -> Traffic:
    options = FlowOptions(
        limits=FlowLimits(reject_hopeless=False, **limits),  # type: ignore[arg-type]
        band=BandOptions(ordering=ordering),
    )
    traffic = Traffic([1], options=options)
    traffic.offer(request())
    return traffic


@given(_GOALS_S)
def test_r3_fcfs_is_by_arrival_whatever_the_goals(goals_s: list[float | None]) -> None:
    traffic = _traffic("fcfs")
    entries = [traffic.offer(request(slo_ttft_s=goal, wait_limit_s=goal)) for goal in goals_s]
    assert _serve_all(traffic) == entries


@given(_GOALS_S)
def test_r3_slo_deadline_is_by_arrival_and_goal_and_the_rest_last(
    goals_s: list[float | None],
) -> None:
    traffic = _traffic("slo-deadline")
    entries = []
    for number, goal in enumerate(goals_s):
        due_s = math.inf if goal is None else number * 0.25 + goal
        entries.append((due_s, number))
        traffic.offer(request(slo_ttft_s=goal))
        traffic.harness.clock.advance(0.25)
    by_number = dict(enumerate(traffic.waiting))
    assert _serve_all(traffic) == [by_number[number] for _, number in sorted(entries)]


@given(_GOALS_S)
def test_r3_edf_is_by_the_end_of_the_budget(goals_s: list[float | None]) -> None:
    traffic = _traffic("edf", wait_limit_s=100.0)
    entries = []
    for number, goal in enumerate(goals_s):
        budget_s = 100.0 if goal is None else 50.0 + goal
        entries.append((number * 0.25 + budget_s, number))
        traffic.offer(request(wait_limit_s=None if goal is None else budget_s))
        traffic.harness.clock.advance(0.25)
    by_number = dict(enumerate(traffic.waiting))
    assert _serve_all(traffic) == [by_number[number] for _, number in sorted(entries)]


def test_r3_edf_without_any_budget_is_by_arrival() -> None:
    traffic = _traffic("edf", wait_limit_s=None)
    entries = [traffic.offer(request()) for _ in range(3)]
    urgent = traffic.offer(request(wait_limit_s=5.0))
    assert _serve_all(traffic) == [urgent, *entries]


def test_r3_r8_edf_follows_the_budgets_that_begin_afresh_with_endpoints() -> None:
    traffic = _traffic("edf", wait_limit_s=100.0, no_endpoint_wait_limit_s=200.0)
    traffic.end(traffic.running[0])
    traffic.members([])
    early = traffic.offer(request(wait_limit_s=30.0))
    traffic.wait(20.0)
    late = traffic.offer(request(wait_limit_s=20.0))
    # Ends: early at 30, late at 40. When endpoints appear at 21, at 51 and 41.
    traffic.wait(1.0)
    traffic.members([1])
    assert [early.is_waiting, late.is_waiting] == [True, False]


@pytest.mark.parametrize("ordering", ["fcfs", "edf", "slo-deadline"])
def test_r3_ties_go_by_arrival(ordering: Ordering) -> None:
    traffic = _traffic(ordering)
    entries = [traffic.offer(request(slo_ttft_s=1.0, wait_limit_s=9.0)) for _ in range(50)]
    assert _serve_all(traffic) == entries


def test_r3_the_order_in_a_flow_is_no_order_between_flows() -> None:
    traffic = _traffic("slo-deadline")
    for _ in range(3):
        traffic.offer(request(0, "patient", slo_ttft_s=100.0), 256)
    for _ in range(3):
        traffic.offer(request(0, "urgent", slo_ttft_s=0.1), 256)
    names = [entry.request.flow.fairness_id for entry in _serve_all(traffic)]
    assert names == ["patient", "urgent"] * 3
