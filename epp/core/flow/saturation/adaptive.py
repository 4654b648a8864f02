"""The detector ``adaptive``: finds each endpoint's limit itself.

What an endpoint's limit goes by depends on what is known of it:

* **fresh**: its engine reports its load, and the reports can be true. The limit is that of
  :class:`Follow`.
* **stale**: the last report is too old, or the reports are frozen. The last limit stays, and is
  changed only with care, by what comes back (:class:`Climb`).
* **unknown**: it has never reported. It starts with a few requests, and :class:`Climb` raises that
  for as long as more in flight brings more finished work.

An endpoint that joins, or comes back, is one of which nothing is known.
"""

from typing import Final

import msgspec

from epp.core.flow.saturation.climb import Climb
from epp.core.flow.saturation.follow import Follow
from epp.core.flow.saturation.reports import Doubt, without_gaps
from epp.core.flow.saturation.staleness import Staleness
from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Pool
from epp.core.timers import Timers

__all__ = ["Adaptive", "AdaptiveOptions"]

_OUTPUT_WEIGHT: Final = 0.02


class AdaptiveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing here needs to be tuned.

    An endpoint starts with ``first_requests`` and never gets more than ``max_requests`` at a time.
    A report counts for ``stale_after_s``. ``unknown_requests`` is for those who must share out an
    endpoint without this detector: workers while nobody decides.
    """

    first_requests: int = 8
    max_requests: int = 4096
    stale_after_s: float = 5.0
    unknown_requests: int = 32


class Adaptive:
    """Every endpoint takes as many requests as make it finish the most work."""

    def __init__(self, options: AdaptiveOptions, pool: Pool, timers: Timers) -> None:
        self._options = options
        self._pool = pool
        self._staleness = Staleness(options.stale_after_s, timers, self._went_stale)
        self._endpoints: dict[int, _Endpoint] = {}

    def joined(self, slot: int) -> None:
        """Start cautiously, with nothing known."""
        self._staleness.joined(slot)
        self._endpoints[slot] = _Endpoint(self._options)
        self._pool.set_limit(slot, self._options.first_requests, "warming")

    def changed(self, slot: int) -> None:
        """Nothing changes: it is the same engine."""

    def dispatched(self, slot: int, now: float) -> None:
        """See whether the limit is used."""
        endpoint = self._endpoints.get(slot)
        if endpoint is None:
            return  # it was taken over from another router and has never joined
        endpoint.events += 1
        in_flight = int(self._pool.in_flight[slot])
        if in_flight >= endpoint.limit:
            endpoint.was_full = True
        if not endpoint.is_fresh:
            endpoint.climbing(now).dispatched(in_flight, now)

    def ended(self, slot: int, ending: Ending, slot_s: float, now: float) -> None:
        """Learn from what came back."""
        endpoint = self._endpoints.get(slot)
        if endpoint is None:
            return
        endpoint.events += 1
        if ending.output_tokens:
            tokens, mean = ending.output_tokens, endpoint.mean_output_tokens
            weight = _OUTPUT_WEIGHT if mean else 1.0
            endpoint.mean_output_tokens = mean + weight * (tokens - mean)
        if not endpoint.is_fresh and endpoint.climbing(now).ended(ending, slot_s, now):
            endpoint.limit = endpoint.climbing(now).limit
            self._pool.set_limit(slot, endpoint.limit, endpoint.blind_reason)

    def close(self) -> None:
        """Set no limit any more."""
        self._staleness.close()

    def scraped(self, slot: int, load: EngineLoad, now: float) -> None:
        """Go by the report, if it can be true."""
        endpoint = self._endpoints.get(slot)
        if endpoint is None:
            return
        self._staleness.reported(slot, now)
        load = without_gaps(load)
        in_flight = int(self._pool.in_flight[slot])
        if endpoint.doubt.is_frozen(load, in_flight, endpoint.events, now):
            self._found_frozen(slot, endpoint, load, in_flight, now)
            return
        follow = endpoint.follow
        if not endpoint.is_fresh:
            endpoint.is_fresh = True
            follow.resume(endpoint.limit)
        was_full = endpoint.was_full or in_flight >= endpoint.limit
        follow.report(load, in_flight, was_full, endpoint.mean_output_tokens)
        endpoint.was_full = False
        endpoint.limit = follow.limit
        if endpoint.doubt.since_s == now:
            endpoint.sound = follow.limit, follow.is_searching
        self._pool.set_limit(slot, follow.limit, follow.reason)

    def _went_stale(self, slot: int, now: float) -> None:
        """Keep the last limit; from now on it goes by what comes back."""
        endpoint = self._endpoints[slot]
        endpoint.lose_sight(endpoint.limit, endpoint.follow.is_searching, now)
        self._pool.set_limit(slot, endpoint.limit, endpoint.blind_reason)

    def _found_frozen(
        self, slot: int, endpoint: "_Endpoint", load: EngineLoad, in_flight: int, now: float
    ) -> None:
        """Go back to the limit of the last report that was new: the same one again meant nothing.

        Should the engine be idle after all, as it says, requests are not to wait here for ever:
        from time to time it gets one more.
        """
        endpoint.lose_sight(*endpoint.sound, now)
        limit = endpoint.limit
        is_idle = not load.waiting and not load.running
        if is_idle and in_flight >= limit and now >= endpoint.probes_s:
            endpoint.probes_s = now + self._options.stale_after_s
            limit = in_flight + 1
        self._pool.set_limit(slot, limit, endpoint.blind_reason)


class _Endpoint:
    """What is known of one endpoint."""

    __slots__ = ("blind_reason", "climb", "doubt", "events", "follow", "is_fresh", "limit",
                 "mean_output_tokens", "most", "probes_s", "sound", "was_full")  # fmt: skip

    def __init__(self, options: AdaptiveOptions) -> None:
        self.most = options.max_requests
        self.limit = options.first_requests
        self.follow = Follow(self.limit, self.most)
        self.sound = self.limit, True
        self.climb: Climb | None = None
        self.doubt = Doubt()
        self.is_fresh = False
        self.blind_reason = "warming"
        self.was_full = False
        self.probes_s = 0.0
        self.events = 0
        self.mean_output_tokens = 0.0

    def lose_sight(self, limit: int, is_searching: bool, now: float) -> None:
        """Go on without reports, if there were some until now."""
        if self.is_fresh:
            self.is_fresh = False
            self.limit = limit
            self.climb = Climb(limit, self.most, doubles=is_searching, now=now)
            self.blind_reason = "stale"

    def climbing(self, now: float) -> Climb:
        """Return the search for a limit without reports; it begins with the first request."""
        if self.climb is None:
            self.climb = Climb(self.limit, self.most, doubles=True, now=now)
        return self.climb
