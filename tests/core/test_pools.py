"""Several pools: each request at one router, whatever becomes of the pools meanwhile."""

import random
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epp.core.claims import RequestClaims
from epp.core.exchange import Exchange, ExchangeLimits
from epp.core.flow import FlowLimits, FlowOptions
from epp.core.pool import EngineLoad
from epp.core.pools import Pools
from epp.core.replies import ImmediateReply
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, Objective, PoolResources, PoolSpec
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers

from .support import (
    Clock,
    CountingRecorder,
    RecordingGateWaiter,
    RecordingStream,
    at_most,
    completed,
    destination,
    endpoint,
    headers,
)

if TYPE_CHECKING:
    from epp.core.gate import Gate


def pool(
    name: str, numbers: Iterable[int] = (1,), *, priority: int = 0, **spec: Any
) -> PoolResources:
    """Return a pool; ``priority`` is that of the objective ``urgent``."""
    return PoolResources(
        pool=PoolSpec(name=name, **spec),
        objectives={"urgent": Objective(name="urgent", priority=priority)},
        endpoints=tuple(map(endpoint, numbers)),
    )


class Room:
    """Pools with a virtual clock, and the lives of all their routers."""

    def __init__(self) -> None:
        self.timers = Timers()
        self.clock = Clock(self.timers)
        self.recorder = CountingRecorder()
        self.lives: list[tuple[str, Router, CountingRecorder]] = []
        self.pools = Pools(self._new_router, self.recorder)
        self.gate: Gate = self.pools

    @property
    def now(self) -> float:
        return self.clock.now

    def _new_router(self, key: str) -> Router:
        recorder = CountingRecorder()
        router = Router(
            scheduler=LeastLoaded(),
            options=FlowOptions(limits=FlowLimits(max_requests=4, wait_limit_s=30.0)),
            make_detector=at_most(1),
            timers=self.timers,
            rng=random.Random(0),
            recorder=recorder,
        )
        self.lives.append((key, router, recorder))
        return router

    def put(self, *pools: PoolResources) -> None:
        for each in pools:
            self.pools.apply(each, self.now)

    def admit(self, **claims: Any) -> tuple[RecordingGateWaiter, Any]:
        waiter = RecordingGateWaiter()
        return waiter, self.gate.admit(RequestClaims(**claims), waiter, self.now)

    def pass_by(self, **claims: Any) -> RecordingGateWaiter:
        waiter = RecordingGateWaiter()
        assert self.gate.pass_by(RequestClaims(**claims), waiter, self.now) is None
        return waiter

    def in_flight(self) -> list[int]:
        return [router.pool.total_in_flight for _, router, _ in self.lives]


@pytest.fixture
def room() -> Room:
    return Room()


def test_each_request_goes_to_its_pool_and_all_that_follows_with_it(room: Room) -> None:
    room.put(pool("a", [1, 3]), pool("b", [2, 4]))
    assert list(room.pools.routers) == ["default/a", "default/b"]
    first, at_a = room.admit(pool="a")
    second, at_b = room.admit(pool="default/b")
    assert {first.destination, second.destination} <= set(map(destination, range(1, 5)))
    assert room.in_flight() == [1, 1]
    room.gate.served_by(at_b, destination(4), room.now)
    room.gate.reported(at_b, EngineLoad(waiting=3.0, running=1.0, kv_ratio=0.5), room.now)
    router = room.pools.routers["default/b"]
    slot = router.pool.slot_of(destination(4))
    assert slot is not None
    assert router.pool.in_flight[slot] == 1
    assert router.pool.told(slot) is not None
    room.gate.progress(at_b, 10, room.now)
    room.gate.finish(at_b, completed(), room.now)
    assert room.in_flight() == [1, 0]
    room.gate.finish(at_a, completed(), room.now)
    assert room.in_flight() == [0, 0]
    assert [len(recorder.endings) for _, _, recorder in room.lives] == [1, 1]


