import msgspec
import numpy as np
import pytest

from epp.core.flow.saturation import ConcurrencyOptions
from epp.simulation.backlog import backlogged_flows, evenness, served_within
from epp.simulation.scenario import ClosedLoop, Constant
from epp.simulation.simulation import simulate
from epp.simulation.summary import FlowName
from tests.simulation.support import scenario, tenant


def test_who_always_has_something_waiting_is_backlogged() -> None:
    busy = tenant("busy", arrivals=ClosedLoop(clients=9), output_tokens=5)
    low = tenant("low", arrivals=ClosedLoop(clients=2), output_tokens=5, priority=-1)
    light = tenant("light", arrivals=Constant(rate_per_s=0.05), output_tokens=5)
    late = tenant("late", arrivals=ClosedLoop(clients=9), output_tokens=5, start_s=50.0)
    result = simulate(scenario(busy, low, light, late))
    assert backlogged_flows(result) == (FlowName("busy", 0), FlowName("low", -1))
    after = msgspec.structs.replace(result, measure_from_s=51.0)
    assert FlowName("late", 0) in backlogged_flows(after)


def test_evenness_is_of_the_service_by_weight_within_a_priority() -> None:
    service = {"a": 30.0, "b": 10.0, "c": 500.0, "d": 0.0}
    flows = [FlowName("a", 0), FlowName("b", 0), FlowName("c", 1)]
    assert evenness(service, {}, flows) == pytest.approx((1 / 3, 0.8))
    assert evenness(service, {"a": 3.0}, flows) == pytest.approx((1.0, 1.0))
    worst = evenness(service, {"a": 3.0}, [*flows, FlowName("d", 1)])
    assert worst == pytest.approx((0.0, 0.5))
    for nothing in ([], [FlowName("a", 0)], [FlowName("d", 0), FlowName("d", 0)]):
        assert np.isnan(evenness(service, {}, nothing)).all()


def test_served_within_counts_those_that_were_served_in_so_many_tries() -> None:
    result = simulate(
        scenario(
            tenant(arrivals=Constant(rate_per_s=1.0), output_tokens=1),
            saturation=ConcurrencyOptions(max_requests=100),
        )
    )
    tries = np.array([1, 2, 3, 4] * 25, dtype=np.int32)
    outcome = np.where(np.arange(100) < 50, 0, 1).astype(np.int32)
    requests = msgspec.structs.replace(result.requests, tries=tries, outcome=outcome)
    changed = msgspec.structs.replace(result, requests=requests)
    assert served_within(changed, 4) == 0.5
    assert served_within(changed, 3) == pytest.approx(0.38)
    assert np.isnan(served_within(msgspec.structs.replace(changed, measure_from_s=1e9), 3))
