"""The order of the steps for the requests of one pool.

resolve objective and flow → offer to the flow control (queue) → dispatch = pick + lease → the
response → release. Everything that belongs to one pool hangs on its router; nothing is global.
"""

import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

from epp.core.claims import RequestClaims
from epp.core.flow import Charge, FlowController, FlowOptions, Ticket
from epp.core.flow.saturation import SaturationDetector
from epp.core.gate import Admission, Ending, GateWaiter, Route
from epp.core.objectives import DEFAULT_PRIORITY, changed_priorities, priority_of
from epp.core.pool import EngineLoad, Lease, Pool
from epp.core.ports import Recorder
from epp.core.request import FlowKey, Outcome, Request
from epp.core.resources import Endpoint, EndpointChanges, Objective, PoolResources, PoolSpec
from epp.core.rewrites import ModelRewrites
from epp.core.scheduling import Explanation, Scheduler, least_loaded
from epp.core.timers import Timers

__all__ = ["DEFAULT_FAIRNESS_ID", "MakeDetector", "Router", "RouterAdmission"]

MakeDetector: TypeAlias = Callable[[Pool, Timers], SaturationDetector]
"""Makes a detector for a pool, with timers."""

DEFAULT_FAIRNESS_ID = "default-flow"


class Router:
    """The requests of one pool, from claims to lease to release; the gate of its exchanges.

    ``spec`` is the InferencePool that is served, None before the first resources.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        options: FlowOptions,
        make_detector: MakeDetector,
        timers: Timers,
        rng: random.Random,
        recorder: Recorder,
    ) -> None:
        self.recorder = recorder
        self.pool = Pool(max_concurrency=1)
        self.scheduler = scheduler
        self._rng = rng
        self.flow = FlowController(
            self.pool, scheduler, options, timers=timers, rng=rng, recorder=recorder
        )
        self._timers = timers
        self.detector: SaturationDetector = make_detector(self.pool, timers)
        self.pool.on_joined = self._joined
        self.pool.on_changed = self._changed
        self.pool.on_freed = self._freed
        self.flow.keep_bands((DEFAULT_PRIORITY,))
        self.spec: PoolSpec | None = None
        self._objectives: Mapping[str, Objective] = {}
        self.rewrites = ModelRewrites(())
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        """Whether the first resources were applied and the drain has not begun."""
        return self.spec is not None and not self.is_draining

    def apply(self, resources: PoolResources, now: float) -> None:
        """Make this the state of the pool, at once and as a whole, also for those who wait."""
        self.spec = resources.pool
        self.rewrites = ModelRewrites(resources.rewrites)
        former, self._objectives = self._objectives, resources.objectives
        changed = changed_priorities(former, resources.objectives)
        self.flow.reprioritise(changed, now)
        priorities = {each.priority for each in resources.objectives.values()}
        self.flow.keep_bands({DEFAULT_PRIORITY, *priorities})
        if self.pool.apply(resources.endpoints):
            self.flow.membership_changed(now)
        elif changed:
            self.flow.pump(now)

    def apply_endpoints(self, changes: EndpointChanges, now: float) -> None:
        """Take over what has become of some endpoints, at a cost in proportion to the changes."""
        if self.pool.update(changes.present, changes.gone):
            self.flow.membership_changed(now)

    def reconfigure(
        self,
        *,
        scheduler: Scheduler,
        options: FlowOptions,
        make_detector: MakeDetector | None,
        now: float,
    ) -> None:
        """Go by another configuration from now on, at once and as a whole.

        What waits keeps its place and what runs its lease. ``make_detector`` is None where the
        detector stays, with all that it has learned; another one begins with what it takes for safe
        for an endpoint that it does not know.
        """
        formers = list(self.scheduler.observers)
        self.scheduler = scheduler
        for observer in scheduler.observers:
            for former in formers:
                if type(former) is type(observer):
                    observer.succeed(former)
                    formers.remove(former)
                    break
        slots = self.pool.active.nonzero()[0].tolist()
        for slot in slots:
            for observer in scheduler.observers:
                observer.joined(self.pool, slot)
                load = self.pool.told(slot)
                if load is not None:
                    observer.scraped(self.pool, slot, load, now)
        if make_detector is not None:
            self.detector.close()
            self.detector = make_detector(self.pool, self._timers)
            for slot in slots:
                self.detector.joined(slot)
        self.flow.reconfigure(options, scheduler, now)

    def priority_of(self, objective: str) -> int:
        """Return the priority of an objective by name; 0 where it is unknown or not named."""
        return priority_of(self._objectives, objective)

    def resolve(self, claims: RequestClaims) -> Request:
        """Return the request with the priority of its objective, the flow it belongs to, and the
        model that stands for the one that its client named."""
        return self._request(claims, self.rewrites.target(claims, self._rng) or "")

    def _request(self, claims: RequestClaims, model: str) -> Request:
        flow = FlowKey(
            self.priority_of(claims.objective), claims.fairness_id or DEFAULT_FAIRNESS_ID
        )
        return Request(
            flow=flow,
            id=claims.id,
            model=model or claims.model,
            client_model=claims.model if model else "",
            objective=claims.objective,
            body_bytes=claims.body_bytes,
            prompt_tokens=claims.prompt_tokens,
            max_output_tokens=claims.max_output_tokens,
            wait_limit_s=claims.wait_limit_s,
            slo_ttft_s=claims.slo_ttft_s,
            subset=claims.subset,
            prefix=claims.prefix,
            cache_salt=claims.cache_salt,
            headers=claims.headers,
        )

    # epp.core.gate.Gate

    def admit(
        self,
        claims: RequestClaims,
        waiter: GateWaiter,
        now: float,
        since_s: float | None = None,
    ) -> "RouterAdmission":
        """Let a request wait for its turn; ``waiter`` hears of the decision, possibly at once.

        ``since_s`` is when its wait began, where that was at a router that is no more.
        """
        if self.rewrites and not claims.model:
            self.recorder.rewrite_skipped("model-unknown")
        admission = RouterAdmission(self.resolve(claims), waiter, self)
        ticket = self.flow.offer(admission.request, admission, now, since_s)
        if ticket.is_waiting:
            admission.ticket = ticket
        return admission

    def adopt(
        self,
        claims: RequestClaims,
        destination: str,
        since_s: float,
        waiter: GateWaiter,
        model: str = "",
    ) -> "RouterAdmission":
        """Hold capacity for a request that another router, which is no more, has dispatched.

        It runs already, since ``since_s``, so neither the endpoint's limit nor its absence from the
        pool matters. ``waiter`` may yet hear that it is evicted. ``model`` is what the model server
        was asked for in place of the client's model.
        """
        request = self._request(claims, model)
        admission = RouterAdmission(request, _Adopter(waiter), self)
        lease = admission.lease = self.pool.adopt(destination, claims.prompt_tokens)
        for observer in self.scheduler.observers:
            observer.placed(admission.request, lease, since_s)
        admission.charge = self.flow.adopt(admission.request, lease, admission, since_s)
        self.recorder.adopted(admission.request)
        return admission

    def pass_by(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> None:
        """Let a request go to any endpoint that is no inference: no wait, no capacity taken."""
        endpoint = None if self.is_draining else self._any_endpoint(claims.subset)
        if endpoint is not None:
            waiter.passed(endpoint.destination, now)
            return
        outcome = Outcome.SHUTTING_DOWN if self.is_draining else Outcome.REJECTED_NO_ENDPOINTS
        self.recorder.refused_early(outcome.value)
        waiter.refused(outcome, self.flow.retry_after_s(now), now)

    def withdraw(self, admission: Admission, now: float) -> None:
        """The client has gone while its request waited."""
        own = _own(admission)
        if own.ticket is None:
            raise AssertionError("a request was withdrawn that does not wait")
        self.flow.cancel(own.ticket, now)
        own.ticket = None

    def served_by(self, admission: Admission, destination: str, now: float) -> None:
        """The proxy says who really served; the lease moves there and its old place is free."""
        own = _own(admission)
        lease = own.held_lease()
        from_slot = lease.slot
        if lease.move(destination):
            for observer in self.scheduler.observers:
                observer.moved(own.request, lease, from_slot, now)
            self.flow.moved(own.held_charge(), now)

    def reported(self, admission: Admission, load: EngineLoad, now: float) -> None:
        """The engine that serves the request tells its load, for the next picks alone: saturation
        detectors reckon with one page of metrics each second."""
        self.pool.reported(_own(admission).held_lease().slot, load, now)

    def progress(self, admission: Admission, output_tokens: int, now: float) -> None:
        """The response has brought so many tokens by now: its flow may owe more than was
        charged."""
        own = _own(admission)
        self.flow.progress(own.held_charge(), own.request, output_tokens)

    def finish(self, admission: Admission, ending: Ending, now: float) -> None:
        """The response has ended, whichever way: its capacity goes to whoever is next."""
        own = _own(admission)
        lease, charge = own.held_lease(), own.held_charge()
        slot = lease.slot
        try:
            for observer in self.scheduler.observers:
                observer.ended(own.request, lease, ending, now)
        finally:  # whatever a plugin of others may raise, the capacity is free
            lease.release()
            self.flow.ended(charge, own.request, ending, now)
            self.detector.ended(slot, ending, now - charge.since_s, now)
            self.recorder.ended(own.request, ending)
            self.flow.pump(now)

    # What the engines say

    def scraped(self, destination: str, load: EngineLoad, now: float) -> None:
        """The engine at this ``ip:port`` has told its load."""
        slot = self.pool.slot_of(destination)
        if slot is not None:
            before = self.pool.told(slot)
            self.pool.scraped(slot, load, now)
            self.detector.scraped(slot, load, now)
            has_restarted = before is not None and before.started_s < load.started_s
            for observer in self.scheduler.observers:
                if has_restarted:
                    observer.restarted(slot)
                observer.scraped(self.pool, slot, load, now)
            self.flow.pump(now)

    def explain_pick(self, request: Request, now: float) -> Explanation | None:
        """Return how an endpoint would be picked for a request among those that have room now,
        without any consequence; None where the scheduler cannot tell."""
        subset = request.subset
        mask = self.pool.with_room(None if subset is None else self.pool.mask_of(subset))
        return self.scheduler.explain(request, self.pool, mask, now, self._rng)

    def refused_early(self, reason: str) -> None:
        """Count an answer that an exchange gave by itself."""
        self.recorder.refused_early(reason)

    def rewrite_skipped(self, reason: str) -> None:
        """Count what an exchange could not rewrite."""
        self.recorder.rewrite_skipped(reason)

    # Drain

    def begin_drain(self) -> None:
        """Take no new requests; those that wait and those that run go on."""
        self.is_draining = True
        self.flow.begin_drain()

    def _any_endpoint(self, subset: frozenset[str] | None) -> Endpoint | None:
        mask = self.pool.active if subset is None else self.pool.mask_of(subset)
        slot = least_loaded(self.pool, mask, self._rng)
        return None if slot is None else self.pool.endpoint(slot)

    def _joined(self, slot: int) -> None:
        self.detector.joined(slot)
        for observer in self.scheduler.observers:
            observer.joined(self.pool, slot)

    def _changed(self, slot: int) -> None:
        self.detector.changed(slot)
        for observer in self.scheduler.observers:
            observer.joined(self.pool, slot)

    def _freed(self, slot: int) -> None:
        for observer in self.scheduler.observers:
            observer.freed(slot)


class RouterAdmission:
    """A request from the queue to the end of its response: its ticket, then its lease.

    It stands between the flow control, whose waiter it is, and the gate's waiter. Ticket and
    admission know each other, so it lets go of the ticket with the wait: what is no cycle needs no
    garbage collection.
    """

    __slots__ = ("_waiter", "charge", "lease", "request", "router", "ticket")

    def __init__(self, request: Request, waiter: GateWaiter, router: Router) -> None:
        self.request = request
        self._waiter = waiter
        self.router = router
        self.ticket: Ticket | None = None
        self.lease: Lease | None = None
        self.charge: Charge | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether the decision is still to come."""
        return self.ticket is not None

    @property
    def deadline_s(self) -> float | None:
        """When the wait is over at the latest, None where it has no end."""
        return None if self.ticket is None else self.ticket.deadline_s

    def dispatched(self, lease: Lease, charge: Charge, waited_s: float, now: float) -> None:
        """Keep lease and charge, and pass the word on."""
        if self.ticket is not None:
            self.request = self.ticket.request  # of another priority by now, perhaps
            self.ticket = None
        self.lease = lease
        self.charge = charge
        self.router.detector.dispatched(lease.slot, now)
        route = Route(
            lease.destination,
            self.request.model if self.request.client_model else "",
            lease.response_headers,
        )
        self._waiter.dispatched(route, waited_s, now)

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """Pass the word on."""
        self.ticket = None
        self._waiter.refused(outcome, retry_after_s, now)

    def evicted(self, retry_after_s: int, now: float) -> None:
        """Pass the word on."""
        self._waiter.evicted(retry_after_s, now)

    def held_lease(self) -> Lease:
        """Return the lease. Raises AssertionError for a request that was not dispatched."""
        if self.lease is None:
            raise AssertionError("the request holds no lease")
        return self.lease

    def held_charge(self) -> Charge:
        """Return the charge. Raises AssertionError for a request that was not dispatched."""
        if self.charge is None:
            raise AssertionError("the request was not charged")
        return self.charge


class _Adopter:
    """The waiter of what does not wait: all that it can still hear is that it is evicted."""

    def __init__(self, waiter: GateWaiter) -> None:
        self._waiter = waiter

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        raise AssertionError("a request that was adopted was dispatched again")

    def passed(self, destination: str, now: float) -> None:
        raise AssertionError("a request that was adopted was let pass")

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        raise AssertionError("a request that was adopted was refused")

    def evicted(self, retry_after_s: int, now: float) -> None:
        self._waiter.evicted(retry_after_s, now)


def _own(admission: Admission) -> RouterAdmission:
    if not isinstance(admission, RouterAdmission):
        raise AssertionError("the admission is of another gate")
    return admission
