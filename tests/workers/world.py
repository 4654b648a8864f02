"""Workers and a core in one process, without sockets: what is said arrives when a test lets it.

Each connection is two queues of frames, one per direction, in order. A frame goes through the
codec, as it does on the wire.
"""

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from epp.core.claims import RequestClaims
from epp.core.flow import FlowLimits, FlowOptions
from epp.core.gate import Ending
from epp.core.pools import Pools
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, PoolResources
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.workers.degraded import WorkerCounts
from epp.workers.hub import Hub, Session
from epp.workers.messages import (
    Dispatched,
    EndpointsChanged,
    Evict,
    FrameReader,
    Hello,
    Listening,
    Passed,
    PoolGone,
    Refused,
    Resources,
    Standing,
    Welcome,
    encode_frame,
    from_core,
    from_worker,
)
from epp.workers.remote_gate import RemoteGate
from epp.workers.tally import Tally

from ..core.support import Clock, CountingRecorder, RecordingGateWaiter, at_most, resources

__all__ = [
    "GAP_S",
    "OBJECTIVES",
    "CoreProcess",
    "Request",
    "WorkerProcess",
    "World",
    "run_all",
    "world",
]

GAP_S = 2.0
OBJECTIVES = {"urgent": 10, "batch": -10}


class Request(RecordingGateWaiter):
    """A request of a worker's, and what became of it."""

    def __init__(self, worker: "WorkerProcess", priority: str, claims: RequestClaims) -> None:
        super().__init__()
        self.worker = worker
        self.priority = priority
        self.claims = claims
        self.admission: Any = None
        self.is_over = False

    @property
    def is_running(self) -> bool:
        return self.outcome is Outcome.DISPATCHED and not self.is_over

    @property
    def is_waiting(self) -> bool:
        return self.outcome is None and not self.has_passed and not self.is_over


class Wire:
    """One direction of a connection."""

    def __init__(self, reader: FrameReader[Any], receive: Callable[[list[Any]], None]) -> None:
        self._reader = reader
        self._receive = receive
        self._frames: deque[bytes] = deque()
        self.is_cut = False

    def send(self, message: object) -> None:
        if not self.is_cut:
            self._frames.append(bytes(encode_frame([message])))

    def __len__(self) -> int:
        return len(self._frames)

    def deliver(self, count: int = 1) -> None:
        """Let so many messages arrive, in one read."""
        frames = [self._frames.popleft() for _ in range(min(count, len(self._frames)))]
        if frames:
            self._receive(self._reader.feed(b"".join(frames)))

    def cut(self) -> None:
        """Let nothing arrive any more."""
        self.is_cut = True
        self._frames.clear()


class CoreProcess:
    """What a core process holds."""

    def __init__(self, world: "World") -> None:
        self.recorder = CountingRecorder()
        self._world = world
        self.pools = Pools(self._new_router, self.recorder)
        self.tally = Tally()
        self.hub = Hub(self.pools, workers=world.size, timers=world.timers, tally=self.tally)
        self.apply(world.resources, world.now)

    @property
    def router(self) -> Router:
        """The router of the first pool."""
        return next(iter(self.pools.routers.values()))

    def apply(self, resources: PoolResources, now: float) -> None:
        self.pools.apply(resources, now)
        self.hub.announce_resources(resources)
        self.hub.announce_standing(is_ready=True, is_draining=False)

    def change(self, key: str, changes: EndpointChanges, now: float) -> None:
        self.pools.apply_endpoints(key, changes, now)
        self.hub.announce_endpoints(key, changes)

    def remove(self, key: str, now: float) -> None:
        self.pools.remove(key, now)
        self.hub.announce_gone(key)

    def stop_timers(self, now: float) -> None:
        """Forget what a process takes with it when it dies."""
        for router in self.pools.routers.values():
            for ticket in list(router.flow._bands.tickets()):
                router.flow.cancel(ticket, now)
        if self.hub._gathering is not None:
            self.hub._gathering.cancel()

    def _new_router(self, key: str) -> Router:
        world = self._world
        return Router(
            scheduler=LeastLoaded(),
            options=FlowOptions(limits=world.limits, eviction=world.eviction),
            make_detector=at_most(world.max_concurrency),
            timers=world.timers,
            rng=random.Random(0),
            recorder=self.recorder,
        )


