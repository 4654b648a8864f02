"""What scheduling plugins are: filters, scorers, pickers, and what they may be told of.

A plugin is a plain object with one or more of these methods. It is asked for one request at a time
and never waits; arrays are those of :class:`Candidates`, of shape ``(n,)``.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from epp.core.gate import Ending
from epp.core.pool import Column, EngineLoad, Lease, Mask, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates

__all__ = [
    "CostTeller",
    "Filter",
    "KindFollower",
    "KindTeller",
    "Observer",
    "PartsTeller",
    "Picker",
    "Scorer",
]


@runtime_checkable
class Filter(Protocol):
    """Says which candidates are out of the question."""

    def filter(self, candidates: Candidates) -> Mask:
        """Return a mask of shape ``(n,)`` with those that stay."""
        ...


@runtime_checkable
class KindTeller(Protocol):
    """A filter that may take out all candidates of one request and not those of another."""

    def kind(self, request: Request, pool: Pool) -> Hashable:
        """Return what is the same for requests that it treats alike as long as the pool has the
        same endpoints. There should be few kinds: those of one kind wait in one line."""
        ...


@runtime_checkable
class KindFollower(KindTeller, Protocol):
    """A filter whose kinds stay the same with most changes of the pool's endpoints: what waits need
    not be sorted anew with each."""

    def kinds_follow(self, pool: Pool) -> Hashable:
        """Return what its kinds go by: as long as it is equal, so are they."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Says how good each candidate is."""

    def score(self, candidates: Candidates) -> Column:
        """Return numbers from 0 to 1 of shape ``(n,)``, the best the highest. What is outside is
        cut to that, NaN counts as 0."""
        ...


@runtime_checkable
class PartsTeller(Protocol):
    """A scorer that can tell what its scores are made of."""

    def parts(self, candidates: Candidates) -> Mapping[str, Column]:
        """Return columns of shape ``(n,)`` by name, in a unit of the scorer's own."""
        ...


@runtime_checkable
class CostTeller(Protocol):
    """A scorer that can do without arrays for a few endpoints, which is several times as quick:
    see :data:`epp.core.scheduling.few.FEW`."""

    def costs_of_few(
        self, request: Request, pool: Pool, slots: Sequence[int], now: float
    ) -> list[float]:
        """Return a number for each of the slots: the lower it is, the higher is the score."""
        ...


@runtime_checkable
class Picker(Protocol):
    """Chooses by the scores."""

    def pick(self, candidates: Candidates, scores: Column) -> Sequence[int]:
        """Return the indices, 0 to n - 1, of the endpoint that is picked and of those to fall back
        to, in this order. There is at least one candidate; ``scores`` are sums of shape ``(n,)``.
        """
        ...


class Observer:
    """A plugin that wants to know what becomes of its picks. Each method does nothing by itself.

    What is to be remembered of a request, ``lease.notes`` holds, under the plugin as key, or under
    one that its successor knows. After a change of the configuration a plugin may hear of requests
    that it has not seen placed.
    """

    wanted_headers: tuple[str, ...] = ()
    """Request headers that the plugin reads, in lower case: only these are in
    ``request.headers``."""

    def succeed(self, former: "Observer") -> None:
        """Take over, as far as it fits, what a plugin of the same type has learned, which was in
        this one's place before the configuration changed."""

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """A request was picked an endpoint for, and holds this lease on it."""

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """The proxy has failed over: the lease is at the endpoint that really serves."""

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """The response has ended; the lease is about to be released."""

    def joined(self, pool: Pool, slot: int) -> None:
        """An endpoint is in this slot now, or has other labels."""

    def freed(self, slot: int) -> None:
        """The endpoint in this slot is gone and forgotten."""

    def scraped(self, pool: Pool, slot: int, load: EngineLoad, now: float) -> None:
        """The engine in this slot has told its load."""

    def restarted(self, slot: int) -> None:
        """The engine in this slot is a new process: its caches are empty."""
