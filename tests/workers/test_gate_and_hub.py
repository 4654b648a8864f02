"""Single stories of workers and their core."""

import pytest

from epp.core.claims import RequestClaims
from epp.core.flow import FlowLimits
from epp.core.request import Outcome
from epp.workers.hub import Session
from epp.workers.messages import Hello, Running, ServedBy, Stats, Stop, Waiting

from ..core.support import destination, resources
from .world import GAP_S, Request, World

OBJECTIVES = {"urgent": 10, "batch": -10}


def world(size: int = 2, *numbers: int, limit: int = 1, **limits: object) -> World:
    """A world at work: the pool has the endpoints of these numbers, or the one of number 1."""
    return World(
        size,
        resources=resources(numbers or [1], OBJECTIVES),
        max_concurrency=limit,
        limits=FlowLimits(**limits),  # type: ignore[arg-type]
    ).start()


def run_all(it: World, *requests: Request) -> list[Request]:
    """End one after the other as soon as it runs, a second apart; return their order."""
    left = list(requests)
    ended: list[Request] = []
    while left:
        it.settle()
        running = [request for request in left if request.is_running]
        assert running, "nothing runs"
        for request in running:
            left.remove(request)
            ended.append(request)
            it.advance(1.0)
            request.worker.leave(request)
    it.settle()
    return ended


# ---- one core ----


def test_a_request_goes_to_an_endpoint_and_its_end_frees_it_for_one_of_another_worker() -> None:
    it = world()
    first, second = it.workers[0].admit(), it.workers[1].admit()
    it.settle()
    assert (first.destination, second.outcome) == (destination(1), None)
    it.advance(3.0)
    it.workers[0].leave(first)
    it.settle()
    assert second.is_running
    assert second.waited_s == pytest.approx(3.0)


def test_what_is_urgent_goes_first_whichever_worker_it_is_at() -> None:
    it = world(3)
    running = it.workers[0].admit("batch")
    it.settle()
    batch, urgent = [], []
    for number in range(6):
        batch.append(it.workers[number % 3].admit("batch"))
        it.settle()
    for number in range(3):
        urgent.append(it.workers[number % 3].admit("urgent"))
        it.settle()
    assert run_all(it, running, *batch, *urgent) == [running, *urgent, *batch]


def test_a_request_that_is_no_inference_passes_and_holds_nothing() -> None:
    it = world()
    passing = it.workers[0].pass_by()
    it.settle()
    assert passing.has_passed
    assert passing.destination == destination(1)
    assert it.router.pool.total_in_flight == 0
    assert not len(it.workers[0].gate)


def test_a_refusal_comes_back_and_leaves_nothing_behind() -> None:
    it = world(1, max_requests=1, reject_hopeless=False)
    it.workers[0].admit()
    waiting, refused = it.workers[0].admit(), it.workers[0].admit()
    it.settle()
    assert waiting.is_waiting
    assert refused.outcome is Outcome.REJECTED_CAPACITY
    assert refused.retry_after_s
    assert it.workers[0].session is not None
    assert len(it.workers[0].session.entries) == len(it.workers[0].gate) == 2


@pytest.mark.parametrize("kind", ["dispatched", "refused", "passed"])
def test_a_withdrawal_that_crosses_the_answer_leaves_nothing_behind(kind: str) -> None:
    it = world(1, max_requests=1)
    worker = it.workers[0]
    if kind == "refused":
        others = [worker.admit(), worker.admit()]
        it.settle()
    request = worker.pass_by() if kind == "passed" else worker.admit()
    assert worker.to_core is not None
    worker.to_core.deliver()  # the answer is on its way
    it.advance(0.5)
    worker.leave(request)
    it.settle()
    assert request.outcome is None
    assert not request.has_passed
    if kind == "refused":
        for other in others[::-1]:
            worker.leave(other)
        it.settle()
    assert it.router.pool.total_in_flight == 0
    assert worker.session is not None
    assert not worker.session.entries
    if kind == "dispatched":
        assert it.core is not None
        (ending,) = it.core.recorder.endings
        assert (ending.cause, ending.duration_s) == ("aborted", pytest.approx(0.5))


def test_the_lease_follows_to_who_really_serves() -> None:
    it = world(1, 1, 2)
    request = it.workers[0].admit()
    it.settle()
    other = destination(2) if request.destination == destination(1) else destination(1)
    it.workers[0].served_by(request, "10.9.9.9:1")  # nobody knows it
    it.workers[0].served_by(request, other)
    it.settle()
    in_flight = {endpoint.destination: count for endpoint, count, _ in it.router.pool}
    assert in_flight[other] == 1
    it.workers[0].leave(request)
    it.settle()
    assert it.router.pool.total_in_flight == 0


