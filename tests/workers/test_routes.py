"""Routes, rewritten models and load reports across the socket, and across the death of a core."""

from msgspec import structs

from epp.core.claims import RequestClaims
from epp.core.gate import Route
from epp.core.pool import EngineLoad
from epp.core.resources import ModelTarget, RewriteRule

from ..core.support import destination, resources
from .world import GAP_S, OBJECTIVES, Request, World, world

_RULES = (RewriteRule(models=("alias",), targets=(ModelTarget("target"),)),)
_LOAD = EngineLoad(4.0, 2.0, 0.5, started_s=5.0)


def _rewriting(*numbers: int) -> World:
    """A world of two workers whose pool has a rule."""
    pool = structs.replace(resources(numbers, OBJECTIVES), rewrites=_RULES)
    return World(2, resources=pool, max_concurrency=4).start()


def _models(it: World) -> list[tuple[str, str]]:
    assert it.core is not None
    return [(r.model, r.client_model) for r in it.core.recorder.ended_requests]


def test_the_target_comes_with_the_destination() -> None:
    it = _rewriting(1)
    request, other = it.workers[0].admit(model="alias"), it.workers[1].admit(model="plain")
    it.settle()
    assert request.route == Route(destination(1), "target")
    assert other.route == Route(destination(1))


def test_a_new_core_knows_the_model_and_the_place_of_what_runs() -> None:
    """Of several endpoints the first is where it runs, until the proxy says otherwise."""
    it = _rewriting(1, 2)
    request = Request(it.workers[0], "", RequestClaims(model="alias"))
    it.workers[0].requests.append(request)
    admission = it.workers[0].gate.admit(request.claims, request, it.now)
    request.admission = admission
    admission.dispatched(Route(f"{destination(2)},{destination(1)}", "former"), 0.0, it.now)
    it.kill_core()
    it.start_core()
    for worker in it.workers:
        worker.connect()
    it.settle()
    assert _in_flight(it) == [0, 1]
    it.workers[0].served_by(request, destination(2))
    it.settle()
    assert _in_flight(it) == [0, 1]
    it.workers[0].served_by(request, destination(1))
    it.settle()
    assert _in_flight(it) == [1, 0]
    it.workers[0].leave(request)
    it.settle()
    assert _models(it) == [("former", "alias")]


def test_a_worker_that_decides_alone_rewrites_as_well() -> None:
    it = _rewriting(1)
    running = it.workers[0].admit(model="alias")
    it.settle()
    it.kill_core()
    it.advance(GAP_S)
    request = it.workers[0].admit(model="alias")
    assert request.route == Route(destination(1), "target")
    unknown = it.workers[0].admit()
    local = it.workers[0].gate._local
    assert local is not None
    router = local.routers["default/pool"]
    slot = running.admission.local.held_lease().slot
    it.workers[0].gate.reported(running.admission, _LOAD, it.now)
    assert router.pool.told(slot) == _LOAD
    assert running.admission.local.request.model == "target"
    it.workers[0].gate.rewrite_skipped("response-not-seen")
    stats = it.workers[0].counts.take(0)
    assert stats.rewrites_skipped == {"model-unknown": 1, "response-not-seen": 1}
    assert it.workers[0].counts.take(0).rewrites_skipped == {}
    for each in (running, request, unknown):
        it.workers[0].leave(each)


def test_what_an_engine_tells_with_a_response_reaches_the_core() -> None:
    it = world(1, 1)
    request = it.workers[0].admit()
    it.settle()
    it.workers[0].gate.reported(request.admission, _LOAD, it.now)
    it.settle()
    assert it.router.pool.told(0) == _LOAD


def test_a_report_without_a_core_is_history() -> None:
    it = world(1, 1)
    request = it.workers[0].admit()
    it.settle()
    it.kill_core()
    it.workers[0].gate.reported(request.admission, _LOAD, it.now)
    assert request.is_running


def test_what_workers_could_not_rewrite_is_counted_at_the_core() -> None:
    it = world(1, 1)
    worker = it.workers[0]
    for _ in range(2):
        worker.gate.rewrite_skipped("response-not-seen")
    worker._send(worker.counts.take(0))
    it.settle()
    assert it.core is not None
    assert it.core.recorder.skipped == ["response-not-seen"] * 2


def _in_flight(it: World) -> list[int]:
    return [count for _, count, _ in it.router.pool]
