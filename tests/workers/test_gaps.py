"""Single stories of workers whose core goes, and of the next one."""

import pytest

from epp.core.request import Outcome
from epp.workers.messages import Stats

from ..core.support import destination, resources
from .world import GAP_S, OBJECTIVES, run_all, world

# ---- cores come and go ----


def test_a_new_core_adopts_what_runs_before_it_decides_on_anything() -> None:
    it = world(2)
    running = it.workers[1].admit()
    it.settle()
    it.kill_core()
    newcomer = it.workers[0].admit("urgent")
    it.start_core()
    it.workers[0].connect()
    it.settle()
    assert newcomer.is_waiting, "the endpoint is taken, by a request that the core does not know"
    late = it.workers[0].admit("urgent")
    it.settle()
    it.workers[1].connect()
    it.settle()
    assert it.router.pool.total_in_flight == 1
    assert newcomer.is_waiting
    assert run_all(it, running, newcomer, late) == [running, newcomer, late]


def test_a_new_core_does_not_wait_for_a_missing_worker_for_long() -> None:
    it = world(2)
    it.kill_core()
    it.start_core()
    it.workers[0].connect()
    request = it.workers[0].admit()
    it.settle()
    it.advance(0.99)
    it.settle()
    assert request.is_waiting
    it.advance(0.02)
    it.settle()
    assert request.is_running


def test_what_waits_goes_on_in_order_of_priority_and_arrival_at_a_new_core() -> None:
    it = world(2)
    running = it.workers[0].admit()
    it.settle()
    waiting = []
    for number, objective in enumerate(["batch", "urgent", "batch", "urgent", "batch"]):
        it.advance(0.1)
        waiting.append(it.workers[number % 2].admit(objective))
    it.settle()
    it.kill_core()
    it.workers[0].leave(running)  # so that the first that is offered is dispatched at once
    it.advance(0.1)
    it.start_core()
    it.workers[1].connect()
    it.workers[0].connect()
    it.settle()
    ended = run_all(it, *waiting)
    assert ended == [waiting[n] for n in (1, 3, 0, 2, 4)]


def test_a_wait_goes_on_where_it_was_at_a_new_core() -> None:
    it = world(1, wait_limit_s=10.0)
    running = it.workers[0].admit()
    first, second = it.workers[0].admit(), it.workers[0].admit()
    it.settle()
    it.advance(9.0)
    it.kill_core()
    it.start_core()
    it.workers[0].connect()
    it.settle()
    it.workers[0].leave(running)
    it.settle()
    assert first.waited_s == pytest.approx(9.0)
    it.advance(0.99)
    it.settle()
    assert second.is_waiting
    it.advance(0.02)
    it.settle()
    assert second.outcome is Outcome.EXPIRED


def test_what_is_withdrawn_while_a_core_gathers_is_not_offered() -> None:
    it = world(2)
    it.kill_core()
    request = it.workers[0].admit()
    it.start_core()
    it.workers[0].connect()
    it.settle()
    it.workers[0].leave(request)
    it.settle()
    it.workers[1].connect()
    it.settle()
    assert it.core is not None
    assert not it.core.recorder.outcomes


def test_more_may_be_adopted_than_the_limit_and_then_nothing_goes_until_there_is_room() -> None:
    it = world(1, 1, 2)
    requests = [it.workers[0].admit() for _ in range(2)]
    it.settle()
    it.resources = resources([1], OBJECTIVES)
    assert it.core is not None
    it.core.apply(it.resources, it.now)
    it.settle()
    it.kill_core()
    it.start_core()
    it.workers[0].connect()
    it.settle()
    assert it.router.pool.total_in_flight == 2, "also where the endpoint has left the pool"
    waiting = it.workers[0].admit()
    it.settle()
    assert waiting.is_waiting
    for request in requests:
        it.workers[0].leave(request)
    it.settle()
    assert waiting.is_running
    it.workers[0].leave(waiting)
    it.settle()
    assert it.router.pool.total_in_flight == 0


# ---- no core ----


def test_without_a_core_requests_wait_and_then_the_worker_decides() -> None:
    it = world(2, 1, 2, limit=4)
    it.workers[0].admit()
    it.settle()
    it.kill_core()
    newcomers = [it.workers[0].admit() for _ in range(3)]
    passing = it.workers[0].pass_by()
    it.advance(GAP_S - 0.01)
    assert all(request.is_waiting for request in [*newcomers, passing])
    it.advance(0.02)
    assert all(request.is_running for request in newcomers)
    assert passing.has_passed
    assert it.workers[0].pass_by().has_passed
    everything = [request.destination for request in it.workers[0].requests[:4]]
    assert sorted(everything) == [destination(1)] * 2 + [destination(2)] * 2, "the least loaded"