def test_what_must_not_be_done_is_an_error() -> None:
    it = world(1)
    running = it.workers[0].admit()
    waiting = it.workers[0].admit()
    it.settle()
    gate = it.workers[0].gate
    with pytest.raises(AssertionError, match="does not wait"):
        gate.withdraw(running.admission, it.now)
    with pytest.raises(AssertionError, match="that waits"):
        gate.finish(waiting.admission, None, it.now)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="another gate"):
        gate.withdraw(object(), it.now)  # type: ignore[arg-type]


# ---- workers come and go ----


def test_a_worker_that_dies_frees_all_it_held_at_once_and_none_of_it_is_dispatched() -> None:
    it = world(2)
    gone = [it.workers[0].admit("urgent") for _ in range(4)]
    it.settle()
    survivor = it.workers[1].admit("batch")
    it.settle()
    dead = it.kill_worker(0)
    it.settle()
    assert survivor.is_running
    assert it.core is not None
    outcomes = it.core.recorder.outcomes
    assert outcomes == {Outcome.DISPATCHED: 2, Outcome.CANCELLED: 3}
    assert [request.outcome for request in gone] == [Outcome.DISPATCHED, None, None, None]
    assert it.core.hub.connected == 1
    it.workers[0].connect()
    it.settle()
    assert it.core.hub.connected == it.core.hub.listening == 2
    assert it.core.tally.worker_restarts == 1
    assert dead.restarts == 0


def test_a_worker_that_is_back_before_its_end_was_noticed_takes_its_place() -> None:
    it = world(1)
    worker = it.workers[0]
    request = worker.admit()
    it.settle()
    before = worker.session
    worker.lose_connection(core_notices=False)
    worker.connect()
    it.settle()
    assert worker.session is not before
    assert it.router.pool.total_in_flight == 1
    assert it.core is not None
    assert it.core.hub.connected == 1
    assert before is not None
    it.core.hub.left(before, it.now)  # now it is noticed
    assert it.core.hub.connected == 1
    worker.leave(request)
    it.settle()
    assert it.router.pool.total_in_flight == 0


def test_a_connection_that_breaks_costs_no_request() -> None:
    it = world(1)
    worker = it.workers[0]
    running, waiting = worker.admit(), worker.admit()
    it.settle()
    worker.lose_connection()
    assert it.router.pool.total_in_flight == it.router.flow.requests == 0
    worker.connect()
    it.settle()
    assert run_all(it, running, waiting) == [running, waiting]


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
    it.workers[0].served_by(next(r for r in requests if r.destination == destination(2)), "")
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


# ---- the whole ----


def test_workers_learn_of_the_pool_and_of_the_drain() -> None:
    it = world(2)
    assert it.core is not None
    assert [w.standing and w.standing.is_ready for w in it.workers] == [True, True]
    it.router.begin_drain()
    it.core.hub.announce_standing(is_ready=False, is_draining=True)
    it.settle()
    assert [w.standing and w.standing.is_ready for w in it.workers] == [False, False]
    assert refused_by(it) is Outcome.SHUTTING_DOWN
    it.kill_core()
    request = it.workers[0].admit()
    it.advance(GAP_S)
    assert request.outcome is Outcome.SHUTTING_DOWN, "also without the core"


def refused_by(it: World) -> Outcome | None:
    request = it.workers[0].admit()
    it.settle()
    return request.outcome


def test_a_worker_that_joins_at_the_end_is_told_to_stop_too() -> None:
    it = world(1)
    assert it.core is not None
    heard: list[object] = []
    it.core.hub.stop(3.0)
    session = Session(heard.append, lambda: None)
    it.core.hub.received(session, [Hello(0, 1)], it.now)
    assert heard[-1] == Stop(3.0)


def test_what_workers_count_is_added_up() -> None:
    it = world(2)
    assert it.core is not None
    for worker, streams in zip(it.workers, (3, 4), strict=True):
        worker.gate.refused_early("too-large")
        worker.counts.handshake_refused("alpn")
        assert worker.to_core is not None
        worker.to_core.send(worker.counts.take(streams))
    it.settle()
    assert it.core.hub.open_streams == {0: 3, 1: 4}
    assert it.core.recorder.early == ["too-large"] * 2
    it.kill_worker(0)
    assert it.core.hub.open_streams == {1: 4}


def test_a_worker_that_says_what_makes_no_sense_is_an_error() -> None:
    it = world(1)
    assert it.core is not None
    session = it.workers[0].session
    assert session is not None
    with pytest.raises(ValueError, match="invalid literal"):
        it.core.hub.received(session, [Running(9, RequestClaims(), "nowhere", 0.0)], it.now)
    with pytest.raises(KeyError):
        it.core.hub.received(session, [ServedBy(77, destination(1))], it.now)
    it.kill_core()
    it.start_core()
    assert it.core is not None
    session = Session(lambda message: None, lambda: None)
    it.core.hub.received(session, [Hello(0, 0), Waiting(1, RequestClaims(), it.now)], it.now)
    with pytest.raises(AssertionError, match="that waits"):
        it.core.hub.received(session, [ServedBy(1, destination(1))], it.now)