def test_queues_are_the_pools_own_and_so_are_objectives(room: Room) -> None:
    room.put(pool("a", [1], priority=5), pool("b", [2], priority=-5))
    claims = RequestClaims(pool="b", objective="urgent")
    assert room.pools.priority_of(claims) == -5
    assert room.pools.priority_of(RequestClaims(pool="a", objective="urgent")) == 5
    assert room.pools.priority_of(RequestClaims(pool="c", objective="urgent")) == 0
    running = [room.admit(pool="a"), room.admit(pool="a")]
    assert (room.pools.waiting, room.pools.running) == (1, 1)
    assert room.admit(pool="b")[0].outcome is Outcome.DISPATCHED
    room.gate.finish(running[0][1], completed(), room.now)
    assert running[1][0].outcome is Outcome.DISPATCHED
    third, admission = room.admit(pool="a")
    room.gate.withdraw(admission, room.now)
    assert third.outcome is None
    assert room.pools.waiting == 0


def test_what_is_no_inference_goes_by_the_pool_too(room: Room) -> None:
    room.put(pool("a", [1], authorities=("a.example",)), pool("b", [2]))
    assert room.pass_by(authority="a.example").destination == destination(1)
    assert room.pass_by(pool="b").destination == destination(2)
    assert room.pass_by().outcome is Outcome.POOL_NOT_FOUND
    assert room.recorder.early == ["pool_not_found"]


def test_whose_pool_cannot_be_told_is_told_so(room: Room) -> None:
    assert not room.pools.is_ready
    waiter, admission = room.admit(model="m")
    assert (waiter.outcome, waiter.retry_after_s) == (Outcome.REJECTED_NO_ENDPOINTS, 5)
    assert not admission.is_waiting
    assert admission.deadline_s is None
    room.put(pool("a"), pool("b"))
    assert room.pools.is_ready
    assert room.admit(model="m")[0].outcome is Outcome.MODEL_NOT_FOUND
    assert room.admit()[0].outcome is Outcome.POOL_NOT_FOUND
    assert room.admit(model="m", pool="c")[0].outcome is Outcome.POOL_NOT_FOUND
    room.pools.begin_drain()
    assert room.admit(model="m")[0].outcome is Outcome.SHUTTING_DOWN
    assert room.recorder.early == [
        "rejected-no-endpoints",
        "model_not_found",
        "pool_not_found",
        "pool_not_found",
        "shutting-down",
    ]
    assert not any(recorder.waits for _, _, recorder in room.lives)
    with pytest.raises(AssertionError, match="does not wait"):
        room.gate.withdraw(admission, room.now)
    with pytest.raises(AssertionError, match="another gate"):
        room.gate.withdraw(object(), room.now)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/v1/completions", {"type": "invalid_request_error", "code": "model_not_found"}),
        (b"/v1/messages", {"type": "not_found_error"}),
    ],
)
def test_the_client_sees_an_error_of_its_api(
    room: Room, path: bytes, error: dict[str, str]
) -> None:
    room.put(pool("a"), pool("b"))
    stream = RecordingStream()
    exchange = Exchange(stream, lambda _: room.gate, ExchangeLimits())
    exchange.request_headers(headers(path=path), None, False, room.now)
    exchange.request_body(b'{"model":"m"}', True, room.now)
    (reply,) = stream.take()
    assert isinstance(reply, ImmediateReply)
    assert (reply.status, dict(reply.headers)) == (
        404,
        {
            b"content-type": b"application/json",
            b"x-llm-d-request-dropped-reason": b"rejected-model-not-found",
        },
    )
    found = msgspec.json.decode(reply.body)["error"]
    assert {name: found[name] for name in error} == error
    exchange.closed(room.now)


def test_an_exchange_goes_to_the_pool_that_the_gateway_names(room: Room) -> None:
    room.put(pool("a", [1]), pool("b", [2], models=("m",)))
    for named, model, number in (("a", b"m", 1), ("", b"m", 2)):
        stream = RecordingStream()
        exchange = Exchange(stream, lambda _: room.gate, ExchangeLimits())
        exchange.request_headers(headers(), None, False, room.now, named)
        exchange.request_body(b'{"model":"%b"}' % model, True, room.now)
        assert stream.replies[0].destination == destination(number)  # type: ignore[union-attr]
        exchange.closed(room.now)
    assert room.pools.running == 0


def test_a_pool_that_goes_refuses_who_waits_and_keeps_what_runs(room: Room) -> None:
    room.put(pool("a", [1]), pool("b", [2]))
    running, waiting = room.admit(pool="a"), room.admit(pool="a")
    room.pools.remove("default/a", room.now)
    assert waiting[0].outcome is Outcome.REJECTED_NO_ENDPOINTS
    assert waiting[0].retry_after_s
    assert list(room.pools.routers) == ["default/b"]
    assert (room.pools.waiting, room.pools.running) == (0, 1)
    room.gate.served_by(running[1], destination(9), room.now)
    room.gate.finish(running[1], completed(), room.now)
    assert room.pools.running == 0
    assert room.in_flight() == [0, 0]
    assert len(room.lives[0][2].endings) == 1
    with pytest.raises(KeyError):
        room.pools.remove("default/a", room.now)
    with pytest.raises(KeyError):
        room.pools.apply_endpoints("default/a", EndpointChanges(), room.now)


