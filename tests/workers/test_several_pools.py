"""Several pools behind several workers, with a core and without."""

from typing import Any

import pytest

from epp.core.flow import FlowLimits, FlowOptions
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, Objective, PoolResources, PoolSpec
from epp.workers.hub import Session
from epp.workers.messages import Hello, PoolGone, Resources, Standing, Welcome

from ..core.support import destination, endpoint
from .world import GAP_S, World


def pool(name: str, *numbers: int, priority: int = 0) -> PoolResources:
    return PoolResources(
        pool=PoolSpec(name=name, models=(f"model-{name}",)),
        objectives={"urgent": Objective(name="urgent", priority=priority)},
        endpoints=tuple(map(endpoint, numbers)),
    )


@pytest.fixture
def it() -> World:
    """Two workers, and the pools ``a`` and ``b``."""
    world = World(2, resources=pool("a", 1, priority=10)).start()
    assert world.core is not None
    world.core.apply(pool("b", 2, priority=-10), world.now)
    world.settle()
    return world


def test_requests_of_all_workers_go_to_their_pools(it: World) -> None:
    assert it.core is not None
    by_name = it.workers[0].admit(pool="a")
    by_model = it.workers[1].admit(model="model-b")
    second = it.workers[1].admit(pool="default/a")
    unknown, nameless = it.workers[0].admit(model="m"), it.workers[0].admit()
    it.settle()
    assert (by_name.destination, by_model.destination) == (destination(1), destination(2))
    assert second.is_waiting
    assert unknown.outcome is Outcome.MODEL_NOT_FOUND
    assert nameless.outcome is Outcome.POOL_NOT_FOUND
    passing = it.workers[0].pass_by(pool="b")
    it.settle()
    assert passing.destination == destination(2)
    it.workers[0].leave(by_name)
    it.settle()
    assert second.destination == destination(1)
    for request in (by_model, second):
        request.worker.leave(request)
    it.settle()
    assert it.core.pools.running == 0
    assert not any(len(worker.gate) for worker in it.workers)
    assert it.core.recorder.early == ["model_not_found", "pool_not_found"]


def test_the_lease_moves_within_its_pool_only(it: World) -> None:
    assert it.core is not None
    it.core.change("default/a", EndpointChanges(present=(endpoint(3),)), it.now)
    request = it.workers[0].admit(pool="a")
    it.settle()
    other = destination(3) if request.destination == destination(1) else destination(1)
    first = request.destination
    it.workers[0].served_by(request, destination(2))  # of the other pool
    assert request.admission.destination == first, "what a new core is told"
    it.workers[0].served_by(request, other)
    it.settle()
    router = it.core.pools.routers["default/a"]
    in_flight = {endpoint.destination: count for endpoint, count, _ in router.pool}
    assert in_flight[other] == 1


def test_a_pool_that_goes_is_gone_for_workers_too(it: World) -> None:
    assert it.core is not None
    running, waiting = it.workers[0].admit(pool="a"), it.workers[1].admit(pool="a")
    it.settle()
    it.core.remove("default/a", it.now)
    it.settle()
    assert waiting.outcome is Outcome.REJECTED_NO_ENDPOINTS
    late = it.workers[1].admit(pool="a")
    it.settle()
    assert late.outcome is Outcome.POOL_NOT_FOUND
    assert it.core.pools.running == 1
    assert [worker.gate.pools.keys for worker in it.workers] == [("default/b",)] * 2
    it.workers[0].leave(running)
    it.settle()
    assert it.core.pools.running == 0


