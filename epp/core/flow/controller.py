"""When a request goes.

The rules, in short: capacity goes to the highest priority that can use it, within a priority to the
flow that the fairness policy ranks first; releasing a request, picking its endpoint, taking the
lease and charging the flow are one step; every wait has a budget and ends in exactly one outcome.
There is no tick: whatever could make a dispatch possible runs the dispatch loop, which drains all
that can go. docs/flow-control.md has the rules in full.

The controller knows nothing of HTTP: its waiters are told ``dispatched`` or ``refused`` and say the
rest.
"""

import random
from collections.abc import Callable, Collection, Mapping
from typing import Final

from epp.core.flow.band import Band
from epp.core.flow.bands import MAX_WAIT, Bands
from epp.core.flow.cost import CostModel
from epp.core.flow.deadlines import Deadlines
from epp.core.flow.drain_rate import DrainRate
from epp.core.flow.eviction import Evictable, Eviction
from epp.core.flow.options import FlowOptions
from epp.core.flow.placement import Placement
from epp.core.flow.reprioritise import reprioritise
from epp.core.flow.retry_advice import RetryAdvice
from epp.core.flow.ticket import Ticket
from epp.core.flow.usage_limits import UsageLimits
from epp.core.flow.wait_limits import WaitLimits
from epp.core.flow.waiter import Charge, Waiter
from epp.core.gate import Ending
from epp.core.pool import Lease, Pool
from epp.core.ports import Recorder
from epp.core.request import Outcome, Request
from epp.core.scheduling import Scheduler
from epp.core.timers import Timers

__all__ = ["FlowController"]

