"""The order of the steps for the requests of one pool.

resolve objective and flow → offer to the flow control (queue) → dispatch = pick + lease → the
response → release. Everything that belongs to one pool hangs on its router; nothing is global.
"""

import random

from epp.core.claims import RequestClaims
from epp.core.flow import FlowController, FlowLimits, Ticket, Waiter
from epp.core.pool import Lease, Pool
from epp.core.ports import Ending, Recorder
from epp.core.request import FlowKey, Request
from epp.core.resources import Endpoint, PoolResources, PoolSpec
from epp.core.scheduling import Scheduler
from epp.core.timers import Timers

__all__ = ["DEFAULT_FAIRNESS_ID", "Router"]

DEFAULT_FAIRNESS_ID = "default-flow"
_DEFAULT_PRIORITY = 0


class Router:
    """The requests of one pool, from claims to lease to release.

    ``is_ready`` is False until the first resources were applied.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        limits: FlowLimits,
        max_concurrency: int,
        timers: Timers,
        rng: random.Random,
        recorder: Recorder,
    ) -> None:
        self.recorder = recorder
        self.pool = Pool(max_concurrency=max_concurrency)
        self._scheduler = scheduler
        self._rng = rng
        self.flow = FlowController(
            self.pool, scheduler, limits, timers=timers, rng=rng, recorder=recorder
        )
        self.flow.ensure_band(_DEFAULT_PRIORITY)
        self._resources: PoolResources | None = None
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        """Whether the first resources were applied and the drain has not begun."""
        return self._resources is not None and not self.is_draining

    @property
    def spec(self) -> PoolSpec | None:
        """The InferencePool that is served, None before the first resources."""
        return None if self._resources is None else self._resources.pool

    def apply(self, resources: PoolResources, now: float) -> None:
        """Make this the state of the pool, at once and as a whole."""
        self._resources = resources
        for objective in resources.objectives.values():
            self.flow.ensure_band(objective.priority)
        if self.pool.apply(resources.endpoints):
            self.flow.membership_changed(now)

    def priority_of(self, objective: str) -> int:
        """Return the priority of an objective by name; 0 where it is unknown or not named."""
        if self._resources is None or not objective:
            return _DEFAULT_PRIORITY
        found = self._resources.objectives.get(objective)
        return found.priority if found else _DEFAULT_PRIORITY

    def resolve(self, claims: RequestClaims) -> Request:
        """Return the request with the priority of its objective and the flow it belongs to."""
        flow = FlowKey(
            self.priority_of(claims.objective), claims.fairness_id or DEFAULT_FAIRNESS_ID
        )
        return Request(
            flow=flow,
            id=claims.id,
            model=claims.model,
            objective=claims.objective,
            body_bytes=claims.body_bytes,
            wait_limit_s=claims.wait_limit_s,
            subset=claims.subset,
        )

    def admit(self, request: Request, waiter: Waiter, now: float) -> Ticket:
        """Let a request wait for its turn; ``waiter`` hears of the decision, possibly at once."""
        return self.flow.offer(request, waiter, now)

    def any_endpoint(self, subset: frozenset[str] | None) -> Endpoint | None:
        """Return an endpoint for a request that is no inference and takes no capacity, if there is
        one."""
        mask = self.pool.active if subset is None else self.pool.mask_of(subset)
        slot = self._scheduler.pick(None, self.pool, mask, self._rng)
        return None if slot is None else self.pool.endpoint(slot)

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """The client has gone while its request waited."""
        self.flow.cancel(ticket, now)

    def release(self, lease: Lease, ending: Ending, now: float) -> None:
        """The response has ended, whichever way: its capacity goes to whoever is next."""
        lease.release()
        self.recorder.ended(ending)
        self.flow.pump(now)

    def follow(self, lease: Lease, destination: str, now: float) -> None:
        """The proxy says who really served; the lease moves there and its old place is free."""
        if lease.move(destination):
            self.flow.pump(now)

    def begin_drain(self) -> None:
        """Take no new requests; those that wait and those that run go on."""
        self.is_draining = True
        self.flow.begin_drain()