def test_without_a_core_a_worker_picks_for_each_pool(it: World) -> None:
    assert it.core is not None
    changes = EndpointChanges(present=(endpoint(3),), gone=(destination(2),))
    it.core.change("default/b", changes, it.now)
    running = it.workers[0].admit(pool="a")
    it.settle()
    it.kill_core()
    worker = it.workers[0]
    waiting = worker.admit(pool="a")
    of_b, passing = worker.admit(model="model-b"), worker.pass_by(pool="b")
    unknown = worker.admit(model="m")
    it.advance(GAP_S)
    assert (of_b.destination, passing.destination) == (destination(3), destination(3))
    assert waiting.is_waiting, "the one place at the pool is taken"
    assert unknown.outcome is Outcome.MODEL_NOT_FOUND
    it.start_core()
    assert it.core is not None
    it.core.apply(pool("b", 3), it.now)
    for each in it.workers:
        each.connect()
    it.settle()
    assert it.core.pools.running == 2
    assert it.core.recorder.adoptions == 2
    for request in (running, of_b):
        worker.leave(request)
    it.settle()
    assert waiting.destination == destination(1)
    worker.leave(waiting)
    it.settle()
    assert it.core.pools.running == 0


def test_what_waits_for_a_new_core_is_offered_by_the_priority_at_its_own_pool(it: World) -> None:
    it.kill_core()
    batch = it.workers[0].admit("urgent", pool="b")
    urgent = it.workers[1].admit("urgent", pool="a")
    offered: list[int] = []
    it.start_core()
    assert it.core is not None
    it.core.apply(pool("b", 2, priority=-10), it.now)
    for router in it.core.pools.routers.values():
        offer = router.flow.offer

        def noted(request: Any, *rest: Any, offer: Any = offer) -> Any:
            offered.append(request.flow.priority)
            return offer(request, *rest)

        router.flow.offer = noted  # type: ignore[assignment, method-assign]
    for each in it.workers:
        each.connect()
    it.settle()
    assert offered == [10, -10]
    assert (urgent.is_running, batch.is_running) == (True, True)


def test_a_pool_that_went_while_a_worker_was_cut_off_is_forgotten_there(it: World) -> None:
    assert it.core is not None
    running, waiting = it.workers[0].admit(pool="b"), it.workers[0].admit(pool="b")
    it.settle()
    it.kill_core()
    it.start_core()  # it knows the pool ``a`` alone
    for worker in it.workers:
        worker.connect()
    it.settle()
    assert it.workers[0].gate.pools.keys == ("default/a",)
    assert waiting.outcome is Outcome.POOL_NOT_FOUND
    assert running.is_running
    assert it.core.pools.running == 0
    it.workers[0].served_by(running, destination(1))
    it.workers[0].leave(running)
    it.settle()
    assert it.workers[0].session is not None
    assert not it.workers[0].session.entries


def test_a_worker_that_joins_hears_of_all_pools_as_they_are_now(it: World) -> None:
    assert it.core is not None
    changes = EndpointChanges(present=(endpoint(3),), gone=(destination(1),))
    it.core.change("default/a", changes, it.now)
    heard: list[object] = []
    session = Session(heard.append, lambda: None)
    it.core.hub.received(session, [Hello(1, 1)], it.now)
    assert heard == [
        Welcome(("default/a", "default/b")),
        Resources(pool("a", 3, priority=10)),
        Resources(pool("b", 2, priority=-10)),
        Standing(is_ready=True, is_draining=False),
    ]
    changed: list[bool] = []
    it.core.hub.on_change = lambda: changed.append(True)
    it.core.remove("default/a", it.now)
    assert changed == [True]
    assert heard[-1] == PoolGone("default/a")
    heard.clear()
    it.core.hub.received(Session(heard.append, lambda: None), [Hello(1, 2)], it.now)
    assert heard[0] == Welcome(("default/b",))


def test_a_wait_has_the_limits_of_the_pool(it: World) -> None:
    assert it.core is not None
    it.core.change("default/b", EndpointChanges(gone=(destination(2),)), it.now)
    it.settle()
    limits = FlowLimits(wait_limit_s=7.0, no_endpoint_wait_limit_s=20.0)
    it.workers[0].gate.reconfigure(FlowOptions(limits=limits))
    here, empty = it.workers[0].admit(pool="a"), it.workers[0].admit(pool="b")
    assert here.admission.deadline_s == it.now + 7.0
    assert empty.admission.deadline_s == it.now + 20.0
