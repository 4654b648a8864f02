"""A request's standing in a worker, whoever decides on it."""

from typing import Protocol

from epp.core.claims import RequestClaims
from epp.core.gate import Admission, GateWaiter, Route
from epp.core.request import Outcome

__all__ = ["AdmissionKeeper", "RemoteAdmission"]


class AdmissionKeeper(Protocol):
    """Who keeps the table of admissions."""

    def stopped_waiting(self, admission: "RemoteAdmission") -> None:
        """A request has its answer."""

    def forget(self, admission: "RemoteAdmission") -> None:
        """A request has its answer, and holds nothing."""

    def deadline_s(self, admission: "RemoteAdmission") -> float | None:
        """Return when its wait is over at the latest."""


class RemoteAdmission:
    """A request's standing at the core, or at the worker's own pools while there is no core.

    ``destination``, the ``ip:port`` where it runs, is None until it is dispatched. ``model`` is
    what its model server is asked for in place of the client's model, empty where that stays.
    ``local`` is its standing at the worker's own pools, where it has any; of them it is the waiter
    (:class:`epp.core.gate.GateWaiter`). It waits since ``since_s``, or runs since then.
    """

    __slots__ = (
        "_keeper",
        "_waiter",
        "claims",
        "destination",
        "id",
        "is_inference",
        "is_waiting",
        "local",
        "model",
        "since_s",
    )

    def __init__(
        self,
        keeper: AdmissionKeeper,
        number: int,
        claims: RequestClaims,
        waiter: GateWaiter,
        since_s: float,
        *,
        is_inference: bool,
    ) -> None:
        self._keeper = keeper
        self._waiter = waiter
        self.id = number
        self.claims = claims
        self.is_inference = is_inference
        self.since_s = since_s
        self.is_waiting = True
        self.destination: str | None = None
        self.model = ""
        self.local: Admission | None = None

    @property
    def deadline_s(self) -> float | None:
        """When the wait is over at the latest, as far as can be told here; None without end."""
        return self._keeper.deadline_s(self)

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        """Note it, and pass the word on."""
        self._keeper.stopped_waiting(self)
        self.destination = route.endpoint
        self.model = route.model
        self.since_s = now
        self._waiter.dispatched(route, waited_s, now)

    def passed(self, destination: str, now: float) -> None:
        """Note it, and pass the word on."""
        self._keeper.forget(self)
        self._waiter.passed(destination, now)

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """Note it, and pass the word on."""
        self._keeper.forget(self)
        self._waiter.refused(outcome, retry_after_s, now)

    def evicted(self, retry_after_s: int, now: float) -> None:
        """Pass the word on."""
        self._waiter.evicted(retry_after_s, now)
