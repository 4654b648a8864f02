"""Conversations on their way through a whole simulation."""

import numpy as np
import pytest

from epp.core.flow import FlowLimits, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions
from epp.modelserver.engine import EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.simulation.result import Floats, SimulationResult
from epp.simulation.scenario import (
    Adapters,
    Burst,
    Chat,
    ClosedLoop,
    EndpointGroup,
    Poisson,
    RandomText,
    Scenario,
    SharedPrefix,
)
from epp.simulation.simulation import Simulation, simulate
from tests.simulation.support import scenario, tenant

_ENGINE = EngineOptions(latency=LatencyModel(prefill_tokens_per_s=1000.0))


def _of(*, engines: int = 1, **options: object) -> Scenario:
    return scenario(
        tenant(**options),
        pool=(EndpointGroup(name="gpu", count=engines, engine=_ENGINE),),
        saturation=ConcurrencyOptions(max_requests=32),
    )


def _ttft_s(result: SimulationResult) -> Floats:
    return result.requests.first_token_s - result.requests.arrived_s


def test_a_chat_goes_on_when_it_is_answered_and_finds_what_it_has_said() -> None:
    content = Chat(turns=4, think_s=0.0, prefix_tokens=480)
    chat = _of(arrivals=Burst(size=1), prompt_tokens=1000, output_tokens=40, content=content)
    requests = simulate(chat).requests
    assert requests.prompt_tokens.tolist() == [1480, 2520, 3560, 4600]
    assert requests.arrived_s[1:].tolist() == requests.ended_s[:-1].tolist()
    # Whole blocks of all that was computed before: the last token of an answer never is.
    assert requests.cached_tokens.tolist() == [0, 1504, 2544, 3584]


def test_who_thinks_comes_later() -> None:
    content = Chat(turns=50, think_s=5.0)
    requests = simulate(_of(arrivals=Burst(size=1), output_tokens=1, content=content)).requests
    pauses_s = requests.arrived_s[1:] - requests.ended_s[:-1]
    assert len(pauses_s) > 10
    assert pauses_s.mean() == pytest.approx(5.0, rel=0.5)
    assert requests.arrived_s.max() < 100.0


def test_a_closed_loop_begins_another_chat_when_one_is_over() -> None:
    content = Chat(turns=3, think_s=0.0, prefix_tokens=100)
    arrivals = ClosedLoop(clients=2, think_s=1.0)
    of = _of(arrivals=arrivals, prompt_tokens=50, output_tokens=10, content=content)
    lengths = simulate(of).requests.prompt_tokens
    assert set(lengths.tolist()) == {150, 210, 270}
    assert len(lengths) > 60


def test_a_chat_that_is_refused_is_over() -> None:
    content = Chat(turns=3, think_s=0.0)
    of = _of(arrivals=Burst(size=5), output_tokens=1, content=content, wait_limit_s=1.0)
    no_room = scenario(
        *of.tenants,
        pool=(EndpointGroup(name="gpu", join_s=50.0),),
        flow=FlowOptions(limits=FlowLimits(no_endpoint_wait_limit_s=1.0)),
    )
    requests = simulate(no_room).requests
    assert len(requests) == 5
    assert {simulate(no_room).outcomes[index] for index in requests.outcome} == {
        "expired-no-endpoints"
    }


def test_adapters_are_models_to_the_router_and_take_slots_in_the_engines() -> None:
    of = _of(
        arrivals=Poisson(rate_per_s=3.0),
        model="base",
        content=RandomText(),
        adapters=Adapters(count=3),
    )
    simulation = Simulation(of, "configured", 1)
    seen: set[str] = set()
    resolve = simulation.router.resolve

    def note(claims: object) -> object:
        request = resolve(claims)  # type: ignore[arg-type]
        seen.add(request.model)
        assert len(request.prefix) == 8 * (request.prompt_tokens // 64)
        return request

    simulation.router.resolve = note  # type: ignore[assignment, method-assign]
    simulation.run()
    assert seen == {"a-adapter-0", "a-adapter-1", "a-adapter-2"}


def test_where_it_goes_and_what_it_found_is_noted() -> None:
    content = SharedPrefix(prefixes=1, prefix_tokens=1600)
    of = _of(engines=2, arrivals=Poisson(rate_per_s=1.0), output_tokens=1, content=content)
    result = simulate(of, routing="round-robin")
    requests = result.requests
    assert requests.endpoint.tolist() == [number % 2 for number in range(len(requests))]
    assert requests.cached_tokens[:2].tolist() == [0, 0]
    assert set(requests.cached_tokens[2:].tolist()) == {1600}
    assert np.median(_ttft_s(result)[2:]) < 0.6 < 1.6 < _ttft_s(result)[:2].min()
    other = simulate(of, routing="oracle-hits").requests
    assert len(set(other.endpoint.tolist())) == 1
    assert np.array_equal(other.arrived_s, requests.arrived_s)