def test_alone_a_worker_keeps_to_priority_and_to_its_share_of_the_limits() -> None:
    it = world(2, 1, limit=3)
    running = it.workers[0].admit()
    it.settle()
    it.kill_core()
    batch = [it.workers[0].admit("batch") for _ in range(2)]
    urgent = [it.workers[0].admit("urgent") for _ in range(2)]
    it.advance(GAP_S)
    share = 2  # of three, for two workers
    assert [r.is_running for r in (running, *urgent)] == [True] * share + [False]
    it.workers[0].leave(running)
    assert [request.is_running for request in urgent] == [True, True]
    it.workers[0].leave(urgent[0])
    it.workers[0].leave(urgent[1])
    assert all(request.is_running for request in batch)
    for request in batch:
        it.workers[0].leave(request)
    stats = it.workers[0].counts.take(0)
    assert (stats.degraded_picks, stats.degraded_refusals) == (4, {})


def test_alone_a_worker_follows_who_really_serves() -> None:
    it = world(1, 1, 2)
    it.kill_core()
    it.advance(GAP_S)
    first = it.workers[0].admit()
    other = destination(2) if first.destination == destination(1) else destination(1)
    it.workers[0].served_by(first, other)
    assert it.workers[0].admit().destination == first.destination
    it.start_core()
    it.workers[0].connect()
    it.settle()
    assert [in_flight for _, in_flight, _ in it.router.pool] == [1, 1]


def test_a_core_that_is_back_takes_over_what_the_worker_has_decided() -> None:
    it = world(1)
    it.kill_core()
    running, waiting = it.workers[0].admit(), it.workers[0].admit()
    it.advance(GAP_S + 3.0)
    assert running.is_running
    assert waiting.is_waiting
    it.start_core()
    it.workers[0].connect()
    it.settle()
    assert it.router.pool.total_in_flight == it.router.flow.requests == 1
    assert len(it.timers) == 1, "the wait is timed by the core alone"
    it.workers[0].leave(running)
    it.settle()
    assert waiting.is_running
    stats = it.workers[0].counts.take(7)
    assert (stats.open_streams, stats.degraded_picks) == (7, 1)
    assert stats.degraded_s == pytest.approx(GAP_S + 3.0)
    assert it.workers[0].counts.take(7) == Stats(7, {}, {}, {}, 0.0, 0, {})


def test_a_wait_that_ends_without_a_core_is_counted_when_there_is_one() -> None:
    it = world(1, wait_limit_s=5.0)
    it.workers[0].admit()
    waiting = it.workers[0].admit()
    it.settle()
    it.kill_core()
    it.advance(6.0)
    assert waiting.outcome is Outcome.EXPIRED
    it.start_core()
    it.workers[0].connect()
    it.settle()
    assert it.workers[0].counts.take(0).degraded_refusals == {Outcome.EXPIRED: 1}


def test_no_more_waits_for_a_core_than_may_wait_at_it() -> None:
    it = world(1, max_requests=2, max_bytes=100)
    it.kill_core()
    accepted = [it.workers[0].admit(body_bytes=40) for _ in range(2)]
    too_big = it.workers[0].admit(body_bytes=40)
    assert all(request.is_waiting for request in accepted)
    assert too_big.outcome is Outcome.REJECTED_CAPACITY
    it.workers[0].leave(accepted[0])
    assert it.workers[0].admit(body_bytes=61).outcome is Outcome.REJECTED_CAPACITY
    assert it.workers[0].admit(body_bytes=60).is_waiting
    assert it.workers[0].counts.take(0).degraded_refusals == {Outcome.REJECTED_CAPACITY: 2}


def test_what_is_withdrawn_without_a_core_is_gone() -> None:
    it = world(1)
    it.kill_core()
    requests = [it.workers[0].admit() for _ in range(3)]
    it.workers[0].leave(requests[0])
    it.advance(GAP_S)
    assert requests[1].is_running
    it.workers[0].leave(requests[2])
    it.workers[0].leave(requests[1])
    assert not len(it.workers[0].gate)
    assert not len(it.timers)


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_worker_that_shuts_down_without_a_core_refuses_what_waits(is_alone: bool) -> None:
    it = world(1)
    running, waiting = it.workers[0].admit(), it.workers[0].admit()
    it.settle()
    it.kill_core()
    it.advance(GAP_S if is_alone else 0.1)
    it.workers[0].gate.shut_down(it.now)
    assert running.is_running
    assert waiting.outcome is Outcome.SHUTTING_DOWN
    assert it.workers[0].admit().outcome is Outcome.SHUTTING_DOWN
    it.workers[0].leave(running)
    assert not len(it.workers[0].gate)
    assert not len(it.timers)


def test_a_worker_knows_when_a_wait_is_over_at_the_latest() -> None:
    it = world(1, wait_limit_s=60.0)
    it.workers[0].admit()
    general, own = it.workers[0].admit(), it.workers[0].admit(wait_limit_s=5.0)
    assert general.admission.deadline_s == it.now + 60.0
    assert own.admission.deadline_s == it.now + 5.0
    it.settle()
    it.kill_core()
    assert general.admission.deadline_s == it.now + 60.0 + GAP_S
    endless = world(1, wait_limit_s=None)
    assert endless.workers[0].admit().admission.deadline_s is None
    assert endless.workers[0].pass_by().admission.deadline_s is None
