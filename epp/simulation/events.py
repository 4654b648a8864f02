"""The virtual clock: what happens next, in order of time."""

import heapq
import math
from collections.abc import Callable
from typing import TypeAlias

from epp.core.timers import Timers

__all__ = ["Action", "Events"]

Action: TypeAlias = Callable[[float], None]
"""Something that happens, called with the time in virtual seconds."""


class Events:
    """A heap of actions, and the core's timers among them.

    What is due at the same time happens in the order in which it was scheduled, timers first; so
    one run is like the next. ``scheduled`` counts them all.
    """

    def __init__(self, timers: Timers) -> None:
        self.now = 0.0
        self._timers = timers
        self._heap: list[tuple[float, int, Action]] = []
        self.scheduled = 0

    def schedule(self, time_s: float, action: Action) -> None:
        """Have an action happen at a time, which is not before now."""
        self.scheduled += 1
        heapq.heappush(self._heap, (time_s, self.scheduled, action))

    def run(self, until_s: float, is_over: Callable[[], bool]) -> None:
        """Let happen what is due up to a time, until ``is_over``, which is asked after each."""
        heap, timers = self._heap, self._timers
        while not is_over():
            time_s = heap[0][0] if heap else math.inf
            deadline_s = timers.next_deadline()
            if deadline_s is not None and deadline_s <= min(time_s, until_s):
                self.now = deadline_s
                timers.run(deadline_s)
                continue
            if not heap or time_s > until_s:
                self.now = max(self.now, until_s)
                return
            self.now = time_s
            heapq.heappop(heap)[2](time_s)