def test_a_pool_that_comes_again_begins_anew(room: Room) -> None:
    room.put(pool("a", [1]))
    former = room.admit()
    room.pools.remove("default/a", room.now)
    room.put(pool("a", [1]))
    again = room.admit()
    assert again[0].outcome is Outcome.DISPATCHED
    assert room.in_flight() == [1, 1]
    room.gate.finish(former[1], completed(), room.now)
    assert room.in_flight() == [0, 1]
    assert room.admit()[0].outcome is None, "its place is taken"


def test_a_router_is_let_go_of_when_nothing_runs_there_any_more(room: Room) -> None:
    closed: list[str] = []
    room.put(pool("a", [1]), pool("b", [2]))
    for key, router, _ in room.lives:
        router.detector.close = partial(closed.append, key)  # type: ignore[method-assign]
    _, admission = room.admit(pool="a")
    room.pools.remove("default/a", room.now)
    room.pools.remove("default/b", room.now)
    assert closed == ["default/b"]
    room.gate.finish(admission, completed(), room.now)
    assert closed == ["default/b", "default/a"]


def test_endpoints_change_at_one_pool_only(room: Room) -> None:
    room.put(pool("a", [1]), pool("b", [2]))
    changes = EndpointChanges(present=(endpoint(3),), gone=(destination(1),))
    room.pools.apply_endpoints("default/a", changes, room.now)
    assert [[e.destination for e, _, _ in router.pool] for _, router, _ in room.lives] == [
        [destination(3)],
        [destination(2)],
    ]


def test_the_drain_is_of_all_pools_and_of_those_that_come_during_it(room: Room) -> None:
    room.put(pool("a", [1]), pool("b", [2]))
    running, waiting = room.admit(pool="a"), room.admit(pool="a")
    room.pools.begin_drain()
    assert (room.pools.is_ready, room.pools.is_draining) == (False, True)
    assert room.admit(pool="b")[0].outcome is Outcome.SHUTTING_DOWN
    room.put(pool("c", [3]))
    assert room.admit(pool="c")[0].outcome is Outcome.SHUTTING_DOWN
    assert waiting[0].outcome is None
    room.pools.end_drain(room.now)
    assert waiting[0].outcome is Outcome.SHUTTING_DOWN
    room.gate.finish(running[1], completed(), room.now)
    assert room.pools.running == 0


def test_what_runs_at_no_pool_holds_nothing(room: Room) -> None:
    room.put(pool("a", [1]), pool("b", [2]))
    waiter = RecordingGateWaiter()
    lost = room.pools.adopt(RequestClaims(pool="c"), destination(1), room.now, waiter)
    room.gate.served_by(lost, destination(2), room.now)
    room.gate.reported(lost, EngineLoad(waiting=0.0, running=1.0, kv_ratio=0.5), room.now)
    room.gate.progress(lost, 1, room.now)
    room.gate.finish(lost, completed(), room.now)
    assert room.in_flight() == [0, 0]
    kept = room.pools.adopt(RequestClaims(pool="b"), destination(2), room.now, waiter, "model")
    assert room.in_flight() == [0, 1]
    room.gate.finish(kept, completed(), room.now)


def test_what_exchanges_tell_of_themselves_is_counted_once(room: Room) -> None:
    room.put(pool("a"), pool("b"))
    room.gate.refused_early("too-large")
    room.gate.rewrite_skipped("request-not-read")
    assert (room.recorder.early, room.recorder.skipped) == (["too-large"], ["request-not-read"])


NAMES = st.sampled_from(("a", "b", "c"))
NUMBERS = st.frozensets(st.integers(1, 3), max_size=3)


class _Request:
    def __init__(self, name: str, waiter: RecordingGateWaiter, life: int | None) -> None:
        self.name = name
        self.waiter = waiter
        self.life = life
        self.admission: Any = None
        self.is_over = False


