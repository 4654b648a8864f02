"""Results of simulations that never ran."""

from collections.abc import Sequence

import numpy as np

from epp.simulation.result import OUTCOMES, RequestTable, SimulationResult, Timeline

__all__ = ["busy", "made_up", "table", "timeline"]


def _outcome(name: str) -> int:
    return OUTCOMES.index(name)


def table(
    *,
    tenant: Sequence[int] = (),
    priority: Sequence[int] = (),
    arrived_s: Sequence[float] = (),
    entered_s: Sequence[float] | None = None,
    dispatched_s: Sequence[float] | None = None,
    first_token_s: Sequence[float] | None = None,
    outcomes: Sequence[str] | None = None,
    tries: Sequence[int] | None = None,
) -> RequestTable:
    """Return a table; what is not given is a request that was dispatched and served at once."""
    count = len(tenant)
    arrived = np.array(arrived_s, dtype=np.float64)
    entered = arrived if entered_s is None else np.array(entered_s, dtype=np.float64)
    dispatched = entered if dispatched_s is None else np.array(dispatched_s, dtype=np.float64)
    first = dispatched if first_token_s is None else np.array(first_token_s, dtype=np.float64)
    names = ["served"] * count if outcomes is None else outcomes
    return RequestTable(
        tenant=np.array(tenant, dtype=np.int32),
        priority=np.array(priority or [0] * count, dtype=np.int32),
        arrived_s=arrived,
        entered_s=entered,
        dispatched_s=dispatched,
        first_token_s=first,
        ended_s=first + 1.0,
        prompt_tokens=np.full(count, 100, dtype=np.int32),
        output_tokens=np.full(count, 10, dtype=np.int32),
        outcome=np.array([_outcome(name) for name in names], dtype=np.int32),
        tries=np.array(tries or [1] * count, dtype=np.int32),
        endpoint=np.zeros(count, dtype=np.int32),
        cached_tokens=np.zeros(count, dtype=np.int32),
    )


def timeline(
    time_s: Sequence[float] = (),
    *,
    served_cost: dict[str, Sequence[float]] | None = None,
    queued: dict[int, Sequence[float]] | None = None,
    in_flight: Sequence[float] | None = None,
    limit: Sequence[float] | None = None,
) -> Timeline:
    """Return the samples; what is not given is 0 all the time."""
    nothing = np.zeros(len(time_s))
    return Timeline(
        time_s=np.array(time_s, dtype=np.float64),
        queued={key: np.array(of, dtype=np.float64) for key, of in (queued or {}).items()},
        in_flight=nothing if in_flight is None else np.array(in_flight, dtype=np.float64),
        engine_waiting=nothing,
        engine_running=nothing,
        limit=nothing if limit is None else np.array(limit, dtype=np.float64),
        served_cost={
            key: np.array(of, dtype=np.float64) for key, of in (served_cost or {}).items()
        },
    )


def made_up(
    requests: RequestTable | None = None,
    samples: Timeline | None = None,
    *,
    scenario: str = "scenario",
    policy: str = "policy",
    seed: int = 1,
    duration_s: float = 100.0,
    measure_from_s: float = 0.0,
    tenants: Sequence[str] = ("alice", "bob"),
) -> SimulationResult:
    """Return a result; without requests and samples nothing has happened in it."""
    return SimulationResult(
        scenario=scenario,
        policy=policy,
        seed=seed,
        duration_s=duration_s,
        measure_from_s=measure_from_s,
        end_s=duration_s,
        tenants=list(tenants),
        outcomes=list(OUTCOMES),
        requests=table() if requests is None else requests,
        timeline=timeline() if samples is None else samples,
    )


def busy(
    *,
    scenario: str = "scenario",
    policy: str = "policy",
    seed: int = 1,
    requests: int = 400,
    samples: int = 300,
    tenants: Sequence[str] = ("alice", "bob"),
) -> SimulationResult:
    """Return a run with some of everything, the same for the same arguments."""
    rng = np.random.default_rng(seed)
    of_tenant = rng.integers(0, len(tenants), requests)
    arrived_s = np.sort(rng.uniform(0.0, 100.0, requests))
    dispatched_s = arrived_s + rng.exponential(1.0, requests)
    dispatched_s[rng.random(requests) < 0.1] = np.nan
    lost = np.isnan(dispatched_s)
    time_s = np.linspace(0.0, 110.0, samples)
    return made_up(
        table(
            tenant=of_tenant.tolist(),
            priority=(10 * (of_tenant % 2)).tolist(),
            arrived_s=arrived_s.tolist(),
            dispatched_s=dispatched_s.tolist(),
            first_token_s=(dispatched_s + 0.2).tolist(),
            outcomes=["expired" if is_lost else "served" for is_lost in lost.tolist()],
        ),
        timeline(
            time_s.tolist(),
            served_cost={name: (time_s * (1 + n)).tolist() for n, name in enumerate(tenants)},
            queued={10: rng.integers(0, 5, samples).tolist(), 0: [20.0] * samples},
            in_flight=rng.integers(20, 30, samples).tolist(),
            limit=[32.0] * samples,
        ),
        scenario=scenario,
        policy=policy,
        seed=seed,
        tenants=tenants,
    )
