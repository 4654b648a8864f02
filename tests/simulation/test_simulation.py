import itertools

import msgspec
import numpy as np
import pytest

from epp.core.flow import BandOptions, CostOptions, FlowLimits, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions
from epp.core.gate import Admission, Ending
from epp.core.pool import EngineLoad
from epp.modelserver.engine import EngineOptions
from epp.simulation.result import OUTCOMES, SimulationResult
from epp.simulation.scenario import (
    Burst,
    ClosedLoop,
    Constant,
    EndpointGroup,
    Lognormal,
    Poisson,
    Retries,
    Scenario,
    Scrapes,
    Window,
)
from epp.simulation.simulation import Simulation, simulate
from epp.simulation.trace import Trace, TraceRow
from tests.simulation.support import ONE_TOKEN_PER_S, outcomes, scenario, tenant


def _bytes(result: SimulationResult) -> bytes:
    columns = [*msgspec.structs.asdict(result.requests).values()]
    columns += [result.timeline.time_s, result.timeline.in_flight, result.timeline.limit]
    columns += [result.timeline.engine_waiting, result.timeline.engine_running]
    columns += [*result.timeline.queued.values(), *result.timeline.served_cost.values()]
    return b"".join(column.tobytes() for column in columns)


def _busy(requests: int, endpoints: int, **options: object) -> Scenario:
    """More than the pool can serve for a while, from six tenants in three bands, with retries."""
    rate_per_s = 6.0 * endpoints
    tenants = [
        tenant(
            f"t{number}",
            arrivals=Poisson(rate_per_s=rate_per_s / 6),
            prompt_tokens=Lognormal(mean=500),
            output_tokens=Lognormal(mean=150),
            priority=number % 3 - 1,
            retries=Retries(max_tries=1 + number % 2),
        )
        for number in range(6)
    ]
    return scenario(
        *tenants,
        duration_s=requests / rate_per_s,
        pool=(
            EndpointGroup(name="stays", count=endpoints - endpoints // 10),
            EndpointGroup(name="leaves", count=endpoints // 10, leave_s=10.0),
        ),
        saturation=ConcurrencyOptions(max_requests=32),
        flow=FlowOptions(limits=FlowLimits(wait_limit_s=5.0, max_requests=600)),
        **options,
    )


def test_every_request_is_served_or_refused_once_and_nothing_is_left() -> None:
    simulation = Simulation(_busy(20_000, 100), "weighted-fair", seed=1)
    told: dict[int, int] = {}
    finish = simulation.router.finish

    def finished(admission: object, ending: Ending, now: float) -> None:
        told[id(admission)] = told.get(id(admission), 0) + 1
        finish(admission, ending, now)  # type: ignore[arg-type]

    simulation.router.finish = finished  # type: ignore[assignment]
    result = simulation.run()
    requests = result.requests
    served = requests.outcome == OUTCOMES.index("served")
    assert len(requests) == pytest.approx(20_000, rel=0.05)
    assert sum(told.values()) == served.sum()
    assert "unfinished" not in outcomes(result)
    assert 0.1 < served.mean() < 1.0  # some are refused: it is too much for the pool
    # Who was served has all times, in order; who was refused has no more than its end.
    times = [requests.arrived_s, requests.entered_s, requests.dispatched_s]
    times += [requests.first_token_s, requests.ended_s]
    for earlier, later in itertools.pairwise(times):
        assert (earlier[served] <= later[served]).all()
    assert np.isnan(requests.dispatched_s[~served]).all()
    assert (requests.ended_s[~served] >= requests.arrived_s[~served]).all()
    assert (requests.dispatched_s - requests.entered_s)[served].max() <= 5.0
    assert requests.tries.max() == 2
    # At rest.
    router = simulation.router
    assert router.pool.total_in_flight == 0
    assert (router.flow.requests, router.flow.bytes) == (0, 0)
    assert all(not (band.requests or band.cost or band.running) for band in router.flow.bands())
    assert len(simulation.timers) == 0
    assert simulation.fleet.loads() == (0, 0)
    # All that was paid for was served, and the samples know the pool's limits.
    tokens = (requests.prompt_tokens + 2 * requests.output_tokens)[served].sum()
    costs = result.timeline.served_cost
    assert sum(curve[-1] for curve in costs.values()) == pytest.approx(tokens)
    assert all((np.diff(curve) > -1e-3).all() for curve in costs.values())
    assert result.timeline.limit.max() == 100 * 32
    assert result.timeline.limit[-1] == 90 * 32
    stays = result.timeline.time_s < 10.0
    assert (result.timeline.in_flight <= result.timeline.limit)[stays].all()


def test_one_seed_gives_the_same_to_the_byte_and_another_does_not() -> None:
    busy = _busy(1_000, 10)
    results = [simulate(busy, "weighted-fair", seed) for seed in (1, 1, 2)]
    assert _bytes(results[0]) == _bytes(results[1])
    assert _bytes(results[0]) != _bytes(results[2])
    assert [result.seed for result in results] == [1, 1, 2]


def test_tenants_ask_for_the_same_under_every_policy() -> None:
    busy = _busy(1_000, 10)
    fair, strict = (simulate(busy, policy).requests for policy in ("weighted-fair", "oracle"))
    assert fair.arrived_s.tolist() == strict.arrived_s.tolist()
    assert fair.output_tokens.tolist() == strict.output_tokens.tolist()


def test_a_closed_loop_keeps_its_clients_busy() -> None:
    one = tenant(arrivals=ClosedLoop(clients=3, think_s=1.0), prompt_tokens=1, output_tokens=9)
    result = simulate(
        scenario(one, pool=(EndpointGroup(name="gpu", count=2, engine=ONE_TOKEN_PER_S),))
    )
    # Nine seconds for the answer and one to think, for 100 seconds.
    assert len(result.requests) == pytest.approx(30, abs=3)
    assert outcomes(result) == {"served": len(result.requests)}


def test_a_client_that_was_refused_for_good_goes_on_when_it_was_advised_to() -> None:
    loop = tenant(
        arrivals=ClosedLoop(clients=4), prompt_tokens=1, output_tokens=50, wait_limit_s=1.0
    )
    result = simulate(scenario(loop))
    refused = result.requests.ended_s[result.requests.outcome != OUTCOMES.index("served")]
    assert 2 <= len(refused) <= 200  # a second each at the least
    assert result.end_s < 200.0


def test_a_tenant_sends_from_its_start_to_its_stop() -> None:
    some = tenant(arrivals=Constant(rate_per_s=1.0), start_s=10.0, stop_s=20.0, output_tokens=1)
    loop = tenant("b", arrivals=ClosedLoop(clients=1), start_s=30.0, stop_s=40.0, output_tokens=1)
    arrived_s = simulate(scenario(some, loop)).requests.arrived_s
    assert arrived_s[:10].tolist() == [10.0 + number for number in range(10)]
    assert arrived_s[10] == 30.0
    assert 39.0 <= arrived_s[-1] < 40.0


def test_lengths_are_cut_to_what_a_request_may_have_and_an_engine_holds() -> None:
    small = EngineOptions(num_kv_blocks=8, block_size=16)
    pool = (EndpointGroup(name="gpu", engine=small),)
    limited = tenant(max_tokens=5, output_tokens=50, prompt_tokens=10)
    long = tenant("b", output_tokens=500, prompt_tokens=500)
    far = tenant("c", output_tokens=500, max_tokens=400)
    requests = simulate(scenario(limited, long, far, pool=pool)).requests
    assert set(requests.output_tokens[requests.tenant == 0].tolist()) == {5}
    assert set(requests.output_tokens[requests.tenant == 1].tolist()) == {127}
    assert set(requests.prompt_tokens[requests.tenant == 1].tolist()) == {1}
    assert set(requests.output_tokens[requests.tenant == 2].tolist()) == {127}


def test_clients_come_back_when_they_were_told_to_or_when_they_like() -> None:
    def tries(retries: Retries) -> SimulationResult:
        burst = tenant(arrivals=Burst(size=20), output_tokens=10, wait_limit_s=0.5, retries=retries)
        return simulate(scenario(burst))

    once = tries(Retries())
    assert outcomes(once)["served"] == 2
    assert set(once.requests.tries.tolist()) == {1}
    impatient = tries(Retries(max_tries=3, obey_retry_after=False, delay_s=0.25)).requests
    turned_away = impatient.tries == 3
    assert turned_away.sum() >= 16
    waited_s = impatient.entered_s[turned_away] - impatient.arrived_s[turned_away]
    assert waited_s.max() <= 2 * (0.5 + 0.25) + 1e-9
    obedient = tries(Retries(max_tries=50))
    assert outcomes(obedient) == {"served": 20}
    delays_s = obedient.requests.entered_s - obedient.requests.arrived_s
    assert delays_s.max() > 10.0


def test_endpoints_join_and_leave_and_finish_what_they_run() -> None:
    pool = (
        EndpointGroup(name="early", engine=ONE_TOKEN_PER_S, leave_s=50.0),
        EndpointGroup(name="late", engine=ONE_TOKEN_PER_S, join_s=80.0),
    )
    burst = tenant(arrivals=Burst(size=6), prompt_tokens=1, output_tokens=40)
    result = simulate(scenario(burst, pool=pool))
    dispatched_s = sorted(result.requests.dispatched_s.tolist())
    assert dispatched_s[:2] == [0.0, 0.0]
    assert dispatched_s[2:4] == pytest.approx([40.0, 41.0])
    assert dispatched_s[4:] == pytest.approx([80.0, 80.0])  # and none at the one that left
    assert outcomes(result) == {"served": 6}


def test_nobody_is_there_and_the_budget_for_that_is_over() -> None:
    pool = (EndpointGroup(name="late", engine=ONE_TOKEN_PER_S, join_s=30.0),)
    early = tenant(arrivals=Burst(size=1), output_tokens=1)
    impatient = tenant("b", arrivals=Burst(size=1), output_tokens=1, wait_limit_s=20.0)
    flow = FlowOptions(limits=FlowLimits(no_endpoint_wait_limit_s=60.0))
    result = simulate(scenario(early, impatient, pool=pool, flow=flow))
    assert outcomes(result) == {"served": 1, "expired-no-endpoints": 1}
    assert result.requests.dispatched_s[0] == 30.0
    assert result.requests.ended_s[1] == 20.0


def test_a_slow_group_takes_longer() -> None:
    pool = (EndpointGroup(name="slow", engine=ONE_TOKEN_PER_S, slow_factor=4.0),)
    once = tenant(arrivals=Burst(size=1), output_tokens=5)
    assert simulate(scenario(once, pool=pool)).end_s == pytest.approx(100.0)
    requests = simulate(scenario(once, pool=pool)).requests
    assert requests.ended_s[0] == pytest.approx(20.0, abs=1e-3)


class _Scrapes:
    """What the router is told of the engines' loads."""

    def __init__(self, scrapes: Scrapes, **options: object) -> None:
        once = tenant(arrivals=Burst(size=3), prompt_tokens=1, output_tokens=10)
        pool = (
            EndpointGroup(name="a", engine=ONE_TOKEN_PER_S),
            EndpointGroup(name="b", engine=ONE_TOKEN_PER_S, join_s=5.0, leave_s=15.0),
        )
        simulation = Simulation(
            scenario(once, pool=pool, scrapes=scrapes, duration_s=20.0), "configured", 1
        )
        self.seen: list[tuple[str, float, EngineLoad]] = []
        scraped = simulation.router.scraped

        def note(destination: str, load: EngineLoad, now: float) -> None:
            self.seen.append((destination, now, load))
            scraped(destination, load, now)

        simulation.router.scraped = note  # type: ignore[assignment]
        simulation.run()

    def times_s(self, last: str) -> list[float]:
        return [now for destination, now, _ in self.seen if destination == f"10.0.0.{last}:8000"]


def test_loads_are_told_each_period_of_those_that_are_there() -> None:
    scrapes = _Scrapes(Scrapes(period_s=2.0))
    assert scrapes.times_s("1") == [2.0 * number for number in range(11)]
    assert scrapes.times_s("2") == [5.0, 7.0, 9.0, 11.0, 13.0]
    loads = {now: load for name, now, load in scrapes.seen if name == "10.0.0.1:8000"}
    assert (loads[4.0].waiting, loads[4.0].running) == (0, 2)
    assert loads[20.0] == EngineLoad(0, 0, 0.0, max_adapters=4, block_tokens=16, cache_blocks=4096)


def test_loads_may_come_late_or_not_at_all() -> None:
    outages = (Window(from_s=4.0, to_s=8.0), Window(from_s=12.0, to_s=14.0, groups=("b",)))
    scrapes = _Scrapes(Scrapes(period_s=2.0, delay_s=0.5, outages=outages))
    assert scrapes.times_s("1") == [0.5, 2.5, 8.5, 10.5, 12.5, 14.5, 16.5, 18.5]
    assert scrapes.times_s("2") == [9.5, 11.5]
    assert not _Scrapes(Scrapes(period_s=0.0)).seen


def test_service_in_slot_time_is_the_time_that_capacity_was_held() -> None:
    once = tenant(arrivals=Burst(size=2), output_tokens=10)
    flow = FlowOptions(cost=CostOptions(unit="slot-time"))
    result = simulate(scenario(once, flow=flow))
    held_s = (result.requests.ended_s - result.requests.dispatched_s).sum()
    assert result.timeline.served_cost["a"][-1] == pytest.approx(1000.0 * held_s)


def test_the_flow_control_hears_of_running_responses_where_they_are_seen() -> None:
    def told(progress_s: float) -> list[tuple[int, float]]:
        once = tenant(arrivals=Burst(size=1), output_tokens=8)
        simulation = Simulation(
            scenario(once, progress_s=progress_s, duration_s=12.0), "configured", 1
        )
        seen: list[tuple[int, float]] = []
        progress = simulation.router.progress

        def note(admission: Admission, output_tokens: int, now: float) -> None:
            seen.append((output_tokens, now))
            progress(admission, output_tokens, now)

        simulation.router.progress = note  # type: ignore[method-assign]
        simulation.run()
        return seen

    assert told(0.0) == []
    assert told(2.5) == [(2, 2.5), (4, 5.0), (7, 7.5)]


def test_what_is_in_the_system_when_the_drain_is_over_is_unfinished() -> None:
    burst = tenant(arrivals=Burst(size=3), output_tokens=200)
    result = simulate(scenario(burst, drain_s=10.0))
    assert outcomes(result) == {"unfinished": 3}
    assert np.isnan(result.requests.ended_s).all()
    assert np.isnan(result.requests.dispatched_s).sum() == 1
    assert result.end_s == 110.0


def test_weights_and_priorities_reach_the_flow_control() -> None:
    pool = (EndpointGroup(name="gpu", count=8, engine=ONE_TOKEN_PER_S),)
    loop = ClosedLoop(clients=40)
    tenants = [
        tenant("triple", arrivals=loop, weight=3.0, output_tokens=5, prompt_tokens=1),
        tenant("single", arrivals=loop, output_tokens=5, prompt_tokens=1),
        tenant("low", arrivals=loop, priority=-1, output_tokens=5, prompt_tokens=1),
    ]
    flow = FlowOptions(
        limits=FlowLimits(wait_limit_s=None), band=BandOptions(fairness="weighted-fair")
    )
    result = simulate(scenario(*tenants, pool=pool, flow=flow, duration_s=1000.0))
    served = result.timeline.served_cost
    # Not from the start: until lengths were learned, the estimates are far too high.
    window = np.searchsorted(result.timeline.time_s, (500.0, 1000.0))
    triple, single, low = (np.diff(served[name][window])[0] for name in served)
    assert triple / single == pytest.approx(3.0, rel=0.05)
    assert low == 0.0


def test_a_trace_is_sent_row_by_row() -> None:
    rows = [
        TraceRow(0.0, 5, 3, "x", 0),
        TraceRow(0.0, 6, 4, "y", 10),
        TraceRow(7.5, 7, 5, "x", 10),
        TraceRow(500.0, 7, 5, "z", 10),
    ]
    result = simulate(scenario(tenant()), trace=Trace("t", rows))
    requests = result.requests
    assert result.tenants == ["x", "y", "z"]
    assert requests.tenant.tolist() == [0, 1, 0]  # the last one comes after the end
    assert requests.priority.tolist() == [0, 10, 10]
    assert requests.arrived_s.tolist() == [0.0, 0.0, 7.5]
    assert requests.prompt_tokens.tolist() == [5, 6, 7]
    assert requests.output_tokens.tolist() == [3, 4, 5]
    assert outcomes(result) == {"served": 3}


def test_progress_is_told_from_nothing_to_all() -> None:
    told: list[float] = []
    simulate(scenario(tenant(output_tokens=1), sample_s=10.0), on_progress=told.append)
    assert told[0] == 0.0
    assert told == sorted(told)
    assert told[-1] == 1.0
