"""What is compared with what, and how each thing looks."""

from epp.simulation.report.comparison import compare
from epp.simulation.summary import FlowName

from .results import busy, made_up, table, timeline


def test_runs_are_grouped_by_scenario_and_policy_in_order_of_appearance() -> None:
    results = [
        made_up(scenario="two", policy="b", seed=1),
        made_up(scenario="one", policy="a", seed=1),
        made_up(scenario="two", policy="a", seed=1),
        made_up(scenario="two", policy="b", seed=2),
    ]
    grouped = {
        comparison.scenario: {
            variant.policy: [result.seed for result in variant.results]
            for variant in comparison.variants
        }
        for comparison in compare(results)
    }
    assert grouped == {"two": {"b": [1, 2], "a": [1]}, "one": {"a": [1]}}
    assert list(grouped) == ["two", "one"]
    assert list(grouped["two"]) == ["b", "a"]


def test_flows_and_tenants_are_those_of_all_runs() -> None:
    one = made_up(table(tenant=[0], priority=[5], arrived_s=[1.0]), tenants=("alice",))
    two = made_up(
        table(tenant=[0, 1], priority=[0, 10], arrived_s=[1.0, 2.0]),
        timeline([0.0], queued={-5: [1.0]}),
        policy="other",
        tenants=("bob", "alice"),
    )
    (comparison,) = compare([one, two])
    assert comparison.tenants == ("alice", "bob")
    assert comparison.flows == (("alice", 10), ("alice", 5), ("bob", 0))
    assert comparison.priorities == (10, 5, 0, -5)
    assert len(comparison.results) == 2


def test_only_the_busiest_are_drawn_in_their_usual_order() -> None:
    tenants = tuple(f"tenant-{number}" for number in range(20))
    requests = [number for number in range(20) for _ in range(5 if number % 2 else 1)]
    result = made_up(
        table(tenant=requests, arrived_s=[float(at) for at in range(len(requests))]),
        tenants=tenants,
    )
    (comparison,) = compare([result])
    assert len(comparison.flows) == 20
    odd_ones = {f"tenant-{number}" for number in range(1, 20, 2)}
    assert odd_ones < set(comparison.drawn_tenants)
    assert len(comparison.drawn_tenants) == len(comparison.drawn_flows) == 12
    order = [tenants.index(tenant) for tenant in comparison.drawn_tenants]
    assert order == sorted(order)


def test_no_two_tenants_priorities_or_flows_look_alike() -> None:
    (comparison,) = compare([busy(tenants=[f"tenant-{number}" for number in range(12)])])
    for styles in (
        [comparison.tenant_style(tenant) for tenant in comparison.drawn_tenants],
        [comparison.flow_style(flow) for flow in comparison.drawn_flows],
        [comparison.priority_style(priority) for priority in comparison.drawn_priorities],
    ):
        assert len(set(styles)) == len(styles) > 1


def test_flows_of_tenants_with_the_same_colour_do_not_look_alike() -> None:
    tenants = [f"tenant-{number}" for number in range(7)]
    requests = table(
        tenant=[0, *range(7)], priority=[10, *[0] * 7], arrived_s=[float(at) for at in range(8)]
    )
    (comparison,) = compare([made_up(requests, tenants=tenants)])
    assert [comparison.flow_style(flow) for flow in comparison.flows] == [
        *("t0 d0", "t0 d1", "t1 d0", "t2 d0", "t3 d0", "t4 d0", "t5 d0", "t0 d2")
    ]


def test_a_tenants_priorities_share_its_colour_and_differ_in_stroke() -> None:
    requests = table(tenant=[0, 0], priority=[10, -10], arrived_s=[0.0, 1.0])
    (comparison,) = compare([made_up(requests)])
    assert comparison.tenant_style("alice") == "t0 d0"
    assert comparison.flow_style(FlowName("alice", 10)) == "t0 d0"
    assert comparison.flow_style(FlowName("alice", -10)) == "t0 d1"