class WorkerProcess:
    """What a worker process holds, and its connection."""

    def __init__(self, world: "World", number: int, restarts: int) -> None:
        self.world = world
        self.number = number
        self.restarts = restarts
        self.counts = WorkerCounts()
        self.requests: list[Request] = []
        self.standing: Standing | None = None
        self.to_core: Wire | None = None
        self.to_worker: Wire | None = None
        self.session: Session | None = None
        self.gate = RemoteGate(
            self._send,
            new_router=self._new_router,
            counts=self.counts,
            options=FlowOptions(limits=world.limits),
            gap_timeout_s=GAP_S,
            timers=world.timers,
        )

    @property
    def is_connected(self) -> bool:
        return self.session is not None

    def connect(self) -> None:
        """Connect to the core that is there."""
        core = self.world.core
        assert core is not None
        self.to_worker = to_worker = Wire(from_core(), self._received)
        session = Session(to_worker.send, lambda: self._aborted(session))
        self.session = session
        self.to_core = Wire(
            from_worker(),
            lambda messages: core.hub.received(session, messages, self.world.now),
        )
        self.to_core.send(Hello(self.number, self.restarts))

    def lose_connection(self, *, core_notices: bool = True) -> None:
        """Let the connection break; whatever was on its way is lost."""
        session, self.session = self.session, None
        if session is None:
            return
        assert self.to_core is not None
        assert self.to_worker is not None
        self.to_core.cut()
        self.to_worker.cut()
        if core_notices and self.world.core is not None:
            self.world.core.hub.left(session, self.world.now)
        self.gate.lost(self.world.now)

    def admit(self, objective: str = "", **claims: Any) -> Request:
        """Let an inference request come."""
        request = Request(self, objective, RequestClaims(objective=objective, **claims))
        self.requests.append(request)
        request.admission = self.gate.admit(request.claims, request, self.world.now)
        return request

    def pass_by(self, **claims: Any) -> Request:
        """Let a request come that is no inference."""
        request = Request(self, "", RequestClaims(**claims))
        self.requests.append(request)
        request.admission = self.gate.pass_by(request.claims, request, self.world.now)
        return request

    def leave(self, request: Request) -> None:
        """Let a request's stream end, whatever becomes of it at that moment."""
        request.is_over = True
        if request.admission.is_waiting:
            self.gate.withdraw(request.admission, self.world.now)
        elif request.outcome is Outcome.DISPATCHED:
            duration_s = self.world.now - request.admission.since_s
            ending = Ending(
                status=200, cause="complete", duration_s=duration_s, response_bytes=None
            )
            self.gate.finish(request.admission, ending, self.world.now)

    def served_by(self, request: Request, destination: str) -> None:
        """Let the proxy say who really serves."""
        self.gate.served_by(request.admission, destination, self.world.now)

    def stop_timers(self) -> None:
        """Forget what a process takes with it when it dies."""
        if self.gate._gap_timer is not None:
            self.gate._gap_timer.cancel()
        if self.gate._local is not None:
            for router in self.gate._local.routers.values():
                for ticket in list(router.flow._bands.tickets()):
                    router.flow.cancel(ticket, self.world.now)

    def _aborted(self, session: Session) -> None:
        if session is self.session:
            self.lose_connection()

    def _send(self, message: object) -> None:
        assert self.to_core is not None
        self.to_core.send(message)

    def _received(self, messages: list[Any]) -> None:
        now = self.world.now
        for message in messages:
            match message:
                case Welcome():
                    self.gate.welcome(message, now)
                    self._send(Listening())
                case Dispatched():
                    self.gate.dispatched(message, now)
                case Passed():
                    self.gate.passed(message, now)
                case Refused():
                    self.gate.refused(message, now)
                case Evict():
                    self.gate.evicted(message, now)
                case Resources():
                    self.gate.resources(message, now)
                case EndpointsChanged():
                    self.gate.endpoints_changed(message, now)
                case PoolGone():
                    self.gate.pool_gone(message, now)
                case Standing():
                    self.standing = message
                    self.gate.standing(message.is_draining)

    def _new_router(self, key: str) -> Router:
        world = self.world
        return Router(
            scheduler=LeastLoaded(),
            options=FlowOptions(limits=world.limits, eviction=world.eviction),
            make_detector=at_most(-(-world.max_concurrency // world.size)),
            timers=world.timers,
            rng=random.Random(0),
            recorder=self.counts,
        )


class World:
    """A core and ``size`` workers, with a virtual clock."""

    def __init__(
        self,
        size: int = 2,
        *,
        resources: PoolResources,
        max_concurrency: int = 1,
        limits: FlowLimits | None = None,
        eviction: bool = False,
    ) -> None:
        self.size = size
        self.eviction = eviction
        self.resources = resources
        self.max_concurrency = max_concurrency
        self.limits = limits or FlowLimits()
        self.timers = Timers()
        self.clock = Clock(self.timers)
        self.core: CoreProcess | None = CoreProcess(self)
        self.workers = [WorkerProcess(self, number, 0) for number in range(size)]

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def router(self) -> Router:
        assert self.core is not None
        return self.core.router

    def start(self) -> "World":
        """Connect all workers, and let all be said."""
        for worker in self.workers:
            worker.connect()
        self.settle()
        return self

    def settle(self) -> None:
        """Let all that is on its way arrive."""
        while any(self._deliver_one(worker) for worker in self.workers):
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def kill_core(self) -> None:
        """Let the core die; its last words may have arrived before."""
        core, self.core = self.core, None
        assert core is not None
        core.stop_timers(self.now)
        for worker in self.workers:
            if worker.is_connected:
                worker.lose_connection()

    def start_core(self) -> None:
        """Let a new core come; the workers are yet to connect."""
        assert self.core is None
        self.core = CoreProcess(self)

    def kill_worker(self, number: int) -> WorkerProcess:
        """Let a worker die and another take its place, not connected yet; return the dead one."""
        dead = self.workers[number]
        if dead.is_connected:
            dead.lose_connection()
        dead.stop_timers()
        for request in dead.requests:
            request.is_over = True
        self.workers[number] = WorkerProcess(self, number, dead.restarts + 1)
        return dead

    @staticmethod
    def _deliver_one(worker: WorkerProcess) -> bool:
        for wire in (worker.to_core, worker.to_worker):
            if wire is not None and len(wire):
                wire.deliver()
                return True
        return False


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
