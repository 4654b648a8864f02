"""The endpoints among which one pick chooses, and what is known of them, as arrays."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from epp.core.pool import Column, Mask, Pool
from epp.core.request import Request
from epp.core.resources import Endpoint

if TYPE_CHECKING:
    from epp.core.pool import EffectiveLoad

__all__ = ["Candidates", "Producer", "Slots"]

Slots: TypeAlias = npt.NDArray[np.intp]
_T_co = TypeVar("_T_co", covariant=True)
_T = TypeVar("_T")


class Producer(Protocol, Generic[_T_co]):
    """Finds something out for a request that several plugins want to know."""

    def produce(self, candidates: "Candidates") -> _T_co:
        """Return it, for the whole pool: arrays have shape ``(slots of the pool,)``."""
        ...


class Candidates:
    """The candidates of one pick.

    Arrays have shape ``(n,)``, one item for each candidate, in the order of ``slots``, the slots of
    the pool that they are in. ``now`` is in monotonic seconds. The arrays are not to be changed.
    What is computed once is kept for the other plugins of the same pick; nothing outlives it.
    """

    __slots__ = ("_shared", "now", "pool", "request", "rng", "slots")

    def __init__(
        self, request: Request, pool: Pool, slots: Slots, now: float, rng: random.Random
    ) -> None:
        self.request = request
        self.pool = pool
        self.slots = slots
        self.now = now
        self.rng = rng
        self._shared: dict[object, Any] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.slots)

    def where(self, keep: Mask) -> "Candidates":
        """Return those that a mask of shape ``(n,)`` keeps."""
        return self.at(self.slots[keep])

    def at(self, slots: Slots) -> "Candidates":
        """Return the candidates in these slots, which are some of these ones."""
        some = Candidates(self.request, self.pool, slots, self.now, self.rng)
        some._shared = self._shared
        return some

    def endpoints(self) -> list[Endpoint]:
        """Return the endpoints."""
        return [self.pool.endpoint(slot) for slot in self.slots.tolist()]

    def produced(self, producer: Producer[_T]) -> _T:
        """Return what a producer has found out for this request, asked once for each pick."""
        return self.once(producer, lambda: producer.produce(self))

    def once(self, key: object, compute: Callable[[], _T]) -> _T:
        """Return what is computed once for each pick; ``key`` stands for it."""
        found: _T | None = self._shared.get(key)
        if found is None:
            found = self._shared[key] = compute()
        return found

    # What the EPP knows itself

    @property
    def in_flight(self) -> Column:
        """Requests that were dispatched there and have not ended."""
        return self.pool.in_flight[self.slots].astype(np.float64)

    @property
    def in_flight_tokens(self) -> Column:
        """Estimated prompt tokens of these requests."""
        return self.pool.in_flight_tokens[self.slots]

    @property
    def used_ratio(self) -> Column:
        """In flight by the endpoint's limit."""
        return self.pool.used_ratio[self.slots]

    # What the engines told, brought up to date: see EffectiveLoad

    @property
    def waiting(self) -> Column:
        """Requests in the engine's own queue."""
        return self._effective().waiting[self.slots]

    @property
    def running(self) -> Column:
        """Requests in the engine's batch."""
        return self._effective().running[self.slots]

    @property
    def kv_ratio(self) -> Column:
        """Share of the KV cache in use, 0 to 1."""
        return self._effective().kv_ratio[self.slots]

    def attribute(self, name: str) -> Column:
        """Return a number that the engines tell under this name; NaN where one does not.

        The llm-d router's names for what every engine tells stand for the effective load.
        """
        match name:
            case "WaitingQueueSize":
                return self.waiting
            case "RunningRequestsSize":
                return self.running
            case "KVCacheUsagePercent":
                return self.kv_ratio
        return self.pool.attribute(name)[self.slots]

    def _effective(self) -> "EffectiveLoad":
        return self.once("effective load", lambda: self.pool.effective_load(self.now))
