"""The pool: endpoints in slots, one numpy array per quantity, a candidate set a mask over the
slots.

What it must not know: why a request goes where (scheduling), or when (flow control).

An endpoint that leaves the pool while requests run on it keeps its slot, inactive, until the last
of them has ended, so that no lease ever points at somebody else's counter.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from epp.core.pool.effective import EffectiveLoad, effective_load
from epp.core.pool.lease import Lease
from epp.core.pool.load import EngineLoad
from epp.core.resources import Endpoint, split_host_port

__all__ = ["Column", "Mask", "Pool"]

Mask: TypeAlias = npt.NDArray[np.bool_]
Column: TypeAlias = npt.NDArray[np.float64]
_FIRST_SLOTS = 8
_INFLIGHT = "inflight"
_MOST_REQUESTS = 2**31 - 1
_MOST_ATTRIBUTES = 64
"""So many columns of attributes are kept: what is asked for are a few of the configuration."""
_T = TypeVar("_T", bound=np.generic)


class Pool:
    """The endpoints of one pool, their limits and what is in flight at each.

    Arrays have shape ``(slots,)``; slots of vanished endpoints are reused. ``limit`` is how many
    requests an endpoint may have in flight, ``token_limit`` how many tokens: with either reached,
    it has no room. Both are set by the saturation detector (:meth:`set_limit`), with the reason to
    tell when the endpoint is full; ``max_concurrency`` is the limit until then. ``used_ratio`` is
    what is in flight by the limit, 1 where that is 0; ``in_flight_tokens`` are the prompt tokens of
    that, as estimated. ``waiting``, ``running`` (requests), ``kv_ratio`` (0 to 1) and ``scraped_s``
    are what the engine said last and when, ``in_flight_then`` what was in flight when it did; NaN
    where it has not said anything. What is older than ``stale_after_s`` is history: see
    :meth:`effective_load`.

    ``version`` grows by one with every change of membership or of the slots, so that a mask derived
    from the pool can tell when it is out of date, and :meth:`changed_since` says where.
    ``on_joined(slot)`` is called for every endpoint
    that joins, or comes back, ``on_changed(slot)`` for one that stays and has other labels,
    ``on_busy(slot)`` when the first request goes to one that has none, ``on_freed(slot)`` when one
    that has left is forgotten.
    """

    def __init__(self, *, max_concurrency: int, stale_after_s: float = 5.0) -> None:
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, not {max_concurrency}")
        self._max_concurrency = max_concurrency
        self.stale_after_s = stale_after_s
        self._endpoints: list[Endpoint | None] = []
        self._slot_of: dict[str, int] = {}
        self._loads: list[int] = []  # as in_flight: one number of an array is slow to get at
        self._tokens: list[int] = []
        self._limits: list[int] = []
        self._token_limits: list[float] = []
        self._reasons: list[str] = []
        self._told: list[EngineLoad | None] = []
        self._attributes: dict[str, Column] = {}
        self._free: list[int] = []
        self._open = 0
        self.version = 0
        self.on_joined: Callable[[int], None] = lambda slot: None
        self.on_changed: Callable[[int], None] = lambda slot: None
        self.on_busy: Callable[[int], None] = lambda slot: None
        self.on_freed: Callable[[int], None] = lambda slot: None
        self.active: Mask = np.zeros(0, dtype=np.bool_)
        self.in_flight: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self.limit: npt.NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self.used_ratio: Column = np.zeros(0)
        self.in_flight_tokens: Column = np.zeros(0)
        self.waiting: Column = np.zeros(0)
        self.running: Column = np.zeros(0)
        self.kv_ratio: Column = np.zeros(0)
        self.scraped_s: Column = np.zeros(0)
        self.in_flight_then: Column = np.zeros(0)
        self._room: Mask = np.zeros(0, dtype=np.bool_)
        self._changed_in: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._add_slots(_FIRST_SLOTS)

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
        return self.update(wanted.values(), [each for each in self._slot_of if each not in wanted])

    def update(self, present: Iterable[Endpoint], gone: Iterable[str]) -> bool:
        """Have the endpoints with these ``ip:port`` leave, then those present join or be as they
        are now; tell whether that changed anything.

        What is in both leaves and joins anew: it is another engine at the same address. The cost is
        in proportion to the change, not to the pool.
        """
        changed = False
        for destination in gone:
            slot = self._slot_of.get(destination)
            if slot is not None and self.active[slot]:
                self.active[slot] = False
                self._update_room(slot)
                self._forget_if_idle(slot)
                changed = True
        for endpoint in present:
            changed |= self._seat(endpoint)
        self.version += changed
        return changed

    def changed_since(self, version: int) -> list[int]:
        """Return the slots of the endpoints that have joined, or have other labels, in a later
        version than this one; of all endpoints where it is below 0.

        Who keeps something of each endpoint need not look at all of them with each change.
        """
        is_newer = self._changed_in > version
        slots: list[int] = np.flatnonzero(is_newer & self.active).tolist()
        return slots

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
        limit. It is not to be changed, and changes with the pool."""
        return self._room if candidates is None else self._room & candidates

    @property
    def has_room(self) -> bool:
        """Whether any endpoint is active and below its limit."""
        return self._open > 0

    def slot_of(self, destination: str) -> int | None:
        """Return the slot of the endpoint with this ``ip:port``, None where there is none."""
        return self._slot_of.get(destination)

    def closed_by(self, slot: int) -> str | None:
        """Return why an active endpoint takes no more, in a word; None where it has room."""
        return None if self._room[slot] else self._reasons[slot]

    def excess(self, slot: int) -> tuple[int, float]:
        """Return how many requests, and how many tokens, must end at an endpoint before it has
        room; 0 or less where they are below their limit."""
        requests = self._loads[slot] - self._limits[slot] + 1
        return requests, self._tokens[slot] - self._token_limits[slot] + 1

    def set_limit(self, slot: int, limit: int, reason: str, token_limit: float = math.inf) -> None:
        """Have the endpoint in the slot take so many requests and tokens at a time.

        ``reason`` is one word for what it is that sets the limit, for when it is reached.
        """
        self._limits[slot] = self.limit[slot] = min(limit, _MOST_REQUESTS)
        self._token_limits[slot] = token_limit
        self._reasons[slot] = reason
        self._count(slot, self._loads[slot])
        self._update_room(slot)

    def scraped(self, slot: int, load: EngineLoad, now: float) -> None:
        """Note what the engine in the slot said of itself."""
        self._note(slot, load)
        self.waiting[slot] = load.waiting
        self.running[slot] = load.running
        self.kv_ratio[slot] = load.kv_ratio
        self.scraped_s[slot] = now
        self.in_flight_then[slot] = self._loads[slot]

    def reported(self, slot: int, load: EngineLoad, now: float) -> None:
        """Note what the engine in the slot said with a response, which is less than its page says.

        What it did not say stays as it was. Requests that wait or run, by the last that was said of
        them and what has come and gone since, are as old as they were where neither was said now.
        """
        self._note(slot, load.completed(self._told[slot]))
        if not math.isnan(load.kv_ratio):
            self.kv_ratio[slot] = load.kv_ratio
        says_nothing = math.isnan(load.waiting) and math.isnan(load.running)
        knows_nothing = math.isnan(self.waiting[slot]) and math.isnan(self.running[slot])
        if says_nothing and not knows_nothing:
            return
        since = self._loads[slot] - self.in_flight_then[slot]
        for column, said in ((self.waiting, load.waiting), (self.running, load.running)):
            unsaid = np.maximum(column[slot] + since, 0.0)  # NaN where it never was said
            column[slot] = unsaid if math.isnan(said) else said
        self.scraped_s[slot] = now
        self.in_flight_then[slot] = self._loads[slot]

    def told(self, slot: int) -> EngineLoad | None:
        """Return what the engine in the slot said last; None where it has not said anything."""
        return self._told[slot]

    def attribute(self, name: str) -> Column:
        """Return a number that engines tell under this name, shape ``(slots,)``; NaN where one does
        not. It is not to be changed, and changes with the pool."""
        column = self._attributes.get(name)
        if column is None:
            if len(self._attributes) >= _MOST_ATTRIBUTES:
                self._attributes.clear()
            column = np.array([_attribute(load, name) for load in self._told], dtype=np.float64)
            self._attributes[name] = column
        return column

    def effective_load(self, now: float) -> EffectiveLoad:
        """Return the load of the engines as it should be by ``now``."""
        return effective_load(self, now)

    def lease(self, slot: int, tokens: int = 0) -> Lease:
        """Take capacity for one request of so many tokens at the endpoint in the slot."""
        endpoint = self.endpoint(slot)
        self._take(slot, tokens)
        return Lease(self, slot, endpoint, tokens)

    def adopt(self, destination: str, tokens: int = 0) -> Lease:
        """Take capacity for a request of so many tokens that already runs there.

        It does so whatever the limit. A destination that the pool does not know gets a slot like
        that of an endpoint that has left. Raises ValueError for what is no ``ip:port``.
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
        return self.lease(slot, tokens)

    def _seat(self, endpoint: Endpoint) -> bool:
        """Have an endpoint in the pool, as it is now; tell whether that is a change."""
        slot = self._slot_of.get(endpoint.destination)
        if slot is None:
            slot = self._slot_of[endpoint.destination] = self._free_slot()
        elif self.active[slot] and self._endpoints[slot] == endpoint:
            return False
        joins = not self.active[slot]
        self._endpoints[slot] = endpoint
        self.active[slot] = True
        self._changed_in[slot] = self.version + 1
        self._update_room(slot)
        (self.on_joined if joins else self.on_changed)(slot)
        return True

    def _take(self, slot: int, tokens: int) -> None:
        load = self._loads[slot] + 1
        self._count(slot, load)
        self._tokens[slot] += tokens
        self.in_flight_tokens[slot] = self._tokens[slot]
        if load >= self._limits[slot] or self._tokens[slot] >= self._token_limits[slot]:
            self._update_room(slot)
        if load == 1:
            self.on_busy(slot)

    def _release(self, slot: int, tokens: int) -> None:
        load = self._loads[slot] - 1
        if load < 0:
            raise AssertionError("more leases were released than taken")
        self._count(slot, load)
        self._tokens[slot] -= tokens
        self.in_flight_tokens[slot] = self._tokens[slot]
        if not self._room[slot]:
            self._update_room(slot)
        if not load:
            self._forget_if_idle(slot)

    def _move(self, slot: int, destination: str, tokens: int) -> tuple[int, Endpoint] | None:
        target = self._slot_of.get(destination)
        if target is None:
            return None
        self._take(target, tokens)
        self._release(slot, tokens)
        return target, self.endpoint(target)

    def _count(self, slot: int, load: int) -> None:
        limit = self._limits[slot]
        self._loads[slot] = self.in_flight[slot] = load
        self.used_ratio[slot] = load / limit if limit else 1.0

    def _update_room(self, slot: int) -> None:
        has_room = (
            bool(self.active[slot])
            and self._loads[slot] < self._limits[slot]
            and self._tokens[slot] < self._token_limits[slot]
        )
        if has_room != self._room[slot]:
            self._room[slot] = has_room
            self._open += 1 if has_room else -1

    def _forget_if_idle(self, slot: int) -> None:
        if self._loads[slot] == 0 and not self.active[slot]:
            del self._slot_of[self.endpoint(slot).destination]
            self._endpoints[slot] = None
            self._reset(slot)
            heapq.heappush(self._free, slot)
            self.on_freed(slot)

    def _free_slot(self) -> int:
        if not self._free:
            self._add_slots(len(self._endpoints))
        return heapq.heappop(self._free)

    def _add_slots(self, slots: int) -> None:
        first = len(self._endpoints)
        self._endpoints.extend([None] * slots)
        self._loads.extend([0] * slots)
        self._tokens.extend([0] * slots)
        self._limits.extend([0] * slots)
        self._token_limits.extend([math.inf] * slots)
        self._reasons.extend([_INFLIGHT] * slots)
        self._told.extend([None] * slots)
        self.active = _longer(self.active, slots)
        self._room = _longer(self._room, slots)
        self.in_flight = _longer(self.in_flight, slots)
        self.limit = _longer(self.limit, slots)
        self.used_ratio = _longer(self.used_ratio, slots)
        self.waiting = _longer(self.waiting, slots)
        self.running = _longer(self.running, slots)
        self.kv_ratio = _longer(self.kv_ratio, slots)
        self.scraped_s = _longer(self.scraped_s, slots)
        self.in_flight_then = _longer(self.in_flight_then, slots)
        self.in_flight_tokens = _longer(self.in_flight_tokens, slots)
        self._changed_in = _longer(self._changed_in, slots)
        for name, column in self._attributes.items():
            self._attributes[name] = _longer(column, slots)
        for slot in range(first, first + slots):
            heapq.heappush(self._free, slot)
            self._reset(slot)

    def _note(self, slot: int, load: EngineLoad | None) -> None:
        self._told[slot] = load
        for name, column in self._attributes.items():
            column[slot] = _attribute(load, name)

    def _reset(self, slot: int) -> None:
        """Make a slot as one in which nothing was ever known."""
        self.set_limit(slot, self._max_concurrency, _INFLIGHT)
        self._note(slot, None)
        engine = (self.waiting, self.running, self.kv_ratio, self.scraped_s, self.in_flight_then)
        for column in engine:
            column[slot] = math.nan


def _attribute(load: EngineLoad | None, name: str) -> float:
    return math.nan if load is None else load.attributes.get(name, math.nan)


def _longer(array: npt.NDArray[_T], slots: int) -> npt.NDArray[_T]:
    return np.concatenate([array, np.zeros(slots, dtype=array.dtype)])
