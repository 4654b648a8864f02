"""Which endpoints have not told their load for too long.

It must not know what is to be done about it.
"""

from collections.abc import Callable

from epp.core.timers import Timer, Timers

__all__ = ["Staleness"]


class Staleness:
    """Calls ``on_stale(slot, now)`` when an endpoint's last report is ``stale_after_s`` old.

    It needs one timer per endpoint and hardly ever sets it: a timer that finds a newer report goes
    off again when that one is due. An endpoint that has never reported cannot become stale.
    """

    def __init__(
        self, stale_after_s: float, timers: Timers, on_stale: Callable[[int, float], None]
    ) -> None:
        self._stale_after_s = stale_after_s
        self._schedule = timers.schedule
        self._on_stale = on_stale
        self._reported_s: dict[int, float] = {}
        self._timers: dict[int, Timer] = {}

    def joined(self, slot: int) -> None:
        """Forget what was in the slot."""
        self._reported_s.pop(slot, None)
        timer = self._timers.pop(slot, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Call nobody any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def reported(self, slot: int, now: float) -> None:
        """The endpoint has told its load, which was taken just now."""
        self._reported_s[slot] = now
        if slot not in self._timers:
            self._wait(slot)

    def _wait(self, slot: int) -> None:
        def look(now: float) -> None:
            if now < self._reported_s[slot] + self._stale_after_s:
                self._wait(slot)
            else:
                del self._timers[slot]
                self._on_stale(slot, now)

        due_s = self._reported_s[slot] + self._stale_after_s
        self._timers[slot] = self._schedule(due_s, look)
