"""When a request goes.

The rules, in short: capacity goes to the highest priority that can use it, within a priority to the
oldest request; releasing a request, picking its endpoint and taking the lease are one step; every
wait has a budget and ends in exactly one outcome. There is no tick: whatever could make a dispatch
possible runs the dispatch loop, which drains all that can go.

The controller knows nothing of HTTP: its waiters are told ``dispatched`` or ``refused`` and say the
rest.
"""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from epp.core.flow.drain_rate import DrainRate
from epp.core.flow.limits import FlowLimits
from epp.core.flow.queue import Band, Ticket
from epp.core.pool import Lease, Mask, Pool
from epp.core.ports import Recorder
from epp.core.request import Outcome, Request
from epp.core.scheduling import Scheduler
from epp.core.timers import Timers

__all__ = ["FlowController", "Waiter"]

_DISPATCHED: Final = Outcome.DISPATCHED  # read off its enumeration once: that takes a while
_UNKNOWN_RETRY_S = 5
_MAX_RETRY_S = 60
_JITTER = 0.2
_MAX_CACHED_MASKS = 1_000


class Waiter(Protocol):
    """Who waits for the decision on a request: exactly one of the two is called, once."""

    def dispatched(self, lease: Lease, waited_s: float, now: float) -> None:
        """The request goes to ``lease.endpoint``; the waiter now owns the lease."""

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """The request does not go; ``retry_after_s`` is the advice for the client, whole
        seconds."""


