"""The figures of a simulation against numpy's and against numbers that anyone can check."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.simulation.summary import (
    FlowName,
    jain_index,
    measured_rows,
    percentiles,
    summarise,
    times_to_first_token_s,
    waits_s,
)

from .report.results import busy, made_up, table, timeline


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(1).exponential(1.0, 1234)
    found = percentiles(values)
    assert found.count == 1234
    assert [found.p50, found.p90, found.p99] == np.percentile(values, [50, 90, 99]).tolist()


def test_nothing_has_no_percentiles() -> None:
    found = percentiles(np.empty(0))
    assert found.count == 0
    assert all(math.isnan(value) for value in (found.p50, found.p90, found.p99))


def test_jains_index_is_one_for_equals_and_one_nth_for_a_monopoly() -> None:
    assert jain_index([3.0, 3.0, 3.0]) == pytest.approx(1.0)
    assert jain_index([0.0, 7.0, 0.0, 0.0]) == pytest.approx(0.25)
    assert jain_index([1.0, 3.0]) == pytest.approx(16 / 20)
    assert jain_index([5.0]) == 1.0


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 0.0]])
def test_nothing_has_no_index(values: list[float]) -> None:
    assert math.isnan(jain_index(values))


@given(st.lists(st.floats(min_value=0.01, max_value=1e9), min_size=1, max_size=50))
def test_jains_index_lies_between_one_nth_and_one(values: list[float]) -> None:
    assert 1 / len(values) - 1e-9 <= jain_index(values) <= 1 + 1e-9


def test_rows_go_by_priority_then_by_tenant_in_order_of_arrival() -> None:
    requests = table(
        tenant=[1, 0, 1, 0, 1],
        priority=[0, 0, 10, 0, 0],
        arrived_s=[0.0, 1.0, 2.0, 3.0, 4.0],
    )
    rows = measured_rows(made_up(requests, tenants=("bob", "alice")))
    assert {flow: of.tolist() for flow, of in rows.items()} == {
        FlowName("alice", 10): [2],
        FlowName("bob", 0): [1, 3],
        FlowName("alice", 0): [0, 4],
    }
    assert list(rows) == [FlowName("alice", 10), FlowName("bob", 0), FlowName("alice", 0)]


def test_neighbours_of_one_tenant_at_two_priorities_are_two_flows() -> None:
    rows = measured_rows(made_up(table(tenant=[0, 0], priority=[-10, 5], arrived_s=[0.0, 1.0])))
    assert list(rows) == [FlowName("alice", 5), FlowName("alice", -10)]


def test_what_arrived_in_the_warm_up_is_left_out() -> None:
    requests = table(tenant=[0, 0, 1], arrived_s=[1.0, 10.0, 9.9])
    summary = summarise(made_up(requests, measure_from_s=10.0))
    assert [(flow.tenant, flow.figures.requests) for flow in summary.flows] == [("alice", 1)]
    assert summary.total.requests == 1


def test_waits_are_of_the_last_try_and_ttft_from_the_first() -> None:
    requests = table(
        tenant=[0, 0],
        arrived_s=[1.0, 2.0],
        entered_s=[5.0, 2.0],
        dispatched_s=[5.5, math.nan],
        first_token_s=[6.0, math.nan],
        outcomes=["served", "expired"],
        tries=[3, 1],
    )
    result = made_up(requests)
    rows = np.arange(2)
    assert waits_s(result, rows).tolist() == [0.5]
    assert times_to_first_token_s(result, rows).tolist() == [5.0]
    total = summarise(result).total
    assert (total.wait_s.count, total.wait_s.p50, total.ttft_s.p99) == (1, 0.5, 5.0)
    assert (total.mean_tries, total.most_tries) == (2.0, 3)


def test_outcomes_are_counted_and_sum_up_to_the_requests() -> None:
    outcomes = ["served", "expired", "served", "unfinished", "displaced"]
    requests = table(tenant=[0, 0, 1, 1, 1], arrived_s=[0.0, 1.0, 2.0, 3.0, 4.0], outcomes=outcomes)
    summary = summarise(made_up(requests))
    assert summary.total.outcomes == {"served": 2, "displaced": 1, "expired": 1, "unfinished": 1}
    assert summary.total.served == 2
    assert [flow.figures.outcomes for flow in summary.flows] == [
        {"served": 1, "expired": 1},
        {"served": 1, "displaced": 1, "unfinished": 1},
    ]


def test_figures_are_numpys() -> None:
    result = busy()
    requests = result.requests
    for flow in summarise(result).flows:
        is_ours = (requests.tenant == result.tenants.index(flow.tenant)) & (
            requests.priority == flow.priority
        )
        waits = (requests.dispatched_s - requests.entered_s)[is_ours]
        p50, p90, p99 = np.nanpercentile(waits, [50, 90, 99]).tolist()
        wait_s = flow.figures.wait_s
        assert (wait_s.p50, wait_s.p90, wait_s.p99) == pytest.approx((p50, p90, p99))
        assert flow.figures.requests == is_ours.sum()


def test_shares_are_of_the_service_between_warm_up_and_last_arrival() -> None:
    samples = timeline(
        [0.0, 10.0, 20.0, 30.0],
        served_cost={"alice": [0.0, 100.0, 400.0, 400.0], "bob": [0.0, 0.0, 100.0, 900.0]},
    )
    summary = summarise(made_up(samples=samples, duration_s=20.0, measure_from_s=10.0))
    assert summary.service == {"alice": 300.0, "bob": 100.0}
    assert summary.shares == {"alice": 0.75, "bob": 0.25}
    assert summary.jain == pytest.approx(400**2 / (2 * (300**2 + 100**2)))


def test_service_between_two_samples_is_interpolated() -> None:
    samples = timeline([0.0, 10.0], served_cost={"alice": [0.0, 100.0], "bob": [0.0, 50.0]})
    summary = summarise(made_up(samples=samples, duration_s=8.0, measure_from_s=4.0))
    assert summary.service == pytest.approx({"alice": 40.0, "bob": 20.0})


def test_a_tenant_without_any_service_counts_for_the_index() -> None:
    summary = summarise(made_up(samples=timeline([0.0, 100.0], served_cost={"alice": [0.0, 9.0]})))
    assert summary.shares == {"alice": 1.0, "bob": 0.0}
    assert summary.jain == pytest.approx(0.5)


def test_each_flow_has_the_share_of_its_tenant() -> None:
    summary = summarise(busy())
    assert [flow.tenant_share for flow in summary.flows] == [
        summary.shares[flow.tenant] for flow in summary.flows
    ]


@pytest.mark.parametrize(
    "samples",
    [
        timeline(),
        timeline([0.0, 100.0], served_cost={"alice": [0.0, 0.0], "bob": [math.nan, math.nan]}),
    ],
)
def test_where_nobody_was_served_there_are_no_shares(samples: object) -> None:
    requests = table(
        tenant=[0, 1],
        arrived_s=[0.0, 1.0],
        dispatched_s=[math.nan, math.nan],
        outcomes=["expired", "expired"],
    )
    summary = summarise(made_up(requests, samples))  # type: ignore[arg-type]
    assert math.isnan(summary.jain)
    assert all(math.isnan(share) for share in summary.shares.values())
    assert summary.total.served == 0
    assert math.isnan(summary.total.wait_s.p99)


def test_a_run_in_which_nothing_happened_has_a_summary() -> None:
    summary = summarise(made_up(duration_s=0.0, tenants=()))
    assert (summary.total.requests, summary.flows, summary.service) == (0, (), {})
    assert math.isnan(summary.total.mean_tries)
