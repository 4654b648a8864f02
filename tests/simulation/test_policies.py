from epp.core.flow import BandOptions, CostOptions, FlowOptions
from epp.core.request import FlowKey, Request
from epp.simulation.policies import KnownLengths, flow_options
from epp.simulation.scenario import Scenario
from tests.simulation.support import tenant

_FLOW = FlowOptions(
    band=BandOptions(fairness="global-strict"),
    negative_band=BandOptions(fairness="round-robin", min_share=0.1),
    bands={5: BandOptions(max_wait_s=3.0)},
    weights={"b": 3.0},
)
_SCENARIO = Scenario(flow=_FLOW, tenants=(tenant("a", weight=2.0), tenant("c")))


def test_configured_is_what_the_scenario_says_with_the_weights_of_its_tenants() -> None:
    flow = flow_options(_SCENARIO, "configured")
    assert flow.weights == {"b": 3.0, "a": 2.0}
    assert (flow.band, flow.negative_band) == (_FLOW.band, _FLOW.negative_band)


def test_a_policy_holds_in_all_bands_and_changes_nothing_else() -> None:
    flow = flow_options(_SCENARIO, "round-robin")
    assert flow.band == BandOptions(fairness="round-robin")
    assert flow.negative_band == BandOptions(fairness="round-robin", min_share=0.1)
    assert flow.bands == {5: BandOptions(fairness="round-robin", max_wait_s=3.0)}
    assert flow_options(Scenario(), "round-robin").negative_band is None


def test_the_oracle_is_weighted_fair() -> None:
    assert flow_options(_SCENARIO, "oracle") == flow_options(_SCENARIO, "weighted-fair")


def test_the_oracle_estimates_what_it_will_be() -> None:
    costs = KnownLengths(CostOptions(), [10, 700])
    request = Request(flow=FlowKey(0, "a"), id="1", prompt_tokens=50)
    assert costs.output_tokens(request) == 700
    assert costs.estimate(request) == 50 + 2 * 700
