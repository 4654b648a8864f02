"""The detector ``utilization``: thresholds for the engine's own queue and its KV cache.

A report says what the engine could take more when it was made. Added to what was in flight then,
that is a limit, which stays right as requests come and go until the next report. Where the queue is
longer than it may be, or more of the KV cache is in use, the limit is below what was in flight by
as much as is too much.
"""

import math

import msgspec

from epp.core.flow.saturation.reports import without_gaps
from epp.core.flow.saturation.staleness import Staleness
from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Pool
from epp.core.timers import Timers

__all__ = ["Utilization", "UtilizationOptions"]


class UtilizationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where an engine takes more requests.

    ``max_waiting`` requests in its own queue, ``max_kv_ratio`` of its KV cache (0 to 1), both times
    ``1 + headroom_ratio``. When its last report is older than ``stale_after_s``, the last limit
    stays; before its first report it takes ``unknown_requests``.
    """

    max_waiting: float = 5.0
    max_kv_ratio: float = 0.8
    stale_after_s: float = 5.0
    headroom_ratio: float = 0.0
    unknown_requests: int = 8


class Utilization:
    """Every endpoint takes what its engine's queue and KV cache have room for."""

    def __init__(self, options: UtilizationOptions, pool: Pool, timers: Timers) -> None:
        factor = 1.0 + options.headroom_ratio
        self._max_waiting = options.max_waiting * factor
        self._max_kv_ratio = options.max_kv_ratio * factor
        self._unknown_requests = options.unknown_requests
        self._pool = pool
        self._staleness = Staleness(options.stale_after_s, timers, self._went_stale)

    def joined(self, slot: int) -> None:
        """Let it have a few requests until it tells more."""
        self._staleness.joined(slot)
        self._pool.set_limit(slot, self._unknown_requests, "warming")

    def changed(self, slot: int) -> None:
        """Nothing changes: it is the same engine."""

    def dispatched(self, slot: int, now: float) -> None:
        """Nothing changes: the limit counts it."""

    def ended(self, slot: int, ending: Ending, slot_s: float, now: float) -> None:
        """Nothing changes: the limit counts it."""

    def close(self) -> None:
        """Set no limit any more."""
        self._staleness.close()

    def scraped(self, slot: int, load: EngineLoad, now: float) -> None:
        """Turn the report into a limit."""
        load = without_gaps(load)
        in_flight = int(self._pool.in_flight[slot])
        room = math.ceil(self._max_waiting - load.waiting)
        limit, reason = in_flight + room, "waiting" if load.waiting else "inflight"
        if load.kv_ratio >= self._max_kv_ratio:
            # What is in flight shares the cache: so many of them would fill it to the threshold.
            fits = math.floor(in_flight * self._max_kv_ratio / load.kv_ratio)
            limit, reason = min(limit, fits), "kv"
        self._pool.set_limit(slot, max(1, limit), reason)
        self._staleness.reported(slot, now)

    def _went_stale(self, slot: int, now: float) -> None:
        self._pool.set_limit(slot, int(self._pool.limit[slot]), "stale")
