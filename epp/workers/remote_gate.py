"""The gate of the exchanges in a worker: it asks the core over a socket, and copes without it.

No I/O: what is to be sent is handed to ``send``, what has come is given to the methods with the
names of the messages.

The table of admissions is the truth about what runs and waits in this worker; the connection to the
core is no more than a cache of it. Whenever there is a new core, or a new connection to the old
one, the whole table is told again, so nothing that was lost on the way needs any care.

Without a core, requests wait for a while. When none has come by then, pools of this worker's own
decide, by the resources that the core told of last: in order of priority, and with this worker's
share of the endpoints' limits.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from epp.core.claims import RequestClaims
from epp.core.flow import FlowOptions
from epp.core.gate import Admission, Ending, GateWaiter
from epp.core.objectives import DEFAULT_PRIORITY, priority_of
from epp.core.pool import EngineLoad
from epp.core.pools import Pools
from epp.core.request import Outcome
from epp.core.router import Router
from epp.core.timers import Timer, Timers
from epp.workers.admission import RemoteAdmission
from epp.workers.degraded import WorkerCounts
from epp.workers.known_pools import KnownPools
from epp.workers.messages import (
    Admit,
    Dispatched,
    EndpointsChanged,
    Evict,
    Finish,
    PassBy,
    Passed,
    PoolGone,
    Progress,
    Refused,
    Reported,
    Resources,
    Running,
    ServedBy,
    Synced,
    Waiting,
    Welcome,
    Withdraw,
    WorkerMessage,
)

__all__ = ["RemoteGate"]

_RETRY_SPREAD_S: Final = 5


class _Mode(Enum):
    """Who decides."""

    ATTACHED = "the core decides"
    DETACHED = "there is no core, but it is awaited"
    ALONE = "there is no core, and the worker decides"


_NEXT: Final[Mapping[_Mode, frozenset[_Mode]]] = MappingProxyType(
    {
        _Mode.ATTACHED: frozenset((_Mode.DETACHED,)),
        _Mode.DETACHED: frozenset((_Mode.ATTACHED, _Mode.ALONE)),
        _Mode.ALONE: frozenset((_Mode.ATTACHED,)),
    }
)


class RemoteGate:
    """The gate of all exchanges of one worker (:class:`epp.core.gate.Gate`).

    ``send`` sends a message to the core; it is called only between :meth:`welcome` and
    :meth:`lost`. ``new_router`` makes the router that decides for the pool with this key when no
    core has come within ``gap_timeout_s`` seconds, with ``counts`` as its recorder. ``pools`` is
    what the core has told of them. ``options`` say how much may wait for a core, and for how long.
    """

    def __init__(
        self,
        send: Callable[[WorkerMessage], None],
        *,
        new_router: Callable[[str], Router],
        counts: WorkerCounts,
        options: FlowOptions,
        gap_timeout_s: float,
        timers: Timers,
    ) -> None:
        self._send = send
        self._new_router = new_router
        self._counts = counts
        self._options = options
        self._gap_timeout_s = gap_timeout_s
        self._timers = timers
        self._mode = _Mode.DETACHED
        self._table: dict[int, RemoteAdmission] = {}
        self._last_id = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self.pools = KnownPools()
        self._is_draining = False
        self._local: Pools | None = None
        self._gap_timer: Timer | None = None

    def __len__(self) -> int:
        """Return how many requests run or wait."""
        return len(self._table)

    @property
    def has_core(self) -> bool:
        """Whether the core decides."""
        return self._mode is _Mode.ATTACHED

    # epp.core.gate.Gate

    def admit(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> RemoteAdmission:
        """Let an inference request wait for its turn."""
        admission = self._new_admission(claims, waiter, now, is_inference=True)
        self._waiting_bytes += claims.body_bytes
        if self._mode is _Mode.ATTACHED:
            self._send(Admit(admission.id, claims))
        elif self._local is not None:
            admission.local = self._local.admit(claims, admission, now)
        elif self._is_full:
            self._counts.refused(Outcome.REJECTED_CAPACITY)
            retry_after_s = 1 + admission.id % _RETRY_SPREAD_S
            admission.refused(Outcome.REJECTED_CAPACITY, retry_after_s, now)
        return admission

    def pass_by(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> RemoteAdmission:
        """Let a request go that is no inference."""
        admission = self._new_admission(claims, waiter, now, is_inference=False)
        if self._mode is _Mode.ATTACHED:
            self._send(PassBy(admission.id, claims))
        elif self._local is not None:
            self._local.pass_by(claims, admission, now)
        return admission

    def withdraw(self, admission: Admission, now: float) -> None:
        """Nobody waits for this request any more."""
        own = _own(admission)
        if not own.is_waiting:
            raise AssertionError("a request was withdrawn that does not wait")
        self.forget(own)
        if self._mode is _Mode.ATTACHED:
            self._send(Withdraw(own.id, now - own.since_s))
        elif self._local is not None and own.local is not None:
            self._local.withdraw(own.local, now)

    def served_by(self, admission: Admission, destination: str, now: float) -> None:
        """The proxy says that this ``ip:port`` really serves the dispatched request."""
        own = _own(admission)
        if destination == own.destination:
            return
        pool = self.pools.find(own.claims)
        if pool is None or destination not in pool.endpoints:
            return
        own.destination = destination
        if self._mode is _Mode.ATTACHED:
            self._send(ServedBy(own.id, destination))
        elif self._local is not None and own.local is not None:
            self._local.served_by(own.local, destination, now)

    def reported(self, admission: Admission, load: EngineLoad, now: float) -> None:
        """The engine that serves the dispatched request tells its load with the response."""
        own = _own(admission)
        if self._mode is _Mode.ATTACHED:
            self._send(Reported(own.id, load))
        elif self._local is not None and own.local is not None:
            self._local.reported(own.local, load, now)

    def progress(self, admission: Admission, output_tokens: int, now: float) -> None:
        """The response of a dispatched request has brought so many tokens by now."""
        own = _own(admission)
        if self._mode is _Mode.ATTACHED:
            self._send(Progress(own.id, output_tokens))
        elif self._local is not None and own.local is not None:
            self._local.progress(own.local, output_tokens, now)

    def finish(self, admission: Admission, ending: Ending, now: float) -> None:
        """The response of a dispatched request has ended, whichever way."""
        own = _own(admission)
        if own.is_waiting:
            raise AssertionError("a request ended that waits")
        del self._table[own.id]
        if self._mode is _Mode.ATTACHED:
            self._send(Finish(own.id, ending))
        elif self._local is not None and own.local is not None:
            self._local.finish(own.local, ending, now)

    def refused_early(self, reason: str) -> None:
        """Count an answer that an exchange gave by itself."""
        self._counts.refused_early(reason)

    def rewrite_skipped(self, reason: str) -> None:
        """Count what an exchange could not rewrite."""
        self._counts.rewrite_skipped(reason)

    # What the core says

    def welcome(self, message: Welcome, now: float) -> None:
        """There is a core: tell it all that runs and waits, in order of arrival."""
        self.pools.keep(message.pools)
        self._leave_gap(now)
        self._enter(_Mode.ATTACHED)
        for admission in self._table.values():
            number, claims, since_s = admission.id, admission.claims, admission.since_s
            if not admission.is_inference:
                self._send(PassBy(number, claims))
            elif admission.destination is None:
                self._send(Waiting(number, claims, since_s))
            else:
                destination, model = admission.destination, admission.model
                self._send(Running(number, claims, destination, since_s, model))
        self._send(Synced())

    def dispatched(self, message: Dispatched, now: float) -> None:
        """Pass the word on, unless the request has been withdrawn meanwhile."""
        admission = self._table.get(message.id)
        if admission is not None:
            admission.dispatched(message.route, message.waited_s, now)

    def passed(self, message: Passed, now: float) -> None:
        """Pass the word on, unless the request has been withdrawn meanwhile."""
        admission = self._table.get(message.id)
        if admission is not None:
            admission.passed(message.destination, now)

    def refused(self, message: Refused, now: float) -> None:
        """Pass the word on, unless the request has been withdrawn meanwhile."""
        admission = self._table.get(message.id)
        if admission is not None:
            admission.refused(message.outcome, message.retry_after_s, now)

    def evicted(self, message: Evict, now: float) -> None:
        """Pass the word on, unless the request has ended meanwhile."""
        admission = self._table.get(message.id)
        if admission is not None:
            admission.evicted(message.retry_after_s, now)

    def resources(self, message: Resources, now: float) -> None:
        """Remember a pool for the time in which there may be no core."""
        self.pools.put(message.resources)

    def endpoints_changed(self, message: EndpointsChanged, now: float) -> None:
        """Remember what has become of a pool's endpoints."""
        self.pools.change(message.key, message.changes)

    def pool_gone(self, message: PoolGone, now: float) -> None:
        """Forget a pool."""
        self.pools.remove(message.key)

    def standing(self, is_draining: bool) -> None:
        """Remember whether new requests are taken."""
        self._is_draining = is_draining

    def reconfigure(self, options: FlowOptions) -> None:
        """Go by other options from now on, also for what waits already."""
        self._options = options

    # What happens to the core, and to the worker

    def lost(self, now: float) -> None:
        """The core, or the connection to it, is gone."""
        if self._mode is not _Mode.ATTACHED:
            return
        self._enter(_Mode.DETACHED)
        self._counts.gap(True, now)
        self._gap_timer = self._timers.schedule(now + self._gap_timeout_s, self._decide_alone)

    def shut_down(self, now: float) -> None:
        """Take no new requests; refuse those that wait, if there is no core to decide."""
        self._is_draining = True
        if self._mode is _Mode.DETACHED:
            self._decide_alone(now)
        elif self._local is not None:
            self._local.begin_drain()
            self._local.end_drain(now)

    # epp.workers.admission.AdmissionKeeper

    def stopped_waiting(self, admission: RemoteAdmission) -> None:
        """A request has its answer. Raises AssertionError if it has had one."""
        if not admission.is_waiting:
            raise AssertionError("a request was answered twice")
        admission.is_waiting = False
        self._waiting -= 1
        if admission.is_inference:
            self._waiting_bytes -= admission.claims.body_bytes

    def forget(self, admission: RemoteAdmission) -> None:
        """A request that has waited is none of the gate's business any more."""
        self.stopped_waiting(admission)
        del self._table[admission.id]

    def deadline_s(self, admission: RemoteAdmission) -> float | None:
        """Return when a wait is over at the latest, by this worker's own limits."""
        claims = admission.claims
        own_s, priority = None, DEFAULT_PRIORITY
        pool = self.pools.find(claims)
        if admission.is_inference:
            own_s = claims.wait_limit_s
            priority = priority_of(pool.objectives if pool else {}, claims.objective)
        is_empty = pool is None or not pool.endpoints
        budget_s = self._options.budget_s(priority, own_s, pool_is_empty=is_empty)
        if budget_s is None:
            return None
        gap_s = 0.0 if self._mode is _Mode.ATTACHED else self._gap_timeout_s
        return admission.since_s + budget_s + gap_s

    # The gap

    def _decide_alone(self, now: float) -> None:
        """Nobody has come: take over what runs, and decide on what waits."""
        self._cancel_gap_timer()
        self._enter(_Mode.ALONE)
        local = self._local = Pools(self._new_router, self._counts)
        for resources in self.pools.resources():
            local.apply(resources, now)
        if self._is_draining:
            local.begin_drain()
        waiting: list[tuple[int, RemoteAdmission]] = []
        for admission in list(self._table.values()):
            claims, destination = admission.claims, admission.destination
            if not admission.is_inference:
                local.pass_by(claims, admission, now)
            elif destination is None:
                waiting.append((-local.priority_of(claims), admission))
            else:
                since_s, model = admission.since_s, admission.model
                admission.local = local.adopt(claims, destination, since_s, admission, model)
        waiting.sort(key=lambda entry: entry[0])
        for _, admission in waiting:
            if admission.is_waiting:  # whoever heard before may have withdrawn it
                since_s = admission.since_s
                admission.local = local.admit(admission.claims, admission, now, since_s)

    def _leave_gap(self, now: float) -> None:
        self._cancel_gap_timer()
        pools, self._local = self._local, None
        for admission in self._table.values():
            local, admission.local = admission.local, None
            if pools is not None and local is not None and local.is_waiting:
                pools.withdraw(local, now)
        self._counts.gap(False, now)

    def _cancel_gap_timer(self) -> None:
        if self._gap_timer is not None:
            self._gap_timer.cancel()
            self._gap_timer = None

    # Bookkeeping

    def _new_admission(
        self,
        claims: RequestClaims,
        waiter: GateWaiter,
        now: float,
        *,
        is_inference: bool,
    ) -> RemoteAdmission:
        self._last_id += 1
        admission = RemoteAdmission(
            self, self._last_id, claims, waiter, now, is_inference=is_inference
        )
        self._table[admission.id] = admission
        self._waiting += 1
        return admission

    @property
    def _is_full(self) -> bool:
        limits = self._options.limits
        return self._waiting > limits.max_requests or self._waiting_bytes > limits.max_bytes

    def _enter(self, mode: _Mode) -> None:
        if mode not in _NEXT[self._mode]:
            raise AssertionError(f"{self._mode} cannot become {mode}")
        self._mode = mode


def _own(admission: Admission) -> RemoteAdmission:
    if not isinstance(admission, RemoteAdmission):
        raise AssertionError("the admission is of another gate")
    return admission
