"""The core's end of the workers: it carries their questions to the pools, and the answers back.

No I/O: a session hands what is to be sent to its ``send``, and is given what has come.

A core that has just started does not know what runs. It decides nothing until every worker has told
it, or has had the time to: what runs is adopted first, so that limits hold, then all that waits is
offered in order of priority and arrival. After that a worker that joins is taken as it comes.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from epp.core.claims import RequestClaims
from epp.core.gate import Admission, Ending, Route
from epp.core.pools import Pools
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, PoolResources
from epp.core.timers import Timer, Timers
from epp.workers.known_pools import KnownPools
from epp.workers.messages import (
    Admit,
    Beat,
    CoreMessage,
    Dispatched,
    EndpointsChanged,
    Evict,
    Finish,
    Hello,
    Listening,
    PassBy,
    Passed,
    PoolGone,
    Progress,
    Refused,
    Reported,
    Reread,
    Resources,
    Running,
    ServedBy,
    Standing,
    Stats,
    Stop,
    Synced,
    Waiting,
    Welcome,
    Withdraw,
    WorkerMessage,
)
from epp.workers.tally import Tally

__all__ = ["Hub", "Session"]

logger = logging.getLogger(__name__)

_GATHERING_S: Final = 1.0


class _Entry:
    """An inference request of a worker: its waiter at its pool, then what holds its capacity.

    It has no ``admission`` as long as the hub has not opened.
    """

    __slots__ = ("_id", "_session", "admission", "claims", "since_s")

    def __init__(self, session: "Session", number: int, claims: RequestClaims, since_s: float):
        self._session = session
        self._id = number
        self.claims = claims
        self.since_s = since_s
        self.admission: Admission | None = None

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        """Tell the worker."""
        self._session.send(Dispatched(self._id, route, waited_s))

    def passed(self, destination: str, now: float) -> None:
        """An inference request does not pass."""
        raise AssertionError("an inference request was let pass")

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """Tell the worker, and hold it no longer."""
        del self._session.entries[self._id]
        self._session.send(Refused(self._id, outcome, retry_after_s))

    def evicted(self, retry_after_s: int, now: float) -> None:
        """Tell the worker, which will say when it has ended."""
        self._session.send(Evict(self._id, retry_after_s))


class _Passer:
    """The waiter of a request that is no inference: it has its answer at once."""

    __slots__ = ("_id", "_session")

    def __init__(self, session: "Session", number: int):
        self._session = session
        self._id = number

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        """What is no inference is not dispatched."""
        raise AssertionError("a request that is no inference was dispatched")

    def passed(self, destination: str, now: float) -> None:
        """Tell the worker."""
        self._session.send(Passed(self._id, destination))

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """Tell the worker."""
        self._session.send(Refused(self._id, outcome, retry_after_s))

    def evicted(self, retry_after_s: int, now: float) -> None:
        """What holds nothing is not evicted."""
        raise AssertionError("a request that is no inference was evicted")


class Session:
    """One connection of a worker. ``abort`` ends it without further words."""

    def __init__(self, send: Callable[[CoreMessage], None], abort: Callable[[], None]) -> None:
        self.send = send
        self.abort = abort
        self.worker: int | None = None
        self.entries: dict[int, _Entry] = {}
        self.held: dict[int, _Entry] = {}
        self.is_synced = False
        self.is_listening = False
        self.open_streams = 0


class Hub:
    """All workers of one EPP, which ask for its pools.

    ``workers`` is how many there should be. ``on_change`` is called when a worker has begun to
    listen or has left, and when a pool has come, changed or gone.
    """

    def __init__(self, pools: Pools, *, workers: int, timers: Timers, tally: Tally) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._pools = pools
        self._workers = workers
        self._timers = timers
        self._tally = tally
        self._sessions: dict[int, Session] = {}
        self._known = KnownPools()
        self._standing = Standing(is_ready=False, is_draining=False)
        self._stop: Stop | None = None
        # Workers that are older than the core may have read what is no more.
        self._has_news = tally.core_restarts > 0
        self._is_open = False
        self._gathering: Timer | None = None
        self._handlers: dict[type, Callable[[Session, Any, float], None]] = {
            Hello: self._on_hello,
            Running: self._on_running,
            Waiting: self._on_waiting,
            Synced: self._on_synced,
            Listening: self._on_listening,
            Admit: self._on_admit,
            PassBy: self._on_pass_by,
            Withdraw: self._on_withdraw,
            ServedBy: self._on_served_by,
            Reported: self._on_reported,
            Progress: self._on_progress,
            Finish: self._on_finish,
            Stats: self._on_stats,
        }

    @property
    def connected(self) -> int:
        """Workers that have said hello and are still there."""
        return len(self._sessions)

    @property
    def listening(self) -> int:
        """Workers that take connections of the proxy."""
        return sum(session.is_listening for session in self._sessions.values())

    @property
    def open_streams(self) -> dict[int, int]:
        """The streams that are open, by worker, as they told last."""
        return {worker: session.open_streams for worker, session in self._sessions.items()}

    # What the core says

    def announce_resources(self, resources: PoolResources) -> None:
        """Tell all workers what a pool is now."""
        self._known.put(resources)
        self._tell_all(Resources(resources))
        self.on_change()

    def announce_endpoints(self, key: str, changes: EndpointChanges) -> None:
        """Tell all workers what has become of some endpoints of a pool."""
        self._known.change(key, changes)
        self._tell_all(EndpointsChanged(key, changes))

    def announce_gone(self, key: str) -> None:
        """Tell all workers that there is no such pool any more."""
        self._known.remove(key)
        self._tell_all(PoolGone(key))
        self.on_change()

    def announce_configuration(self) -> None:
        """Tell all workers, and those that are yet to come, that the configuration has changed."""
        self._has_news = True
        self._tell_all(Reread())

    def announce_standing(self, *, is_ready: bool, is_draining: bool) -> None:
        """Tell all workers whether the whole is ready, and whether it is about to end."""
        self._standing = Standing(is_ready=is_ready, is_draining=is_draining)
        self._tell_all(self._standing)

    def stop(self, grace_s: float) -> None:
        """Tell all workers to end, their open streams within so many seconds."""
        self._stop = Stop(grace_s)
        self._tell_all(self._stop)

    # What the workers say

    def received(self, session: Session, messages: Iterable[WorkerMessage], now: float) -> None:
        """Take what a worker has said. Raises AssertionError for what makes no sense."""
        handlers = self._handlers
        for message in messages:
            handlers[type(message)](session, message, now)

    def left(self, session: Session, now: float) -> None:
        """A worker is gone, or its connection: what it held is free at once."""
        worker, session.worker = session.worker, None
        entries = list(session.entries.values())
        session.entries.clear()
        session.held.clear()
        for entry in entries:  # what waits first, or what runs would make room for it
            if entry.admission is not None and entry.admission.is_waiting:
                self._pools.withdraw(entry.admission, now)
                entry.admission = None
        for entry in entries:
            if entry.admission is not None:
                self._abort(entry.admission, now - entry.since_s, now)
        if worker is not None:
            del self._sessions[worker]
            logger.info("worker %d has left, requests=%d", worker, len(entries))
            self.on_change()

    # Messages

    def _on_hello(self, session: Session, hello: Hello, now: float) -> None:
        earlier = self._sessions.get(hello.worker)
        if earlier is not None:  # its end is not known here yet
            self.left(earlier, now)
            earlier.abort()
        session.worker = hello.worker
        self._sessions[hello.worker] = session
        self._tally.restarted(hello.worker, hello.restarts)
        session.send(Welcome(self._known.keys))
        if self._has_news:
            session.send(Reread())
        for resources in self._known.resources():
            session.send(Resources(resources))
        session.send(self._standing)
        if self._stop is not None:
            session.send(self._stop)
        if not self._is_open and self._gathering is None:
            self._gathering = self._timers.schedule(now + _GATHERING_S, self._open)

    def _on_running(self, session: Session, message: Running, now: float) -> None:
        entry = self._new_entry(session, message.id, message.claims, message.since_s)
        entry.admission = self._pools.adopt(
            message.claims, message.destination, message.since_s, entry, message.model
        )

    def _on_waiting(self, session: Session, message: Waiting, now: float) -> None:
        entry = self._new_entry(session, message.id, message.claims, message.since_s)
        session.held[message.id] = entry

    def _on_synced(self, session: Session, message: Synced, now: float) -> None:
        session.is_synced = True
        if self._is_open:
            self._offer_held([session], now)
        elif sum(other.is_synced for other in self._sessions.values()) >= self._workers:
            self._open(now)

    def _on_listening(self, session: Session, message: Listening, now: float) -> None:
        session.is_listening = True
        self.on_change()

    def _on_admit(self, session: Session, message: Admit, now: float) -> None:
        entry = self._new_entry(session, message.id, message.claims, now)
        if self._is_open:
            entry.admission = self._pools.admit(message.claims, entry, now)
        else:
            session.held[message.id] = entry

    def _on_pass_by(self, session: Session, message: PassBy, now: float) -> None:
        self._pools.pass_by(message.claims, _Passer(session, message.id), now)

    def _on_withdraw(self, session: Session, message: Withdraw, now: float) -> None:
        entry = session.entries.pop(message.id, None)
        if entry is None:
            return  # the answer that crossed it left nothing behind
        if entry.admission is None:
            del session.held[message.id]
        elif entry.admission.is_waiting:
            self._pools.withdraw(entry.admission, now)
        else:
            self._abort(entry.admission, message.waited_s, now)

    def _on_served_by(self, session: Session, message: ServedBy, now: float) -> None:
        admission = _dispatched(session.entries[message.id])
        self._pools.served_by(admission, message.destination, now)

    def _on_reported(self, session: Session, message: Reported, now: float) -> None:
        admission = _dispatched(session.entries[message.id])
        self._pools.reported(admission, message.load, now)

    def _on_progress(self, session: Session, message: Progress, now: float) -> None:
        admission = _dispatched(session.entries[message.id])
        self._pools.progress(admission, message.output_tokens, now)

    def _on_finish(self, session: Session, message: Finish, now: float) -> None:
        admission = _dispatched(session.entries.pop(message.id))
        self._pools.finish(admission, message.ending, now)

    def _on_stats(self, session: Session, message: Stats, now: float) -> None:
        session.open_streams = message.open_streams
        for reason, count in message.refused_early.items():
            for _ in range(count):
                self._pools.refused_early(reason)
        for reason, count in message.rewrites_skipped.items():
            for _ in range(count):
                self._pools.rewrite_skipped(reason)
        self._tally.add(message)
        session.send(Beat())

    # The start

    def _open(self, now: float) -> None:
        """Begin to decide."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._is_open = True
        self._offer_held((s for s in list(self._sessions.values()) if s.is_synced), now)

    def _offer_held(self, sessions: Iterable[Session], now: float) -> None:
        """Offer what waits in those sessions, as if it had been offered in its order."""
        held: list[tuple[int, float, Session, int, _Entry]] = []
        for session in sessions:
            for number, entry in session.held.items():
                priority = self._pools.priority_of(entry.claims)
                held.append((-priority, entry.since_s, session, number, entry))
            session.held = {}
        held.sort(key=lambda each: each[:2])
        for _, since_s, session, number, entry in held:
            if session.entries.get(number) is entry:
                entry.admission = self._pools.admit(entry.claims, entry, now, since_s)

    # Bookkeeping

    def _new_entry(
        self, session: Session, number: int, claims: RequestClaims, since_s: float
    ) -> _Entry:
        entry = session.entries[number] = _Entry(session, number, claims, since_s)
        return entry

    def _abort(self, admission: Admission, duration_s: float, now: float) -> None:
        """Give back what a request holds that nobody waits for any more."""
        ending = Ending(status=0, cause="aborted", duration_s=duration_s, response_bytes=None)
        self._pools.finish(admission, ending, now)

    def _tell_all(self, message: CoreMessage) -> None:
        for session in self._sessions.values():
            session.send(message)


def _dispatched(entry: _Entry) -> Admission:
    if entry.admission is None:
        raise AssertionError("a worker takes a request for dispatched that waits")
    return entry.admission
