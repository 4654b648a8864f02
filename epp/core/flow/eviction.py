"""Ending running work for more important work that waits.

Off by default. When the first request of a band is blocked, because no endpoint that may serve it
has room, a running request of a negative priority below the band's is ended at one of those
endpoints. That is one decision: the next is not made before the capacity is free, or a time-out has
passed, since what comes of the first may make a second one needless.

Which one: at the endpoints that need the fewest evictions until they have room (one, as a rule),
the lowest priority; of these the least advanced, by the tokens that its response was seen to bring;
of these the one that was dispatched last.

The priority is that of the request's objective by now. But who was dispatched with one of 0 or more
is never ended, whatever has become of its objective since.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from epp.core.flow.band import Band
from epp.core.flow.waiter import Charge, Waiter
from epp.core.pool import Lease, Mask, Pool
from epp.core.request import Request
from epp.core.timers import Timer, Timers

__all__ = ["Evictable", "Eviction"]

_CONFIRMATION_TIMEOUT_S: Final = 10.0
_REBUILD_ABOVE: Final = 64

Rank = tuple[int, float, int, int]


class Evictable:
    """A running request that may be ended, while ``priority`` is negative."""

    __slots__ = ("charge", "lease", "output_tokens", "priority", "rank", "request", "sequence",
                 "slot", "waiter")  # fmt: skip

    def __init__(
        self,
        charge: Charge,
        request: Request,
        lease: Lease,
        waiter: Waiter,
        sequence: int,
    ) -> None:
        self.charge = charge
        self.request = request
        self.lease = lease
        self.waiter = waiter
        self.sequence = sequence
        self.slot = lease.slot
        self.priority = request.flow.priority
        self.output_tokens = 0
        self.rank: Rank | None = None


class _Group:
    """What may be ended of one priority at one endpoint: the first to go on top of a heap.

    Who leaves, or has another rank by now, stays in the heap until it gets to the top, or the heap
    is more than half outdated.
    """

    __slots__ = ("_heap", "_puts", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self._puts = 0
        self._heap: list[tuple[Rank, Evictable]] = []

    def put(self, entry: Evictable) -> None:
        self._puts += 1  # no two entries of the heap are alike
        entry.rank = (entry.output_tokens, -entry.charge.since_s, -entry.sequence, self._puts)
        heapq.heappush(self._heap, (entry.rank, entry))
        if len(self._heap) > _REBUILD_ABOVE and len(self._heap) > 2 * self.requests:
            self._heap = [each for each in self._heap if each[1].rank is each[0]]
            heapq.heapify(self._heap)

    def count(self, entry: Evictable, sign: int) -> None:
        self.requests += sign
        self.tokens += sign * entry.lease.tokens

    def first(self) -> Evictable:
        heap = self._heap
        while heap[0][1].rank is not heap[0][0]:
            heapq.heappop(heap)
        return heap[0][1]


class Eviction:
    """The evictions of one pool.

    ``blocked(band, now)`` gives, for a band that waits, the candidates of each of its first
    requests for which none has room; ``end(victim, now)`` ends one. After a time-out,
    ``retry(now)`` is called.
    """

    def __init__(
        self,
        pool: Pool,
        timers: Timers,
        *,
        blocked: Callable[[Band, float], Iterable[Mask]],
        end: Callable[[Evictable, float], None],
        retry: Callable[[float], None],
    ) -> None:
        self._pool = pool
        self._timers = timers
        self._blocked = blocked
        self._end = end
        self._retry = retry
        self._running: dict[Charge, Evictable] = {}
        self._groups: dict[int, dict[int, _Group]] = {}
        self._sequence = 0
        self._outstanding: Charge | None = None
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """Return how many running requests may be ended while their priority is negative."""
        return len(self._running)

    @property
    def is_outstanding(self) -> bool:
        """Whether a request was told to end and has not ended yet."""
        return self._outstanding is not None

    # What runs

    def runs(self, charge: Charge, request: Request, lease: Lease, waiter: Waiter) -> None:
        """A request runs from now on."""
        if request.flow.priority < 0:
            self._sequence += 1
            entry = Evictable(charge, request, lease, waiter, self._sequence)
            self._running[charge] = entry
            self._add(entry)

    def advanced(self, charge: Charge, output_tokens: int) -> None:
        """The response to a running request has brought so many tokens by now."""
        entry = self._running.get(charge)
        if entry is not None:
            entry.output_tokens = output_tokens
            self._group(entry).put(entry)

    def moved(self, charge: Charge) -> None:
        """A running request is served elsewhere than was thought."""
        entry = self._running.get(charge)
        if entry is not None:
            self._remove(entry)
            entry.slot = entry.lease.slot
            self._add(entry)

    def reprioritise(self, priorities: Mapping[str, int]) -> None:
        """These are the priorities of the objectives of these names by now."""
        for entry in self._running.values():
            priority = priorities.get(entry.request.objective, entry.priority)
            if priority != entry.priority:
                self._remove(entry)
                entry.priority = priority
                self._add(entry)

    def ended(self, charge: Charge) -> None:
        """A running request has ended, whichever way, and holds nothing any more."""
        entry = self._running.pop(charge, None)
        if entry is not None:
            self._remove(entry)
        elif charge is self._outstanding:
            self._confirm()

    # The decision

    def reclaim(self, bands: Iterable[Band], now: float) -> None:
        """End a running request if that helps one of these bands, the highest first."""
        while self._outstanding is None and self._running:
            victim = self._victim(bands, now)
            if victim is None:
                return
            # No candidate any more, whether it is heard or not: nobody is told twice.
            del self._running[victim.charge]
            self._remove(victim)
            self._outstanding = victim.charge
            self._timer = self._timers.schedule(now + _CONFIRMATION_TIMEOUT_S, self._expire)
            self._end(victim, now)

    def _victim(self, bands: Iterable[Band], now: float) -> Evictable | None:
        for band in bands:
            if band.requests:
                for candidates in self._blocked(band, now):
                    victim = self._first_below(band.priority, candidates)
                    if victim is not None:
                        return victim
        return None

    def _first_below(self, priority: int, candidates: Mask) -> Evictable | None:
        """Return who is to go at one of these endpoints, None where that helps nowhere."""
        best: tuple[tuple[int, int, Rank], Evictable] | None = None
        for slot, groups in self._groups.items():
            lower = sorted(each for each in groups if each < min(priority, 0))
            if not lower or not candidates[slot]:
                continue
            requests_over, tokens_over = self._pool.excess(slot)
            if (
                sum(groups[each].requests for each in lower) < requests_over
                or sum(groups[each].tokens for each in lower) < tokens_over
            ):
                continue
            entry = groups[lower[0]].first()
            if entry.rank is None:
                raise AssertionError("a request without a rank is in the order")
            order = (max(1, requests_over), lower[0], entry.rank)
            if best is None or order < best[0]:
                best = (order, entry)
        return None if best is None else best[1]

    def _expire(self, now: float) -> None:
        self._confirm()
        self._retry(now)

    def _confirm(self) -> None:
        self._outstanding = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Bookkeeping

    def _group(self, entry: Evictable) -> _Group:
        return self._groups[entry.slot][entry.priority]

    def _add(self, entry: Evictable) -> None:
        groups = self._groups.setdefault(entry.slot, {})
        group = groups.setdefault(entry.priority, _Group())
        group.count(entry, 1)
        group.put(entry)

    def _remove(self, entry: Evictable) -> None:
        entry.rank = None
        group = self._group(entry)
        group.count(entry, -1)
        if not group.requests:
            groups = self._groups[entry.slot]
            del groups[entry.priority]
            if not groups:
                del self._groups[entry.slot]
