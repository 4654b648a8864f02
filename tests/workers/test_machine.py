"""Workers and a core under random requests, deaths and delays.

Whatever happens: every request has exactly one answer, what is dispatched is what is held at the
core once all has been said, limits hold except for what was adopted, nothing of lower priority is
dispatched while something of higher priority could go, and at rest nothing is held anywhere.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epp.core.request import Outcome

from ..core.support import destination, resources
from .world import GAP_S, Request, WorkerProcess, World

OBJECTIVES = {"urgent": 10, "": 0, "batch": -10}
WORKERS, LIMIT = 3, 2
workers = st.integers(0, WORKERS - 1)
members = st.sets(st.integers(1, 3), min_size=1)


class WorkersMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World
        self.all_requests: list[Request] = []
        self.may_exceed = False

    @initialize(numbers=members)
    def start(self, numbers: set[int]) -> None:
        self.world = World(
            WORKERS, resources=resources(sorted(numbers), OBJECTIVES), max_concurrency=LIMIT
        ).start()

    # What comes and goes

    @rule(number=workers, objective=st.sampled_from(sorted(OBJECTIVES)))
    def admit(self, number: int, objective: str) -> None:
        self.all_requests.append(self.world.workers[number].admit(objective))

    @rule(number=workers)
    def pass_by(self, number: int) -> None:
        self.all_requests.append(self.world.workers[number].pass_by())

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        requests = [request for request in self.alive() if request.is_running]
        if requests:
            self.leave(data.draw(st.sampled_from(requests)))

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        requests = [request for request in self.alive() if request.is_waiting]
        if requests:
            self.leave(data.draw(st.sampled_from(requests)))

    @rule(data=st.data(), number=st.integers(1, 4))
    def served_by(self, data: st.DataObject, number: int) -> None:
        requests = [request for request in self.alive() if request.is_running]
        if requests:
            request = data.draw(st.sampled_from(requests))
            request.worker.served_by(request, destination(number))
            self.may_exceed = True

    # What is said

    @rule(number=workers, count=st.integers(1, 4))
    def core_hears(self, number: int, count: int) -> None:
        wire = self.world.workers[number].to_core
        if wire is not None:
            wire.deliver(count)

    @rule(number=workers, count=st.integers(1, 4))
    def worker_hears(self, number: int, count: int) -> None:
        wire = self.world.workers[number].to_worker
        if wire is not None:
            wire.deliver(count)

    # What breaks

    @rule(number=workers)
    def lose_connection(self, number: int) -> None:
        worker = self.world.workers[number]
        if worker.is_connected:
            worker.lose_connection()
            self.may_exceed = True  # what runs on is known to the core again only later

    @rule(number=workers)
    def kill_worker(self, number: int) -> None:
        self.world.kill_worker(number)

    @precondition(lambda self: self.world.core is not None)
    @rule()
    def kill_core(self) -> None:
        self.world.kill_core()
        self.may_exceed = True

    @precondition(lambda self: self.world.core is None)
    @rule()
    def start_core(self) -> None:
        self.world.start_core()

    @precondition(lambda self: self.world.core is not None)
    @rule(number=workers)
    def connect(self, number: int) -> None:
        if not self.world.workers[number].is_connected:
            self.world.workers[number].connect()

    @rule(seconds=st.sampled_from([0.01, 0.5, GAP_S, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.core is not None)
    @rule(numbers=members)
    def change_membership(self, numbers: set[int]) -> None:
        self.world.resources = resources(sorted(numbers), OBJECTIVES)
        assert self.world.core is not None
        self.world.core.apply(self.world.resources, self.world.now)

    # What holds

    @invariant()
    def limits_hold(self) -> None:
        if self.may_exceed or self.world.core is None:
            return
        for _, in_flight, limit in self.world.router.pool:
            assert in_flight <= limit

    @invariant()
    def priority_is_strict(self) -> None:
        """Whoever waits at the core waits because nothing is free for it."""
        if self.world.core is None or not self.world.router.flow.requests:
            return
        assert not self.world.router.pool.with_room().any()

    @invariant()
    def tables_are_exact(self) -> None:
        for worker in self.world.workers:
            held = [r for r in worker.requests if r.is_running or r.is_waiting]
            assert len(worker.gate) == len(held)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        if world.core is None:
            world.start_core()
        for worker in world.workers:
            if not worker.is_connected:
                worker.connect()
        world.settle()
        assert all(worker.gate.has_core for worker in world.workers)
        self.core_knows_what_runs()
        while alive := [r for r in self.alive() if r.is_running or r.is_waiting]:
            for request in alive:
                self.leave(request)
            world.settle()
        core = world.core
        assert core is not None
        assert core.router.pool.total_in_flight == 0
        assert core.router.flow.requests == 0
        taken = core.recorder.outcomes[Outcome.DISPATCHED] + core.recorder.adoptions
        assert len(core.recorder.endings) == taken
        for worker in world.workers:
            assert not len(worker.gate)
            assert worker.session is not None
            assert not worker.session.entries
            assert not worker.session.held
        assert not len(world.timers)

    def core_knows_what_runs(self) -> None:
        """After all has been said, both sides hold the same."""
        running: dict[str, int] = {}
        waiting = 0
        for request in self.alive():
            if request.is_running:
                where = request.admission.destination
                running[where] = running.get(where, 0) + 1
            waiting += request.is_waiting
        assert self.world.core is not None
        pool = self.world.router.pool
        assert pool.total_in_flight == sum(running.values())
        for endpoint, in_flight, _ in pool:
            assert in_flight == running.get(endpoint.destination, 0)
        assert self.world.router.flow.requests == waiting

    # Helpers

    def alive(self) -> list[Request]:
        return [request for request in self.all_requests if not request.is_over]

    @staticmethod
    def leave(request: Request) -> None:
        worker: WorkerProcess = request.worker
        worker.leave(request)


class LimitsMachine(WorkersMachine):
    """The same where nothing breaks but workers: then limits hold at every moment."""

    served_by: Any = None
    lose_connection: Any = None
    kill_core: Any = None
    start_core: Any = None


TestWorkers = WorkersMachine.TestCase
TestWorkers.settings = settings(max_examples=80, stateful_step_count=50)
TestLimits = LimitsMachine.TestCase
TestLimits.settings = settings(max_examples=30, stateful_step_count=50)
