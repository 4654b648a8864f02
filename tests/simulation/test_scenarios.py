"""What the scenarios that ship are to show, most of them shortened."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from epp.simulation.backlog import backlogged_flows, evenness, served_within
from epp.simulation.result import SimulationResult
from epp.simulation.scenario import PolicyName, Scenario
from epp.simulation.scenario_file import read_scenario
from epp.simulation.simulation import simulate
from epp.simulation.summary import FlowSummary, summarise


def _shortened(name: str, duration_s: float) -> Scenario:
    scenario = read_scenario(name)
    measure_from_s = scenario.measure_from_s * duration_s / scenario.duration_s
    return msgspec.structs.replace(scenario, duration_s=duration_s, measure_from_s=measure_from_s)


def _flows(result: SimulationResult) -> dict[str, FlowSummary]:
    return {flow.tenant: flow for flow in summarise(result).flows}


def _served(result: SimulationResult) -> set[str]:
    return {name for flow in summarise(result).flows for name in flow.figures.outcomes}


def _p99_wait_s(result: SimulationResult, tenant: str) -> float:
    return _flows(result)[tenant].figures.wait_s.p99


def _queued(result: SimulationResult, priority: int, between_s: Sequence[float]) -> float:
    first, last = np.searchsorted(result.timeline.time_s, between_s)
    return float(result.timeline.queued[priority][first:last].mean())


@pytest.mark.parametrize(
    ("name", "duration_s"),
    [("noisy-neighbour-prompt-heavy", 1200.0), ("noisy-neighbour-output-heavy", 2400.0)],
)
def test_a_noisy_neighbour_gets_its_share_and_no_more(name: str, duration_s: float) -> None:
    scenario = _shortened(name, duration_s)

    def run(policy: PolicyName) -> tuple[float, float]:
        result = simulate(scenario, policy)
        assert _served(result) == {"served"}
        heavy_and_light = [f for f in backlogged_flows(result) if f.tenant != "interactive"]
        assert [flow.tenant for flow in heavy_and_light] == ["heavy", "light"]
        service = summarise(result).service
        ratio, _ = evenness(service, scenario.weights, heavy_and_light)
        return ratio, _p99_wait_s(result, "interactive")

    fair_ratio, fair_wait_s = run("weighted-fair")
    oracle_ratio, oracle_wait_s = run("oracle")
    assert min(fair_ratio, oracle_ratio) > 0.97
    assert fair_wait_s < 2.0 * oracle_wait_s
    for policy in ("round-robin", "global-strict"):
        ratio, wait_s = run(policy)
        assert ratio < 0.2
        assert wait_s > 4.0 * fair_wait_s


def test_urgent_requests_wait_for_free_slots_only() -> None:
    result = simulate(_shortened("priority-burst", 400.0))
    flows = _flows(result)
    assert _served(result) == {"served"}
    urgent, normal, batch = flows["urgent"], flows["normal"], flows["batch"]
    assert urgent.figures.served == 400
    # 400 requests of about 13 seconds of a slot each, at 128 slots that are shared with nobody.
    assert urgent.figures.wait_s.p99 < 40.0
    assert normal.figures.wait_s.p50 < 0.3
    assert batch.figures.wait_s.p50 > 10.0


def test_batch_work_trickles() -> None:
    scenario = _shortened("batch-trickle", 300.0)
    result = simulate(scenario)
    flows = _flows(result)
    dispatched = {name: flow.figures.requests for name, flow in flows.items()}
    assert dispatched["batch"] / sum(dispatched.values()) == pytest.approx(0.05, abs=0.01)
    none = msgspec.structs.replace(scenario, flow=msgspec.structs.replace(scenario.flow, bands={}))
    assert summarise(simulate(none)).service["batch"] == 0.0


def test_requests_wait_for_the_first_engine() -> None:
    result = simulate(read_scenario("scale-from-zero"))
    early = _flows(result)["early"].figures
    assert early.outcomes["served"] > 0.9 * early.requests
    first = result.requests.arrived_s < 19.0
    impatient = first & (result.requests.tenant == result.tenants.index("impatient"))
    names = {result.outcomes[index] for index in result.requests.outcome[impatient]}
    assert names == {"expired-no-endpoints"}
    dispatched_s = result.requests.dispatched_s
    assert np.nanmin(dispatched_s) == 40.0
    # The first engine is filled up to its limit, and not with all that waits.
    assert (dispatched_s == 40.0).sum() == 32
    assert _queued(result, 0, (41.0, 80.0)) > 50


@pytest.mark.parametrize("name", ["slow-endpoint", "metrics-outage", "heterogeneous-gpus"])
def test_all_are_served_whatever_the_engines_are(name: str) -> None:
    result = simulate(_shortened(name, 400.0))
    assert _served(result) == {"served"}


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_clients_that_obey_retry_after_are_served_within_three_tries(seed: int) -> None:
    result = simulate(read_scenario("overload-retry"), seed=seed)
    assert _served(result) == {"served"}
    assert _flows(result)["burst"].figures.requests > 4000
    assert result.requests.tries.max() > 1
    assert served_within(result, 3) >= 0.95
    burst = result.requests.tenant == result.tenants.index("burst")
    assert np.mean(result.requests.tries[burst] <= 3) >= 0.95
    # And the pool has not stood idle meanwhile.
    busy = (result.timeline.time_s > 70.0) & (result.timeline.time_s < 400.0)
    assert np.mean(result.timeline.in_flight[busy]) > 0.95 * 128