class PoolsMachine(RuleBasedStateMachine):
    """Pools come, change and go while requests wait and run.

    Every waiter insists on one answer at most, every recorder on one outcome and one ending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room = Room()
        self.alive: dict[str, int] = {}  # the pools that there are: which life is theirs
        self.endpoints: dict[str, set[int]] = {}
        self.requests: list[_Request] = []

    @rule(name=NAMES, numbers=NUMBERS)
    def put(self, name: str, numbers: frozenset[int]) -> None:
        self.alive.setdefault(name, len(self.room.lives))
        self.endpoints[name] = set(numbers)
        self.room.put(pool(name, sorted(numbers), models=(f"model-{name}",)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), number=st.integers(1, 3))
    def change_endpoint(self, data: st.DataObject, number: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        known = self.endpoints[name]
        if number in known:
            known.remove(number)
            changes = EndpointChanges(gone=(destination(number),))
        else:
            known.add(number)
            changes = EndpointChanges(present=(endpoint(number),))
        self.room.pools.apply_endpoints(f"default/{name}", changes, self.room.now)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.alive)))
        life = self.alive.pop(name)
        self.room.pools.remove(f"default/{name}", self.room.now)
        for request in self.requests:
            assert request.life != life or request.is_over or request.waiter.outcome is not None

    @rule(name=NAMES, by_model=st.booleans())
    def admit(self, name: str, by_model: bool) -> None:
        model = f"model-{name}"
        claims = RequestClaims(model=model) if by_model else RequestClaims(pool=name)
        is_only = by_model and len(self.alive) == 1
        life = next(iter(self.alive.values())) if is_only else self.alive.get(name)
        waiter = RecordingGateWaiter()
        request = _Request(name, waiter, life)
        request.admission = self.room.gate.admit(claims, waiter, self.room.now)
        self.requests.append(request)
        if life is None:
            expected = Outcome.MODEL_NOT_FOUND if by_model else Outcome.POOL_NOT_FOUND
            assert waiter.outcome is (expected if self.alive else Outcome.REJECTED_NO_ENDPOINTS)

    @rule(name=NAMES)
    def pass_by(self, name: str) -> None:
        waiter = self.room.pass_by(pool=name)
        has_endpoint = bool(self.alive.get(name) is not None and self.endpoints[name])
        assert waiter.has_passed == has_endpoint
        assert (waiter.outcome is None) == has_endpoint

    @precondition(lambda self: any(not request.is_over for request in self.requests))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        there = [request for request in self.requests if not request.is_over]
        self._leave(data.draw(st.sampled_from(there)))

    @rule(seconds=st.floats(0.1, 40.0))
    def pass_time(self, seconds: float) -> None:
        self.room.clock.advance(seconds)

    def _leave(self, request: _Request) -> None:
        request.is_over = True
        if request.waiter.outcome is None:
            self.room.gate.withdraw(request.admission, self.room.now)
        elif request.waiter.outcome is Outcome.DISPATCHED:
            self.room.gate.finish(request.admission, completed(), self.room.now)

    @invariant()
    def each_router_holds_what_is_its_own(self) -> None:
        for life, (_, router, _) in enumerate(self.room.lives):
            own = [each for each in self.requests if each.life == life and not each.is_over]
            running = sum(each.waiter.outcome is Outcome.DISPATCHED for each in own)
            waiting = sum(each.waiter.outcome is None for each in own)
            assert (router.pool.total_in_flight, router.flow.requests) == (running, waiting)
        there = [request for request in self.requests if not request.is_over]
        all_waiting = [request for request in there if request.waiter.outcome is None]
        assert self.room.pools.waiting == len(all_waiting)
        assert all(request.life in self.alive.values() for request in all_waiting)
        all_running = [each for each in there if each.waiter.outcome is Outcome.DISPATCHED]
        assert self.room.pools.running == len(all_running)

    def teardown(self) -> None:
        for request in self.requests:
            if not request.is_over:
                self._leave(request)
        self.each_router_holds_what_is_its_own()
        assert not self.room.pools._leaving
        assert len(self.room.timers) == 0
        for life, (_, _, recorder) in enumerate(self.room.lives):
            came = sum(request.life == life for request in self.requests)
            assert recorder.outcomes.total() == came
            assert recorder.outcomes[Outcome.DISPATCHED] == len(recorder.endings)


TestPools = PoolsMachine.TestCase
TestPools.settings = settings(max_examples=60, stateful_step_count=40)
