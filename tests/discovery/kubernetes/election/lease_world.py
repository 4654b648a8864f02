"""A model of several electors, of the API server and of everything between them that fails."""

import heapq
import random
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from epp.discovery.kubernetes.election.election import Election, LeaseRecord, Read, Wait, Write

LEASE_DURATION_S = 8.0
RENEW_INTERVAL_S = 2.0
TIMEOUT_S = LEASE_DURATION_S / 2
LATENCY_S = 0.01


class Fault(NamedTuple):
    """What happens to one candidate (or all: -1) between two times.

    ``cut``: nothing arrives. ``deaf``: requests arrive, answers do not. ``late``: requests arrive
    up to 20 s late, though not after the fault. ``errors``: all requests fail. ``half-open``: the
    watch tells nothing. ``unwatched``: there is no watch, and the candidate knows it. ``paused``:
    the process does nothing.
    """

    kind: str
    candidate: int
    begins_s: float
    ends_s: float


class Candidate:
    def __init__(self, world: "World", index: int) -> None:
        self.world = world
        self.index = index
        self.name = f"epp-{index}"
        # Their clocks have nothing to do with each other.
        self.clock_offset_s = world.rng.uniform(-1e6, 1e6)
        self.start()
        self.is_alive = True

    def start(self) -> None:
        self.request = 0
        self.wakes = 0
        self.is_asking = False
        self.election = Election(
            self.name,
            lease_duration_s=LEASE_DURATION_S,
            renew_interval_s=RENEW_INTERVAL_S,
            rng=random.Random(self.index),
        )

    def local(self, now: float) -> float:
        return now + self.clock_offset_s

    @property
    def may_write(self) -> bool:
        return self.is_alive and self.election.may_write(self.local(self.world.now))

    @property
    def is_leader(self) -> bool:
        return self.is_alive and self.election.is_leader

    def act(self) -> None:
        """Do what the election wants; come back when that may have changed."""
        if not self.is_alive or self.is_asking or self.election.is_resigned:
            return
        world = self.world
        self.election.is_watched = not world.suffers(self, "cut", "unwatched")
        step = self.election.next(self.local(world.now))
        if isinstance(step, Wait):
            delay_s = min(step.until_s - self.local(world.now), RENEW_INTERVAL_S)
            self.wakes += 1
            wakes = self.wakes
            wake_at_s = world.now + max(delay_s, 1e-6)
            world.at(wake_at_s, self, lambda: self.act() if wakes == self.wakes else None)
        else:
            self.ask(step)

    def ask(self, step: Read | Write) -> None:
        world = self.world
        self.is_asking = True
        self.request += 1
        request, sent_at_s = self.request, self.local(world.now)

        def answer(tell: Callable[[], None]) -> None:
            if self.is_alive and request == self.request and self.is_asking:
                self.is_asking = False
                tell()
                self.act()

        def fail() -> None:
            self.election.failed(self.local(world.now))

        def arrive() -> None:
            if world.suffers(self, "cut"):
                return
            tell = fail if world.suffers(self, "errors") else world.serve(self, step, sent_at_s)
            if not world.suffers(self, "deaf"):
                world.at(world.now + LATENCY_S, self, lambda: answer(tell))

        world.at(world.now + TIMEOUT_S, self, lambda: answer(fail))
        if not world.suffers(self, "cut"):
            world.push(world.now + world.delay_s(self), arrive)

    def resign(self) -> None:
        """As an elector does it: lead no more, then make the Lease free."""
        self.election.resign()
        record = self.election.vacancy()
        if record is not None:
            self.ask(Write(record))


class World:
    """``lease`` is what the API server has, ``now`` the time of the world."""

    def __init__(self, *, candidates: int, faults: list[Fault], seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.version = 100
        self.lease: LeaseRecord | None = None
        self.writes: list[tuple[float, str]] = []
        self._faults = faults
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.candidates = [Candidate(self, index) for index in range(candidates)]
        for candidate in self.candidates:
            self.push(self.rng.uniform(0.0, 1.0), candidate.act)

    @property
    def leaders(self) -> list[str]:
        return [each.name for each in self.candidates if each.is_leader]

    @property
    def writers(self) -> list[str]:
        return [each.name for each in self.candidates if each.may_write]

    def named(self, name: str) -> Candidate:
        return next(each for each in self.candidates if each.name == name)

    def run(self, until_s: float, check: Callable[[], None] = lambda: None) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now, _, event = heapq.heappop(self._events)
            event()
            check()
        self.now = until_s

    def run_until_led(self) -> float:
        """Return how long it has taken."""
        began_s = self.now
        while not self.leaders:
            assert self._events[0][0] < began_s + 60.0
            self.run(self._events[0][0])
        return self.now - began_s

    def push(self, time_s: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time_s, self._count, event))

    def at(self, time_s: float, candidate: Candidate, event: Callable[[], None]) -> None:
        """Let something happen in a candidate, once it is not paused."""

        def happen() -> None:
            pause = self._fault(candidate, "paused")
            if pause is None:
                event()
            else:
                self.push(pause.ends_s, happen)

        self.push(time_s, happen)

    def suffers(self, candidate: Candidate, *kinds: str) -> bool:
        return any(self._fault(candidate, kind) for kind in kinds)

    def delay_s(self, candidate: Candidate) -> float:
        late = self._fault(candidate, "late")
        if late is None:
            return LATENCY_S
        return min(self.rng.uniform(0.0, 20.0), late.ends_s - self.now + LATENCY_S)

    def serve(
        self, candidate: Candidate, step: Read | Write, sent_at_s: float
    ) -> Callable[[], None]:
        """Do what is asked now; return what is to be told once the answer is there."""
        election = candidate.election
        if isinstance(step, Read):
            lease = self.lease
            return lambda: election.observed(lease, candidate.local(self.now))
        if step.record.version != ("" if self.lease is None else self.lease.version):
            return lambda: election.conflicted(candidate.local(self.now))
        lease = self.put(step.record)
        return lambda: election.wrote(lease, sent_at_s=sent_at_s, now=candidate.local(self.now))

    def put(self, record: LeaseRecord) -> LeaseRecord:
        self.version += 1
        lease = msgspec.structs.replace(
            record,
            version=str(self.version),
            acquired=record.acquired or f"{self.now:.6f}",
            renewed=record.renewed or f"{self.now:.6f}",
        )
        self.lease = lease
        self.writes.append((self.now, lease.holder))
        self.announce(lambda each: each.election.observed(lease, each.local(self.now)))
        return lease

    def delete(self) -> None:
        self.lease = None
        self.announce(lambda each: each.election.doubted())

    def announce(self, tell: Callable[[Candidate], None]) -> None:
        for candidate in self.candidates:
            if not self.suffers(candidate, "cut", "half-open", "unwatched"):
                # Sometimes later than the answer to a request.
                delay_s = self.rng.choice((0.5, 2.0)) * LATENCY_S
                self.at(
                    self.now + delay_s, candidate, lambda each=candidate: self._tell(each, tell)
                )

    def _tell(self, candidate: Candidate, tell: Callable[[Candidate], None]) -> None:
        if candidate.is_alive:
            tell(candidate)
            candidate.act()

    def _fault(self, candidate: Candidate, kind: str) -> Fault | None:
        for fault in self._faults:
            is_its = fault.candidate in (-1, candidate.index)
            if fault.kind == kind and is_its and fault.begins_s <= self.now < fault.ends_s:
                return fault
        return None
