import numpy as np
import pytest

from epp.core.pool import Pool
from epp.core.request import WAIT_OUTCOMES, Outcome
from epp.core.resources import Endpoint
from epp.simulation.recording import PoolSamples, RequestLog, service_curve
from epp.simulation.result import OUTCOMES


def test_service_is_even_from_its_begin_to_its_end() -> None:
    grid = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 10.0])
    begin, end, cost = np.array([1.0, 0.5]), np.array([3.0, 2.5]), np.array([10.0, 4.0])
    curve = service_curve(begin, end, cost, grid)
    assert curve == pytest.approx([0.0, 1.0, 8.0, 14.0, 14.0, 14.0])


def test_service_in_no_time_and_none_at_all() -> None:
    grid = np.array([0.0, 1.0, 2.0])
    at_once = service_curve(np.array([1.0]), np.array([1.0]), np.array([5.0]), grid)
    assert at_once == pytest.approx([0.0, 5.0, 5.0])
    none = np.empty(0)
    assert service_curve(none, none, none, grid) == pytest.approx([0.0, 0.0, 0.0])


def test_service_adds_up_as_if_each_request_were_looked_at() -> None:
    rng = np.random.default_rng(1)
    grid = np.linspace(0.0, 100.0, 57)
    begin = rng.uniform(0.0, 90.0, 500)
    end = begin + rng.exponential(10.0, 500)
    cost = rng.uniform(1.0, 1000.0, 500)
    parts = np.clip((grid[:, None] - begin) / (end - begin), 0.0, 1.0) * cost
    assert service_curve(begin, end, cost, grid) == pytest.approx(parts.sum(axis=1))


def test_a_row_tells_the_life_of_a_request() -> None:
    log = RequestLog()
    served, refused, waiting = (log.arrived(2, 5, 100, 10, now) for now in (1.0, 2.0, 3.0))
    for row, now in ((served, 1.0), (refused, 2.0), (refused, 8.0), (waiting, 3.0)):
        log.entered(row, now)
    log.dispatched(served, 3, 4.0)
    log.began(served, 64, 5.0)
    assert log.since_dispatch_s(served, 7.0) == (3.0, 1.0)
    log.served(served, 7.0)
    log.refused(refused, Outcome.EXPIRED, 9.0)
    table = log.table()
    assert len(table) == 3
    assert table.tenant.tolist() == [2, 2, 2]
    assert table.priority.tolist() == [5, 5, 5]
    assert table.prompt_tokens.tolist() == [100, 100, 100]
    assert table.output_tokens.tolist() == [10, 10, 10]
    assert table.tries.tolist() == [1, 2, 1]
    assert table.endpoint.tolist() == [3, -1, -1]
    assert table.cached_tokens.tolist() == [64, 0, 0]
    assert table.arrived_s.tolist() == [1.0, 2.0, 3.0]
    assert table.entered_s.tolist() == [1.0, 8.0, 3.0]
    assert table.dispatched_s == pytest.approx([4.0, np.nan, np.nan], nan_ok=True)
    assert table.first_token_s == pytest.approx([5.0, np.nan, np.nan], nan_ok=True)
    assert table.ended_s == pytest.approx([7.0, 9.0, np.nan], nan_ok=True)
    assert [OUTCOMES[index] for index in table.outcome] == ["served", "expired", "unfinished"]


def test_every_outcome_that_a_request_can_have_has_a_name() -> None:
    never = {Outcome.DISPATCHED, Outcome.CANCELLED, Outcome.SHUTTING_DOWN}
    assert {outcome.value for outcome in WAIT_OUTCOMES if outcome not in never} <= set(OUTCOMES)


def test_samples_have_a_value_for_every_band_at_every_time() -> None:
    pool = Pool(max_concurrency=4)
    pool.apply([Endpoint(name="n/a", address="10.0.0.1", port=80)])
    queues = [{0: 1}, {0: 2, 7: 5}, {0: 0, 7: 4}]
    samples = PoolSamples(pool, lambda: queues[len(taken)], lambda: (3, 2))
    taken: list[float] = []
    for time_s in (0.0, 1.0, 2.0):
        samples.take(time_s)
        taken.append(time_s)
        pool.lease(0)
    timeline = samples.timeline(lambda time_s: {"a": time_s * 2})
    assert timeline.time_s.tolist() == taken
    assert {each: column.tolist() for each, column in timeline.queued.items()} == {
        0: [1.0, 2.0, 0.0],
        7: [0.0, 5.0, 4.0],
    }
    assert timeline.in_flight.tolist() == [0.0, 1.0, 2.0]
    assert timeline.limit.tolist() == [4.0, 4.0, 4.0]
    assert timeline.engine_waiting.tolist() == [3.0, 3.0, 3.0]
    assert timeline.engine_running.tolist() == [2.0, 2.0, 2.0]
    assert timeline.served_cost["a"].tolist() == [0.0, 2.0, 4.0]
