"""The core's clock and its one alarm, on an asyncio loop."""

import asyncio
import time

from epp.core.timers import Timers

__all__ = ["Alarm", "monotonic_s"]

monotonic_s = time.monotonic
"""The clock that the core's ``now`` is read from. Not the loop's: uvloop's has milliseconds
only."""


class Alarm:
    """Runs the core's timers when they are due, with one loop timer for all of them.

    Idle costs nothing: no deadline, no timer.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._handle: asyncio.TimerHandle | None = None
        self._rings_at_s = float("inf")

    def start(self) -> None:
        """Begin to ring, in the running loop."""
        self._timers.on_earlier = self._set
        self._set_next()

    def stop(self) -> None:
        """Ring no more."""
        self._timers.on_earlier = lambda deadline_s: None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _set(self, deadline_s: float) -> None:
        if self._handle is not None:
            if self._rings_at_s <= deadline_s:
                return
            self._handle.cancel()
        self._rings_at_s = deadline_s
        delay_s = max(0.0, deadline_s - monotonic_s())
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._handle = None
        try:
            self._timers.run(monotonic_s())
        finally:
            self._set_next()

    def _set_next(self) -> None:
        deadline_s = self._timers.next_deadline()
        if deadline_s is not None:
            self._set(deadline_s)
