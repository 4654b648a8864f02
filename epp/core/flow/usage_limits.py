"""How much of the pool each band may fill, so that higher ones find room when they come."""

from collections.abc import Callable, Iterable
from typing import Final

from epp.core.flow.band import Band
from epp.core.flow.options import UsageLimitOptions
from epp.core.pool import Mask, Pool
from epp.core.timers import Timer, Timers

__all__ = ["UsageLimits", "ceilings"]

_TRAFFIC_MEMORY_S: Final = 60.0
_ASK_AGAIN_S: Final = 0.1


def ceilings(options: UsageLimitOptions, priorities: list[int]) -> list[float]:
    """Return the share of the pool's limits that each of these bands may fill, highest first.

    With N bands, by rank ``c_i = cMax - i·(cMax - cMin)/(N-1)``, by value ``c_i = cMin + (p_i -
    pMin)/(pMax - pMin)·(cMax - cMin)``; a single band has ``cMax``. The formulas of the reference's
    priority-holdback-policy.
    """
    top, bottom = options.ceiling, options.min_ceiling
    bands = len(priorities)
    if options.policy != "priority-holdback" or bands < 2:
        return [top] * bands
    if options.domain == "rank":
        return [top - i * (top - bottom) / (bands - 1) for i in range(bands)]
    highest, lowest = priorities[0], priorities[-1]
    return [bottom + (p - lowest) / (highest - lowest) * (top - bottom) for p in priorities]


class UsageLimits:
    """The ceilings of one pool's bands, over those that have traffic: something of them waits or
    runs, or did in the last minute. So an idle band keeps nothing back.

    ``on_room(now)`` is called when a band's traffic is forgotten and others may use more, and when
    it is time to ask again after a decision that was left to the count of decisions.
    """

    def __init__(
        self, options: UsageLimitOptions, timers: Timers, on_room: Callable[[float], None]
    ) -> None:
        self._options = options
        self._timers = timers
        self._on_room = on_room
        self._is_off = _holds_nothing_back(options)
        self._forgets: dict[int, Timer] = {}
        self._traffic: set[int] = set()
        self._ticks = 0
        self._is_asked_again = False
        self._again: Timer | None = None

    def reconfigure(self, options: UsageLimitOptions, bands: Iterable[Band]) -> None:
        """Go by other options from now on; these are all bands.

        While nothing is held back no traffic is noted, so later only what waits and runs is known.
        """
        self._options = options
        self._is_off = _holds_nothing_back(options)
        if self._is_off:
            for timer in self._forgets.values():
                timer.cancel()
            self._forgets.clear()
            self._traffic.clear()
        for band in bands:
            if band.requests or band.running:
                self.arrived(band)

    def arrived(self, band: Band) -> None:
        """A request of the band has come."""
        if self._is_off:
            return
        timer = self._forgets.pop(band.priority, None)
        if timer is not None:
            timer.cancel()
        self._traffic.add(band.priority)

    def left(self, band: Band, now: float) -> None:
        """A request of the band waits or runs no more."""
        if self._is_off or band.requests or band.running or band.priority in self._forgets:
            return

        def forget(now: float) -> None:
            del self._forgets[band.priority]
            self._traffic.discard(band.priority)
            self._on_room(now)

        self._forgets[band.priority] = self._timers.schedule(now + _TRAFFIC_MEMORY_S, forget)

    def asked(self, now: float) -> None:
        """All that could go has gone.

        What was held back by the count of decisions alone would wait for ever where nothing else
        happens. So it is asked for again, as long as it waits.
        """
        if self._is_asked_again and self._again is None:
            self._again = self._timers.schedule(now + _ASK_AGAIN_S, self._ask_again)
        self._is_asked_again = False

    def _ask_again(self, now: float) -> None:
        self._again = None
        self._on_room(now)

    def holds_back(
        self, band: Band, pool: Pool, candidates: Mask, *, asks: bool = True, freed: int = 0
    ) -> bool:
        """Tell whether the band may use no more of these endpoints for now, though there may be
        room. ``asks`` is False where it is only to be known and not to be used, ``freed`` how many
        requests fewer are to be thought of as running."""
        if self._is_off:
            return False
        limit = int(pool.limit[candidates].sum())
        in_flight = int(pool.in_flight[candidates].sum()) - freed
        saturation = in_flight / limit if limit else 1.0
        priorities = sorted(self._traffic, reverse=True)
        rank = priorities.index(band.priority)
        if self._options.policy == "soft-reflective-ceiling":
            return self._reflects(rank, len(priorities), saturation, asks)
        return saturation >= ceilings(self._options, priorities)[rank]

    def _reflects(self, rank: int, bands: int, saturation: float, asks: bool) -> bool:
        """Tell whether a band is closed by the reference's soft-reflective-ceiling-policy: open
        while ``s < 1 - i·s/(N-1)``, closed at ``s >= 1``, and in between open once in
        ``round(s/(1 - s))`` decisions."""
        if not rank or bands < 2 or saturation < 1.0 - rank * saturation / (bands - 1):
            return False
        if saturation >= 1.0:
            return True
        self._ticks += asks
        is_closed = self._ticks % max(1, round(saturation / (1.0 - saturation))) != 0
        self._is_asked_again |= is_closed and asks
        return is_closed


def _holds_nothing_back(options: UsageLimitOptions) -> bool:
    return options.policy == "static" and options.ceiling >= 1.0
