"""Single stories of workers and their core, as long as there is one."""

import pytest

from epp.core.claims import RequestClaims
from epp.core.flow import FlowLimits, FlowOptions
from epp.core.request import Outcome
from epp.workers.hub import Hub, Session
from epp.workers.messages import Hello, Reread, Running, ServedBy, Stop, Waiting, Welcome
from epp.workers.tally import Tally

from ..core.support import destination
from .world import GAP_S, World, run_all, world

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


def test_a_request_that_cannot_pass_is_refused() -> None:
    it = world()
    assert it.core is not None
    it.core.pools.begin_drain()
    passing = it.workers[0].pass_by()
    it.settle()
    assert passing.outcome is Outcome.SHUTTING_DOWN
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


# ---- the whole ----


def test_workers_learn_of_the_pool_and_of_the_drain() -> None:
    it = world(2)
    assert it.core is not None
    assert [w.standing and w.standing.is_ready for w in it.workers] == [True, True]
    it.core.pools.begin_drain()
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
    handshakes: list[str] = []
    limits: list[tuple[str, int]] = []
    it.core.hub._tally = Tally(0, handshakes.append, lambda *met: limits.append(met))
    for worker, streams in zip(it.workers, (3, 4), strict=True):
        worker.gate.refused_early("too-large")
        worker.counts.handshake_refused("alpn")
        worker.counts.limit_met("rapid_reset", 3)
        assert worker.to_core is not None
        worker.to_core.send(worker.counts.take(streams))
    it.settle()
    assert it.core.hub.open_streams == {0: 3, 1: 4}
    assert it.core.recorder.early == ["too-large"] * 2
    assert handshakes == ["alpn"] * 2
    assert limits == [("rapid_reset", 3)] * 2
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


# ---- another configuration ----


@pytest.mark.parametrize(("core_restarts", "announces"), [(0, True), (1, False)])
def test_a_worker_that_joins_hears_that_its_configuration_may_be_an_old_one(
    core_restarts: int, announces: bool
) -> None:
    it = world()
    assert it.core is not None
    hub = Hub(it.core.pools, workers=1, timers=it.timers, tally=Tally(core_restarts))
    if announces:
        hub.announce_configuration()
    sent: list[object] = []
    hub.received(Session(sent.append, lambda: None), [Hello(0, 0)], it.now)
    assert [type(each) for each in sent[:2]] == [Welcome, Reread]


def test_other_time_limits_hold_at_the_gate_for_what_waits_already() -> None:
    it = world()
    running, waiting = it.workers[0].admit(), it.workers[0].admit()
    it.settle()
    assert (running.is_running, waiting.outcome) == (True, None)
    gate = it.workers[0].gate
    gate.reconfigure(FlowOptions(limits=FlowLimits(wait_limit_s=7.0)))
    assert waiting.admission.deadline_s == it.now + 7.0
