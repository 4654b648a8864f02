"""The pool: endpoints in slots, one numpy array per quantity, a candidate set a mask over the
slots.

What it must not know: why a request goes where (scheduling), or when (flow control).

An endpoint that leaves the pool while requests run on it keeps its slot, inactive, until the last
of them has ended, so that no lease ever points at somebody else's counter.
"""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from epp.core.pool.lease import Lease
from epp.core.resources import Endpoint, split_host_port

__all__ = ["Mask", "Pool"]

Mask: TypeAlias = npt.NDArray[np.bool_]
_FIRST_SLOTS = 8


class Pool:
    """The endpoints of one pool, their limits and what is in flight at each.

    ``max_concurrency`` is the limit of every endpoint, in requests. Arrays have shape ``(slots,)``;
    slots of vanished endpoints are reused. ``version`` grows by one with every change of
    membership or of the slots, so that a mask derived from the pool can tell when it is out of
    date.
    """

    def __init__(self, *, max_concurrency: int) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        self._max_concurrency = max_concurrency
        self._endpoints: list[Endpoint | None] = [None] * _FIRST_SLOTS
        self._slot_of: dict[str, int] = {}
        self.version = 0
        self.active: Mask = np.zeros(_FIRST_SLOTS, dtype=np.bool_)
        self.in_flight: npt.NDArray[np.int32] = np.zeros(_FIRST_SLOTS, dtype=np.int32)
        self.limit: npt.NDArray[np.int32] = np.full(_FIRST_SLOTS, max_concurrency, dtype=np.int32)
        self._loads = [0] * _FIRST_SLOTS  # as in_flight: one number of an array is slow to get at
        self._room: Mask | None = None
        self._has_room = False

    def __len__(self) -> int:
        """Return the number of endpoints that may be picked."""
        return int(np.count_nonzero(self.active))

    def __iter__(self) -> Iterator[tuple[Endpoint, int, int]]:
        """Yield ``(endpoint, in flight, limit)`` for every endpoint that may be picked."""
        for slot in np.flatnonzero(self.active).tolist():
            yield self.endpoint(slot), int(self.in_flight[slot]), int(self.limit[slot])

    @property
    def total_in_flight(self) -> int:
        """Leases held, those at endpoints that have left the pool included."""
        return int(self.in_flight.sum())

    def endpoint(self, slot: int) -> Endpoint:
        """Return the endpoint in a slot. Raises AssertionError for a slot that holds none."""
        endpoint = self._endpoints[slot]
        if endpoint is None:
            raise AssertionError(f"slot {slot} holds no endpoint")
        return endpoint

    def apply(self, endpoints: Iterable[Endpoint]) -> bool:
        """Make these the endpoints of the pool; tell whether that changed anything."""
        wanted = {endpoint.destination: endpoint for endpoint in endpoints}
        changed = False
        for destination, slot in list(self._slot_of.items()):
            if destination not in wanted and self.active[slot]:
                self.active[slot] = False
                self._forget_if_idle(slot)
                changed = True
        for destination, endpoint in wanted.items():
            known = self._slot_of.get(destination)
            if known is None:
                known = self._free_slot()
                self._slot_of[destination] = known
            elif self.active[known] and self._endpoints[known] == endpoint:
                continue
            self._endpoints[known] = endpoint
            self.active[known] = True
            changed = True
        self.version += changed
        self._room = None
        return changed

    def mask_of(self, destinations: Iterable[str]) -> Mask:
        """Return the mask, shape ``(slots,)``, of the active endpoints with these ``ip:port``."""
        mask = np.zeros_like(self.active)
        for destination in destinations:
            slot = self._slot_of.get(destination)
            if slot is not None:
                mask[slot] = self.active[slot]
        return mask

    def with_room(self, candidates: Mask | None = None) -> Mask:
        """Return the mask of those candidates (all, if None) that are active and below their
        limit. It is not to be changed."""
        room = self._room
        if room is None:
            room = self._room = self.active & (self.in_flight < self.limit)
            self._has_room = bool(room.any())
        return room if candidates is None else room & candidates

    @property
    def has_room(self) -> bool:
        """Whether any endpoint is active and below its limit."""
        self.with_room()
        return self._has_room

    def lease(self, slot: int) -> Lease:
        """Take capacity for one request at the endpoint in the slot."""
        endpoint = self.endpoint(slot)
        self._take(slot)
        return Lease(self, slot, endpoint)

    def adopt(self, destination: str) -> Lease:
        """Take capacity for a request that already runs there, whatever the limit.

        A destination that the pool does not know gets a slot like that of an endpoint that has
        left. Raises ValueError for what is no ``ip:port``.
        """
        slot = self._slot_of.get(destination)
        if slot is None:
            address, port = split_host_port(destination)
            endpoint = Endpoint(name=destination, address=address, port=port)
            if endpoint.destination != destination:
                raise ValueError(f"{destination!r} is no ip:port")
            slot = self._free_slot()
            self._endpoints[slot] = endpoint
            self._slot_of[destination] = slot
            self.version += 1  # there may be more slots now than masks of before have
        return self.lease(slot)

    def _take(self, slot: int) -> None:
        load = self._loads[slot] + 1
        self._loads[slot] = self.in_flight[slot] = load
        if load == self._max_concurrency:
            self._room = None

    def _release(self, slot: int) -> None:
        load = self._loads[slot]
        if load <= 0:
            raise AssertionError("more leases were released than taken")
        self._loads[slot] = self.in_flight[slot] = load - 1
        if load == self._max_concurrency:
            self._room = None
        if load == 1:
            self._forget_if_idle(slot)

    def _move(self, slot: int, destination: str) -> tuple[int, Endpoint] | None:
        target = self._slot_of.get(destination)
        if target is None:
            return None
        self._take(target)
        self._release(slot)
        return target, self.endpoint(target)

    def _forget_if_idle(self, slot: int) -> None:
        if self.in_flight[slot] == 0 and not self.active[slot]:
            del self._slot_of[self.endpoint(slot).destination]
            self._endpoints[slot] = None

    def _free_slot(self) -> int:
        try:
            return self._endpoints.index(None)
        except ValueError:
            slots = len(self._endpoints)
        self._endpoints.extend([None] * slots)
        self._loads.extend([0] * slots)
        self.active = np.concatenate([self.active, np.zeros(slots, dtype=np.bool_)])
        self.in_flight = np.concatenate([self.in_flight, np.zeros(slots, dtype=np.int32)])
        more = np.full(slots, self._max_concurrency, dtype=np.int32)
        self.limit = np.concatenate([self.limit, more])
        self._room = None
        return slots