class FlowController:
    """The queue of one pool.

    ``recorder`` is told of every outcome. Waiters are called from within the inputs (:meth:`offer`,
    :meth:`pump`, :meth:`membership_changed`, :meth:`end_drain`, and timers), always after the state
    is consistent again, so that they may call back.
    """

    def __init__(
        self,
        pool: Pool,
        scheduler: Scheduler,
        limits: FlowLimits,
        *,
        timers: Timers,
        rng: random.Random,
        recorder: Recorder,
    ) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._limits = limits
        self._timers = timers
        self._rng = rng
        self._recorder = recorder
        self._bands: dict[int, Band] = {}
        self._descending: list[Band] = []
        self._masks: dict[frozenset[str], Mask] = {}
        self._masks_version = -1
        self._drain_rate = DrainRate()
        self._sequence = 0
        self._pool_is_empty = not len(pool)
        self._regime_since_s = -math.inf
        self._is_pumping = False
        self._is_draining = False
        self.requests = 0
        self.bytes = 0
        self.on_empty: Callable[[], None] = lambda: None

    # Inputs

    def offer(
        self, request: Request, waiter: Waiter, now: float, since_s: float | None = None
    ) -> Ticket:
        """Queue a request; dispatch it at once if it can go, refuse it at once if it cannot wait.

        The waiter may be called before this returns; then the ticket ``is_waiting`` no more.
        ``since_s`` is when its wait began, where that was before: in the queue of a controller that
        is no more. Its order is that of the offers.
        """
        self._sequence += 1
        ticket = Ticket(request, waiter, self._sequence, now if since_s is None else since_s)
        if self._is_draining:
            self._refuse_newcomer(ticket, Outcome.SHUTTING_DOWN, now)
        elif not self._has_candidates(request):
            self._refuse_newcomer(ticket, Outcome.REJECTED_NO_ENDPOINTS, now)
        elif since_s is not None or not self._dispatch_at_once(ticket, now):
            self._enter(ticket, now)
            self.pump(now)
            if ticket.is_waiting:
                self._let_wait_or_refuse(ticket, now)
        return ticket

    def cancel(self, ticket: Ticket, now: float) -> None:
        """Take a request out of the queue because nobody waits for it any more. Tells no waiter."""
        self._leave(ticket, now)
        self._recorder.wait_ended(ticket.request, Outcome.CANCELLED, now - ticket.entered_s)

    def pump(self, now: float) -> None:
        """Dispatch all that can go. To be called whenever capacity may have become free."""
        if self._is_pumping:
            return  # the loop that runs now sees what has changed
        self._is_pumping = True
        try:
            while self.requests and (placed := self._place_next()) is not None:
                ticket, lease = placed
                waited_s = now - ticket.entered_s
                if waited_s > 0:
                    self._drain_rate.dispatched(now)
                self._leave(ticket, now)
                self._tell_dispatched(ticket, lease, waited_s, now)
        finally:
            self._is_pumping = False

    def membership_changed(self, now: float) -> None:
        """React to a change of the pool's endpoints."""
        was_empty, self._pool_is_empty = self._pool_is_empty, not len(self._pool)
        if was_empty != self._pool_is_empty and self.requests:
            # A change that nobody waited through starts no budget afresh: not the first endpoints
            # of a controller that takes over those who have waited elsewhere.
            self._regime_since_s = now
            for ticket in list(self._waiting()):
                self._set_deadline(ticket)
        for ticket in list(self._waiting()):
            if ticket.is_waiting and not self._has_candidates(ticket.request):
                self._refuse(ticket, Outcome.REJECTED_NO_ENDPOINTS, now)
        self.pump(now)

    def begin_drain(self) -> None:
        """Take no new requests; those that wait go on being dispatched."""
        self._is_draining = True

    def end_drain(self, now: float) -> None:
        """Refuse whatever still waits."""
        for ticket in list(self._waiting()):
            if ticket.is_waiting:
                self._refuse(ticket, Outcome.SHUTTING_DOWN, now)

    # Queries

    def bands(self) -> list[Band]:
        """Return the bands that exist, highest priority first."""
        return list(self._descending)

    def utilization(self) -> list[tuple[str, int, int]]:
        """Return how full the queue is: (``requests`` or ``bytes``, used, limit) each."""
        limits = self._limits
        return [
            ("requests", self.requests, limits.max_requests),
            ("bytes", self.bytes, limits.max_bytes),
        ]

    def ensure_band(self, priority: int) -> Band:
        """Return the band of a priority, made if it is new."""
        band = self._bands.get(priority)
        if band is None:
            band = self._bands[priority] = Band(priority)
            self._descending = sorted(self._bands.values(), key=lambda b: -b.priority)
        return band

    def retry_after_s(self, now: float) -> int:
        """Return when a refused client should come back: when the queue of now has drained.

        Whole seconds, 1 to 60, spread by chance by a fifth so that refused clients do not come back
        together; a few seconds where the drain rate is not known.
        """
        rate_per_s = self._drain_rate.per_s(now)
        if rate_per_s is None:
            return self._rng.randint(1, _UNKNOWN_RETRY_S)
        wait_s = (self.requests + 1) / rate_per_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)
        return max(1, min(_MAX_RETRY_S, math.ceil(wait_s)))

    # The dispatch

    def _dispatch_at_once(self, ticket: Ticket, now: float) -> bool:
        """Dispatch a newcomer that finds room and nobody waiting, as most do, past the queue."""
        if self.requests or self._is_pumping or not self._pool.has_room:
            return False
        lease = self._place(ticket.request)
        if lease is None:
            return False
        ticket.is_waiting = False
        self._drain_rate.flows(now)
        self._tell_dispatched(ticket, lease, 0.0, now)
        return True

    def _place_next(self) -> tuple[Ticket, Lease] | None:
        """Take the lease for the next request that can go, or return None if none can."""
        if not self._pool.has_room:
            return None
        for band in self._descending:
            if not band.requests:
                continue
            for ticket in band.heads():
                lease = self._place(ticket.request)
                if lease is not None:
                    return ticket, lease
        return None

    def _place(self, request: Request) -> Lease | None:
        room = self._pool.with_room()
        if request.subset is not None:
            room = room & self._subset_mask(request.subset)
        slot = self._scheduler.pick(request, self._pool, room, self._rng)
        return None if slot is None else self._pool.lease(slot)

    def _subset_mask(self, subset: frozenset[str]) -> Mask:
        if self._masks_version != self._pool.version:
            self._masks.clear()
            self._masks_version = self._pool.version
        mask = self._masks.get(subset)
        if mask is None:
            if len(self._masks) >= _MAX_CACHED_MASKS:
                self._masks.clear()
            mask = self._masks[subset] = self._pool.mask_of(subset)
        return mask

    def _has_candidates(self, request: Request) -> bool:
        return request.subset is None or bool(self._subset_mask(request.subset).any())

    # The wait

    def _let_wait_or_refuse(self, ticket: Ticket, now: float) -> None:
        if self._is_hopeless(ticket, now):
            self._refuse(ticket, Outcome.REJECTED_WAIT, now)
            return
        victims = self._victims_for(ticket)
        if victims is None:
            empty = self._pool_is_empty
            outcome = Outcome.REJECTED_NO_ENDPOINTS if empty else Outcome.REJECTED_CAPACITY
            self._refuse(ticket, outcome, now)
            return
        self._set_deadline(ticket)
        for victim in victims:
            if victim.is_waiting:  # one that was told before may have withdrawn it
                self._refuse(victim, Outcome.DISPLACED, now)

    def _victims_for(self, ticket: Ticket) -> list[Ticket] | None:
        """Return who must give way so that the queue holds its limits, None if it cannot.

        The youngest of the lowest band go first, and only those of bands strictly below.
        """
        limits = self._limits
        band = self._bands[ticket.request.flow.priority]
        if band.requests > limits.band_max_requests or band.bytes > limits.band_max_bytes:
            return None
        requests_over = self.requests - limits.max_requests
        bytes_over = self.bytes - limits.max_bytes
        victims: list[Ticket] = []
        lower = (b for b in reversed(self._descending) if b.priority < band.priority)
        for victim in itertools.chain.from_iterable(b.youngest() for b in lower):
            if requests_over <= 0 and bytes_over <= 0:
                break
            if requests_over <= 0 and not victim.request.body_bytes:
                continue
            victims.append(victim)
            requests_over -= 1
            bytes_over -= victim.request.body_bytes
        return victims if requests_over <= 0 and bytes_over <= 0 else None

    def _is_hopeless(self, ticket: Ticket, now: float) -> bool:
        budget_s = self._budget_s(ticket.request)
        if not self._limits.reject_hopeless or self._pool_is_empty or budget_s is None:
            return False
        if ticket.request.subset is not None:
            return False  # the drain rate of the pool says nothing about some of its endpoints
        rate_per_s = self._drain_rate.per_s(now)
        if rate_per_s is None:
            return False
        priority = ticket.request.flow.priority
        ahead = sum(b.requests for b in self._descending if b.priority >= priority) - 1
        return ahead > rate_per_s * budget_s

    def _budget_s(self, request: Request) -> float | None:
        limits = self._limits
        general_s = limits.no_endpoint_wait_limit_s if self._pool_is_empty else limits.wait_limit_s
        own_s = request.wait_limit_s
        if general_s is None or own_s is None:
            return own_s if general_s is None else general_s
        return min(general_s, own_s)

    def _set_deadline(self, ticket: Ticket) -> None:
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        budget_s = self._budget_s(ticket.request)
        if budget_s is not None:
            starts_s = max(ticket.entered_s, self._regime_since_s)
            ticket.timer = self._timers.schedule(
                starts_s + budget_s, lambda now: self._expire(ticket, now)
            )

    def _expire(self, ticket: Ticket, now: float) -> None:
        empty = self._pool_is_empty
        self._refuse(ticket, Outcome.EXPIRED_NO_ENDPOINTS if empty else Outcome.EXPIRED, now)

    # Bookkeeping

    def _waiting(self) -> Iterator[Ticket]:
        for band in self._descending:
            yield from band

    def _enter(self, ticket: Ticket, now: float) -> None:
        self.ensure_band(ticket.request.flow.priority).add(ticket)
        self.requests += 1
        self.bytes += ticket.request.body_bytes
        self._drain_rate.backlog(True, now)

    def _leave(self, ticket: Ticket, now: float) -> None:
        """Take a ticket out of the queue. Raises AssertionError if it has left before."""
        if not ticket.is_waiting:
            raise AssertionError("a request left the queue twice")
        ticket.is_waiting = False
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
        self._bands[ticket.request.flow.priority].remove(ticket)
        self.requests -= 1
        self.bytes -= ticket.request.body_bytes
        if not self.requests:
            self._drain_rate.backlog(False, now)
            self.on_empty()

    def _tell_dispatched(self, ticket: Ticket, lease: Lease, waited_s: float, now: float) -> None:
        self._recorder.wait_ended(ticket.request, _DISPATCHED, waited_s)
        ticket.waiter.dispatched(lease, waited_s, now)

    def _refuse(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        self._leave(ticket, now)
        self._tell_refused(ticket, outcome, now)

    def _refuse_newcomer(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        ticket.is_waiting = False
        self._tell_refused(ticket, outcome, now)

    def _tell_refused(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        self._recorder.wait_ended(ticket.request, outcome, now - ticket.entered_s)
        ticket.waiter.refused(outcome, self.retry_after_s(now), now)
