"""The pools of one EPP: each has a router of its own, and every request goes to one of them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from epp.core.claims import RequestClaims
from epp.core.gate import Admission, Ending, GateWaiter
from epp.core.objectives import DEFAULT_PRIORITY
from epp.core.pool import EngineLoad
from epp.core.pool_finder import PoolFinder
from epp.core.ports import Recorder
from epp.core.request import Outcome
from epp.core.resources import EndpointChanges, PoolResources
from epp.core.router import Router, RouterAdmission

__all__ = ["Pools"]

_RETRY_AFTER_S: Final = 5
"""The advice to clients where there is no pool that could tell."""


class Pools:
    """The gate (:class:`epp.core.gate.Gate`) of all pools, which come, change and go.

    ``new_router`` makes the router of the pool with this key (``namespace/name``). ``recorder``
    counts what concerns no pool: the requests whose pool cannot be told, and what exchanges tell of
    themselves.

    A request stays with the router that has admitted it. A pool that goes leaves nobody behind: who
    waits for it is refused, and what runs there keeps its lease until it ends. Should there be a
    pool of that name again, it begins anew, and what ran before does not count for its limits.
    """

    def __init__(self, new_router: Callable[[str], Router], recorder: Recorder) -> None:
        self._new_router = new_router
        self._recorder = recorder
        self._finder = PoolFinder()
        self._routers: dict[str, Router] = {}
        self._leaving: set[Router] = set()
        self.routers: Mapping[str, Router] = MappingProxyType(self._routers)
        self.is_draining = False

    @property
    def is_ready(self) -> bool:
        """Whether there is a pool to serve, and the drain has not begun."""
        return bool(self._routers) and not self.is_draining

    @property
    def waiting(self) -> int:
        """The requests that wait, at all pools."""
        return sum(router.flow.requests for router in self._routers.values())

    @property
    def running(self) -> int:
        """The requests that hold capacity, those of pools that are gone with them."""
        routers = (*self._routers.values(), *self._leaving)
        return sum(router.pool.total_in_flight for router in routers)

    @property
    def has_choices(self) -> bool:
        """Whether any rewrite has more than one target, so that conversations matter."""
        return any(router.rewrites.has_choices for router in self._routers.values())

    def find(self, claims: RequestClaims) -> Router | None:
        """Return the router of the pool that a request is for, None where it cannot be told."""
        key = self._finder.find(claims)
        return None if key is None else self._routers[key]

    def priority_of(self, claims: RequestClaims) -> int:
        """Return the priority of a request at its pool."""
        router = self.find(claims)
        return DEFAULT_PRIORITY if router is None else router.priority_of(claims.objective)

    # What becomes of pools

    def apply(self, resources: PoolResources, now: float) -> Router:
        """Make this the state of a pool, which may be new; return its router."""
        key = resources.pool.key
        router = self._routers.get(key)
        if router is None:
            router = self._routers[key] = self._new_router(key)
            if self.is_draining:
                router.begin_drain()
        self._finder.put(resources)
        router.apply(resources, now)
        return router

    def apply_endpoints(self, key: str, changes: EndpointChanges, now: float) -> None:
        """Take over what has become of some endpoints of a pool. Raises KeyError for one that is
        not known."""
        self._routers[key].apply_endpoints(changes, now)

    def remove(self, key: str, now: float) -> None:
        """Know a pool no more. Raises KeyError for one that is not known."""
        router = self._routers.pop(key)
        self._finder.remove(key)
        self._leaving.add(router)
        router.flow.end_drain(now, Outcome.REJECTED_NO_ENDPOINTS)
        self._close_if_left(router)

    def begin_drain(self) -> None:
        """Take no new requests; those that wait and those that run go on."""
        self.is_draining = True
        for router in self._routers.values():
            router.begin_drain()

    def end_drain(self, now: float) -> None:
        """Refuse whatever still waits."""
        for router in self._routers.values():
            router.flow.end_drain(now)

    # epp.core.gate.Gate

    def admit(
        self,
        claims: RequestClaims,
        waiter: GateWaiter,
        now: float,
        since_s: float | None = None,
    ) -> Admission:
        """Let a request wait for its turn at its pool; see :meth:`Router.admit`."""
        router = self.find(claims)
        if router is not None:
            return router.admit(claims, waiter, now, since_s)
        self._turn_away(claims, waiter, now)
        return _NOWHERE

    def adopt(
        self,
        claims: RequestClaims,
        destination: str,
        since_s: float,
        waiter: GateWaiter,
        model: str = "",
    ) -> Admission:
        """Hold capacity for a request that runs already; see :meth:`Router.adopt`. There is none to
        be held where its pool is gone."""
        router = self.find(claims)
        if router is None:
            return _NOWHERE
        return router.adopt(claims, destination, since_s, waiter, model)

    def pass_by(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> None:
        """Let a request go to any endpoint of its pool that is no inference."""
        router = self.find(claims)
        if router is None:
            self._turn_away(claims, waiter, now)
        else:
            router.pass_by(claims, waiter, now)

    def withdraw(self, admission: Admission, now: float) -> None:
        """The client has gone while its request waited."""
        router = _router_of(admission)
        if router is None:
            raise AssertionError("a request was withdrawn that does not wait")
        router.withdraw(admission, now)

    def served_by(self, admission: Admission, destination: str, now: float) -> None:
        """The proxy says who really served."""
        router = _router_of(admission)
        if router is not None:
            router.served_by(admission, destination, now)

    def reported(self, admission: Admission, load: EngineLoad, now: float) -> None:
        """The engine that serves the request tells its load."""
        router = _router_of(admission)
        if router is not None:
            router.reported(admission, load, now)

    def progress(self, admission: Admission, output_tokens: int, now: float) -> None:
        """The response has brought so many tokens by now."""
        router = _router_of(admission)
        if router is not None:
            router.progress(admission, output_tokens, now)

    def finish(self, admission: Admission, ending: Ending, now: float) -> None:
        """The response has ended, whichever way: its capacity goes to whoever is next."""
        router = _router_of(admission)
        if router is None:
            return
        try:
            router.finish(admission, ending, now)
        finally:  # whatever a plugin of others may raise, the capacity is free
            self._close_if_left(router)

    def refused_early(self, reason: str) -> None:
        """Count an answer that an exchange gave by itself."""
        self._recorder.refused_early(reason)

    def rewrite_skipped(self, reason: str) -> None:
        """Count what an exchange could not rewrite."""
        self._recorder.rewrite_skipped(reason)

    def _turn_away(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> None:
        if self.is_draining:
            outcome = Outcome.SHUTTING_DOWN
        elif not self._routers:
            outcome = Outcome.REJECTED_NO_ENDPOINTS
        elif claims.model and not claims.pool:
            outcome = Outcome.MODEL_NOT_FOUND
        else:
            outcome = Outcome.POOL_NOT_FOUND
        self._recorder.refused_early(outcome.value)
        waiter.refused(outcome, _RETRY_AFTER_S, now)

    def _close_if_left(self, router: Router) -> None:
        """Let go of the router of a pool that is gone, when nothing runs there any more."""
        if router in self._leaving and not router.pool.total_in_flight:
            self._leaving.discard(router)
            router.detector.close()


class _Nowhere:
    """The standing of a request at no pool: it has been refused, or runs where nobody counts."""

    @property
    def is_waiting(self) -> bool:
        """It does not."""
        return False

    @property
    def deadline_s(self) -> None:
        """There is none."""


_NOWHERE: Final = _Nowhere()


def _router_of(admission: Admission) -> Router | None:
    """Return the router that has admitted a request, None for one that is at no pool."""
    if isinstance(admission, RouterAdmission):
        return admission.router
    if admission is not _NOWHERE:
        raise AssertionError("the admission is of another gate")
    return None
