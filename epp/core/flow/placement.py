"""Where a waiting request can go, and taking the capacity there."""

import random
from collections.abc import Hashable, Iterator
from typing import Final

from epp.core.flow.band import Band, Lane
from epp.core.flow.bands import Bands
from epp.core.flow.flows import LaneKey
from epp.core.flow.ticket import Ticket
from epp.core.flow.usage_limits import UsageLimits
from epp.core.pool import Lease, Mask, Pool
from epp.core.request import Request
from epp.core.scheduling import Scheduler

__all__ = ["Placement"]

_MAX_CACHED_MASKS: Final = 1_000
_MAX_PASSED_OVER: Final = 16
"""How many flows of a lane are looked at whose first request no endpoint takes, though one has
room: only filters that do not tell the kinds of requests, or go by the load, can bring that
about."""

_NO_ENDPOINTS: Final = "no-endpoints"
_HOLDBACK: Final = "holdback"
_FILTERED: Final = "filtered"


class Placement:
    """Finds room for requests among their own candidates, never on the pool's average."""

    def __init__(
        self, pool: Pool, scheduler: Scheduler, usage: UsageLimits, rng: random.Random
    ) -> None:
        self._pool = pool
        self.scheduler = scheduler
        self._usage = usage
        self._rng = rng
        self._masks: dict[frozenset[str], Mask] = {}
        self._masks_version = -1
        self._kinds_follow: tuple[Scheduler, Hashable] | None = None

    def has_candidates(self, request: Request) -> bool:
        """Whether some endpoint that is there may serve the request, or none is named."""
        return request.subset is None or bool(self._subset_mask(request.subset).any())

    def stranded(self, bands: Bands) -> list[Ticket]:
        """Return what waits and has no candidates any more."""
        return [
            ticket
            for band in bands.descending
            for lane in band.lanes.values()
            if not self.has_candidates(lane.first().head().request)  # nor has any of its lane
            for ticket in lane.arrivals.values()
        ]

    def lane_of(self, request: Request) -> LaneKey:
        """Return the lane for a request: what one cannot use of a lane, none can."""
        return request.subset, self.scheduler.kind(request, self._pool)

    def kinds_may_differ(self) -> bool:
        """Whether requests may be for other lanes than when this was asked last."""
        former = self._kinds_follow
        self._kinds_follow = self.scheduler, self.scheduler.kinds_follow(self._pool)
        return former != self._kinds_follow

    def place(self, request: Request, band: Band, now: float) -> Lease | None:
        """Pick an endpoint for a request and take its capacity, if one has room."""
        return None if self._is_held_back(request, band) else self._take(request, now)

    def place_oldest(self, band: Band, now: float) -> tuple[Ticket, Lease] | None:
        """Do so for the request of a band that has waited for longest, of those that can go and
        have waited for its ``max_wait_s``."""
        max_wait_s = band.options.max_wait_s or 0.0
        oldest = [lane.oldest() for lane in band.lanes.values()]
        for ticket in sorted(oldest, key=_sequence):
            if now - ticket.entered_s >= max_wait_s:
                lease = self.place(ticket.request, band, now)
                if lease is not None:
                    return ticket, lease
        return None

    def place_first(self, band: Band, now: float) -> tuple[Ticket, Lease] | None:
        """Do so for the first request of a band that can go."""
        lanes = list(band.lanes.values())
        if len(lanes) > 1:
            lanes.sort(key=Lane.first_entry)
        for lane in lanes:
            ticket = lane.first().head()
            if self._is_held_back(ticket.request, band):
                continue  # and so are all of its lane, who have the same candidates
            lease = self._take(ticket.request, now)
            if lease is not None:
                return ticket, lease
            if len(lane.queues) > 1 and self._room_for(ticket.request).any():
                for queue in lane.in_order(_MAX_PASSED_OVER)[1:]:
                    ticket = queue.head()
                    lease = self._take(ticket.request, now)
                    if lease is not None:
                        return ticket, lease
        return None

    def blocked(self, band: Band, now: float) -> Iterator[Mask]:
        """Yield, for each of a band's first requests that is blocked, its candidates, as a mask.

        Blocked is whose candidates all have no room, and who could use it if one had. Those that
        the scheduler takes out are none.
        """
        pool = self._pool
        for lane in sorted(band.lanes.values(), key=Lane.first_entry):
            first = lane.first().head().request
            candidates = self.candidates(first)
            usable = self.scheduler.usable(first, pool, candidates, now, self._rng)
            if not pool.with_room(usable).any() and not self._usage.holds_back(
                band, pool, candidates, asks=False, freed=1
            ):
                yield usable

    def could_go(self, band: Band) -> bool:
        """Whether some endpoint has room for a waiting request of a band."""
        firsts = (lane.first().head().request for lane in band.lanes.values())
        return any(
            self._room_for(first).any()
            and not self._usage.holds_back(band, self._pool, self.candidates(first), asks=False)
            for first in firsts
        )

    def closed_by(self, band: Band) -> str | None:
        """Return why the requests of a band wait, in a word; None where none do.

        What most of the endpoints are closed by, or ``no-endpoints``, or ``holdback``, or
        ``filtered`` where they have room and the scheduler picks none of them.
        """
        if not band.requests:
            return None
        candidates = self.candidates(band.oldest().request)
        slots = candidates.nonzero()[0].tolist()
        if not slots:
            return _NO_ENDPOINTS
        if self._usage.holds_back(band, self._pool, candidates, asks=False):
            return _HOLDBACK
        closed = [self._pool.closed_by(slot) for slot in slots]
        reasons = [reason for reason in closed if reason is not None]
        return max(sorted(set(reasons)), key=reasons.count) if reasons else _FILTERED

    def candidates(self, request: Request) -> Mask:
        """Return the mask, shape ``(slots,)``, of the endpoints that may serve a request, whether
        they have room or not."""
        subset = request.subset
        return self._pool.active if subset is None else self._subset_mask(subset)

    def _is_held_back(self, request: Request, band: Band) -> bool:
        return self._usage.holds_back(band, self._pool, self.candidates(request))

    def _take(self, request: Request, now: float) -> Lease | None:
        pool, scheduler = self._pool, self.scheduler
        slots = scheduler.pick(request, pool, self._room_for(request), now, self._rng)
        if not slots:
            return None
        lease = pool.lease(slots[0], request.prompt_tokens)
        if len(slots) > 1:
            lease.fallbacks = tuple(pool.endpoint(slot).destination for slot in slots[1:])
        try:
            for observer in scheduler.observers:
                observer.placed(request, lease, now)
        except BaseException:  # of a plugin of others: the request does not go
            lease.release()
            raise
        return lease

    def _room_for(self, request: Request) -> Mask:
        room = self._pool.with_room()
        return room if request.subset is None else room & self._subset_mask(request.subset)

    def _subset_mask(self, subset: frozenset[str]) -> Mask:
        if self._masks_version != self._pool.version:
            self._masks.clear()
            self._masks_version = self._pool.version
        mask = self._masks.get(subset)
        if mask is None:
            if len(self._masks) >= _MAX_CACHED_MASKS:
                self._masks.clear()
            mask = self._masks[subset] = self._pool.mask_of(subset)
        return mask


def _sequence(ticket: Ticket) -> int:
    return ticket.sequence
