from epp.core.flow import FlowLimits, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions
from epp.modelserver.engine import EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.simulation.result import OUTCOMES, SimulationResult
from epp.simulation.scenario import EndpointGroup, Poisson, Scenario, Tenant

__all__ = ["ONE_TOKEN_PER_S", "outcomes", "scenario", "tenant"]

ONE_TOKEN_PER_S = EngineOptions(
    max_num_seqs=2,
    latency=LatencyModel(prefill_tokens_per_s=1e9, decode_step_s=1.0, decode_step_per_seq_s=0.0),
)
"""Two sequences at a time, a token a second for each, prompts for nothing."""


def tenant(name: str = "a", **options: object) -> Tenant:
    given: dict[str, object] = {"arrivals": Poisson(rate_per_s=1.0), **options}
    return Tenant(name=name, **given)  # type: ignore[arg-type]


def scenario(*tenants: Tenant, **options: object) -> Scenario:
    given: dict[str, object] = {
        "name": "test",
        "duration_s": 100.0,
        "pool": (EndpointGroup(name="gpu", engine=ONE_TOKEN_PER_S),),
        "saturation": ConcurrencyOptions(max_requests=2),
        "flow": FlowOptions(limits=FlowLimits(wait_limit_s=None)),
        **options,
    }
    return Scenario(tenants=tenants, **given)  # type: ignore[arg-type]


def outcomes(result: SimulationResult) -> dict[str, int]:
    names = [OUTCOMES[index] for index in result.requests.outcome]
    return {name: names.count(name) for name in dict.fromkeys(names)}