_DISPATCHED: Final = Outcome.DISPATCHED  # read off its enumeration once: that takes a while


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
        options: FlowOptions,
        *,
        timers: Timers,
        rng: random.Random,
        recorder: Recorder,
    ) -> None:
        self.options = options
        self.costs = CostModel(options.cost)
        self._pool = pool
        self._timers = timers
        self._rng = rng
        self._recorder = recorder
        self._bands = Bands(options)
        self._deadlines = Deadlines(options, timers, self._expire, pool_is_empty=not len(pool))
        self._limits = WaitLimits(options, self._bands)
        self._usage = UsageLimits(options.usage_limit, timers, self.pump)
        self._placement = Placement(pool, scheduler, self._usage, rng)
        self._eviction = self._make_eviction() if options.eviction else None
        self._drain_rate = DrainRate()
        self._advice = RetryAdvice(rng, options.limits.max_retry_after_s)
        self._sequence = 0
        self._is_pumping = self._is_draining = False
        self.requests = self.bytes = 0
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
        band = self._bands[request.flow.priority]
        flow = band.flow(request.flow.fairness_id)
        cost = self.costs.estimate(request)
        entered_s = now if since_s is None else since_s
        ticket = Ticket(request, waiter, self._sequence, entered_s, flow, cost)
        if self._is_draining:
            self._refuse_newcomer(ticket, band, Outcome.SHUTTING_DOWN, now)
            return ticket
        if not self._placement.has_candidates(request):
            self._refuse_newcomer(ticket, band, Outcome.REJECTED_NO_ENDPOINTS, now)
            return ticket
        self._usage.arrived(band)
        if since_s is not None or not self._dispatch_at_once(ticket, band, now):
            self._enter(ticket, band, now)
            self._dispatch_all(now)
            if ticket.is_waiting:
                self._let_wait_or_refuse(ticket, band, now)
            if self._eviction is not None:
                self._reclaim(self._eviction, now)
        return ticket

    def cancel(self, ticket: Ticket, now: float) -> None:
        """Take a request out of the queue because nobody waits for it any more. Tells no waiter."""
        self._leave(ticket, now)
        self._recorder.wait_ended(ticket.request, Outcome.CANCELLED, now - ticket.entered_s)

    def adopt(self, request: Request, lease: Lease, waiter: Waiter, since_s: float) -> Charge:
        """Charge a request that runs already, dispatched by a controller that is no more."""
        band = self._bands[request.flow.priority]
        self._usage.arrived(band)
        flow = band.flow(request.flow.fairness_id)
        charge = Charge(band, flow, self.costs.estimate(request), since_s)
        band.admit(flow, charge.cost)
        if self._eviction is not None:
            self._eviction.runs(charge, request, lease, waiter)
        return charge

    def progress(self, charge: Charge, request: Request, output_tokens: int) -> None:
        """Raise the charge of a running request that has outgrown it."""
        more = self.costs.accrued(request, output_tokens) - charge.cost
        if more > 0:
            charge.cost += more
            charge.band.raise_charge(charge.flow, more)
        if self._eviction is not None:
            self._eviction.advanced(charge, output_tokens)

    def moved(self, charge: Charge, now: float) -> None:
        """A running request is served elsewhere than was thought, and its lease is there now."""
        if self._eviction is not None:
            self._eviction.moved(charge)
        self.pump(now)

    def ended(self, charge: Charge, request: Request, ending: Ending, now: float) -> None:
        """Settle the charge of a request that runs no more. To be followed by :meth:`pump`."""
        actual = self.costs.settle(request, ending, now - charge.since_s)
        charge.band.settle(charge.flow, charge.cost, actual)
        self._recorder.settled(request, charge.cost, actual)
        self._usage.left(charge.band, now)
        if self._eviction is not None:
            self._eviction.ended(charge)

    def pump(self, now: float) -> None:
        """Dispatch all that can go. To be called whenever capacity may have become free."""
        self._dispatch_all(now)
        if self._eviction is not None:
            self._reclaim(self._eviction, now)

    def _dispatch_all(self, now: float) -> None:
        if self._is_pumping:
            return  # the loop that runs now sees what has changed
        self._is_pumping = True
        try:
            while self.requests and self._pool.has_room and self._dispatch_next(now):
                pass
        finally:
            self._is_pumping = False
        self._usage.asked(now)

    def membership_changed(self, now: float) -> None:
        """React to a change of the pool's endpoints."""
        deadlines = self._deadlines
        was_empty, deadlines.pool_is_empty = deadlines.pool_is_empty, not len(self._pool)
        if was_empty != deadlines.pool_is_empty and self.requests:
            # A change that nobody waited through starts no budget afresh: not the first endpoints
            # of a controller that takes over those who have waited elsewhere.
            deadlines.begin_anew(now)
            self._drain_rate.backlog(was_empty, now)
            self._bands.backlog(was_empty, now)
            deadlines.set_all(self._bands.descending)
        if self._placement.kinds_may_differ():
            self._bands.sort_into_lanes(self._placement.lane_of)
        for ticket in self._placement.stranded(self._bands):
            if ticket.is_waiting:
                self._refuse(ticket, Outcome.REJECTED_NO_ENDPOINTS, now)
        self.pump(now)

    def reprioritise(self, priorities: Mapping[str, int], now: float) -> None:
        """Have what waits, and names an objective of ``priorities``, wait with the priority given
        there, with no outcome for anybody. To be followed by :meth:`pump`."""
        lane_of = self._placement.lane_of
        reprioritise(self._bands, self._deadlines, self._usage, lane_of, priorities, now)
        if self._eviction is not None:
            self._eviction.reprioritise(priorities)

    def reconfigure(self, options: FlowOptions, scheduler: Scheduler, now: float) -> None:
        """Go by other options, and another scheduler, from now on.

        What waits keeps its place by the new order, also where a bound is lower now; what runs
        stays charged as it was. With eviction newly on, what runs already is not evicted.
        """
        self.options = self._deadlines.options = options
        self._placement.scheduler = scheduler
        self.costs.reconfigure(options.cost)
        self._bands.reconfigure(options, self._placement.lane_of)
        self._limits = WaitLimits(options, self._bands)
        self._advice = RetryAdvice(self._rng, options.limits.max_retry_after_s)
        self._usage.reconfigure(options.usage_limit, self._bands.descending)
        if not options.eviction:
            self._eviction = None
        elif self._eviction is None:
            self._eviction = self._make_eviction()
        self._deadlines.set_all(self._bands.descending)
        self.pump(now)

    def begin_drain(self) -> None:
        """Take no new requests; those that wait go on being dispatched."""
        self._is_draining = True

    def end_drain(self, now: float, outcome: Outcome = Outcome.SHUTTING_DOWN) -> None:
        """Refuse whatever still waits."""
        for ticket in list(self._bands.tickets()):
            if ticket.is_waiting:
                self._refuse(ticket, outcome, now)

    # Queries

    def bands(self) -> list[Band]:
        """Return the bands that exist, highest priority first."""
        return list(self._bands.descending)

    def keep_bands(self, priorities: Collection[int]) -> None:
        """Have bands of these priorities; forget those of others, unless they are in use."""
        self._bands.keep(priorities)

    def utilization(self) -> list[tuple[str, int, int]]:
        """Return how full the queue is: (``requests`` or ``bytes``, used, limit) each."""
        limits = self.options.limits
        return [
            ("requests", self.requests, limits.max_requests),
            ("bytes", self.bytes, limits.max_bytes),
        ]

    def retry_after_s(self, now: float, cost: int = 1) -> int:
        """Return when a client that was turned away with a request of this cost should come back,
        in whole seconds."""
        rate = self._drain_rate.cost_per_s(now)
        return self._advice.retry_after_s(self._bands.cost(), cost, rate, now)

    def estimated_wait_s(self, band: Band, now: float) -> float | None:
        """Return how long the last of the band's requests will have to wait, in seconds, if the
        queue drains as it did; None where that is not known."""
        rate = self._drain_rate.cost_per_s(now)
        return self._bands.cost(from_priority=band.priority) / rate if rate else None

    def closed_by(self, band: Band) -> str | None:
        """Return why the requests of a band wait, in a word; None where none do."""
        return self._placement.closed_by(band)

    # The dispatch

    def _dispatch_at_once(self, ticket: Ticket, band: Band, now: float) -> bool:
        """Dispatch a newcomer that finds room and nobody waiting, as most do, past the queue."""
        if self.requests or self._is_pumping or not self._pool.has_room:
            return False
        lease = self._placement.place(ticket.request, band, now)
        if lease is None:
            return False
        ticket.is_waiting = False
        self._drain_rate.flows(now)
        charge = Charge(band, ticket.flow, ticket.cost, now)
        band.admit(ticket.flow, ticket.cost)
        self._tell_dispatched(ticket, lease, charge, 0.0, now)
        return True

    def _dispatch_next(self, now: float) -> bool:
        """Dispatch the next request that can go; return whether there was one."""
        placement = self._placement
        for band, rule in self._bands.in_turn(now):
            overtakes = rule is not None and any(map(placement.could_go, self._bands.above(band)))
            place = placement.place_oldest if rule == MAX_WAIT else placement.place_first
            placed = place(band, now)
            if placed is not None:
                if rule is not None and overtakes:
                    self._recorder.overridden(band.priority, rule)
                self._dispatch(*placed, band, now, in_turn=rule != MAX_WAIT)
                return True
        return False

    def _dispatch(
        self, ticket: Ticket, lease: Lease, band: Band, now: float, *, in_turn: bool
    ) -> None:
        waited_s = now - ticket.entered_s
        cost = self.costs.estimate(ticket.request)
        if waited_s > 0:
            self._drain_rate.dispatched(cost, now)
            band.drain_rate.dispatched(cost, now)
        ticket.is_waiting = False
        charge = Charge(band, ticket.flow, cost, now)
        band.dispatch(ticket, cost, in_turn=in_turn)
        self._bands.dispatched(band)
        self._left(ticket, band, now)
        self._tell_dispatched(ticket, lease, charge, waited_s, now)

    # Eviction

    def _make_eviction(self) -> Eviction:
        return Eviction(
            self._pool,
            self._timers,
            blocked=self._placement.blocked,
            end=self._evict,
            retry=self.pump,
        )

    def _reclaim(self, eviction: Eviction, now: float) -> None:
        """Make room for who is blocked. What runs while the process drains, runs to its end."""
        if self.requests and not self._is_draining:
            eviction.reclaim(self._bands.descending, now)

    def _evict(self, victim: Evictable, now: float) -> None:
        self._recorder.evicted(victim.request)
        victim.waiter.evicted(self.retry_after_s(now, victim.charge.cost), now)

    # The wait

    def _let_wait_or_refuse(self, ticket: Ticket, band: Band, now: float) -> None:
        rate = self._drain_rate.cost_per_s(now)
        empty = self._deadlines.pool_is_empty
        if not empty and self._limits.is_hopeless(ticket, band, rate):
            self._refuse(ticket, Outcome.REJECTED_WAIT, now)
            return
        victims = self._limits.who_gives_way(band, self.requests, self.bytes)
        if victims is None:
            outcome = Outcome.REJECTED_NO_ENDPOINTS if empty else Outcome.REJECTED_CAPACITY
            self._refuse(ticket, outcome, now)
            return
        self._deadlines.set(ticket)
        for victim in victims:
            if victim.is_waiting:  # one that was told before may have withdrawn it
                self._refuse(victim, Outcome.DISPLACED, now)

    def _expire(self, ticket: Ticket, now: float) -> None:
        empty = self._deadlines.pool_is_empty
        self._refuse(ticket, Outcome.EXPIRED_NO_ENDPOINTS if empty else Outcome.EXPIRED, now)

    # Bookkeeping

    def _enter(self, ticket: Ticket, band: Band, now: float) -> None:
        ticket.lane = self._placement.lane_of(ticket.request)
        band.add(ticket, self._deadlines.of(ticket))
        self.requests += 1
        self.bytes += ticket.request.body_bytes
        # What nobody could have served says nothing about how fast the pool is.
        has_endpoints = not self._deadlines.pool_is_empty
        self._drain_rate.backlog(has_endpoints, now)
        band.drain_rate.backlog(has_endpoints, now)

    def _leave(self, ticket: Ticket, now: float) -> None:
        """Take a ticket out of the queue that is not dispatched. Raises AssertionError if it has
        left before."""
        if not ticket.is_waiting:
            raise AssertionError("a request left the queue twice")
        ticket.is_waiting = False
        band = self._bands[ticket.request.flow.priority]
        band.remove(ticket)
        self._usage.left(band, now)
        self._left(ticket, band, now)

    def _left(self, ticket: Ticket, band: Band, now: float) -> None:
        self._deadlines.cancel(ticket)
        self.requests -= 1
        self.bytes -= ticket.request.body_bytes
        if not band.requests:
            band.drain_rate.backlog(False, now)
        if not self.requests:
            self._drain_rate.backlog(False, now)
            self.on_empty()

    def _tell_dispatched(
        self, ticket: Ticket, lease: Lease, charge: Charge, waited_s: float, now: float
    ) -> None:
        self._recorder.wait_ended(ticket.request, _DISPATCHED, waited_s)
        if self._eviction is not None:
            self._eviction.runs(charge, ticket.request, lease, ticket.waiter)
        ticket.waiter.dispatched(lease, charge, waited_s, now)

    def _refuse(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        self._leave(ticket, now)
        self._tell_refused(ticket, outcome, now)

    def _refuse_newcomer(self, ticket: Ticket, band: Band, outcome: Outcome, now: float) -> None:
        ticket.is_waiting = False
        band.forget_if_idle(ticket.flow)
        self._tell_refused(ticket, outcome, now)

    def _tell_refused(self, ticket: Ticket, outcome: Outcome, now: float) -> None:
        self._recorder.wait_ended(ticket.request, outcome, now - ticket.entered_s)
        ticket.waiter.refused(outcome, self.retry_after_s(now, ticket.cost), now)
