"""A heap of deadlines: one "next wake-up" for the whole core.

The core knows no clock. Whoever drives it asks :meth:`Timers.next_deadline`, sleeps until then, and
calls :meth:`Timers.run`. Cancelling is O(1): the entry stays in the heap, dead, and the heap is
rebuilt once more than half of it is dead, so memory is bounded by twice the number of live timers
(and a few dozen dead ones, for which a rebuild does not pay).
"""

import heapq
from collections.abc import Callable

__all__ = ["Timer", "Timers"]

_REBUILD_ABOVE = 64


class Timer:
    """One deadline, in seconds of the driver's clock. Cancel it when its reason is gone."""

    __slots__ = ("_action", "_timers", "deadline_s")

    def __init__(self, deadline_s: float, action: Callable[[float], None], timers: "Timers"):
        self.deadline_s = deadline_s
        self._action: Callable[[float], None] | None = action
        self._timers = timers

    def cancel(self) -> None:
        """Make sure that the action never runs. Does nothing if it ran or was cancelled before."""
        if self._action is not None:
            self._action = None
            self._timers._one_died()

    def _fire(self, now: float) -> None:
        """Run the action, once."""
        action, self._action = self._action, None
        if action is not None:
            action(now)

    @property
    def is_alive(self) -> bool:
        """Whether the action is still to run."""
        return self._action is not None


class Timers:
    """The deadlines of one core.

    ``on_earlier`` is called with the new earliest deadline whenever it moves forward in time, so
    that a driver that sleeps can wake up sooner. It is an attribute, set once by the driver.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._dead = 0
        self.on_earlier: Callable[[float], None] = lambda deadline_s: None

    def schedule(self, deadline_s: float, action: Callable[[float], None]) -> Timer:
        """Have ``action(now)`` run at the first :meth:`run` whose ``now`` is at or past the
        deadline."""
        timer = Timer(deadline_s, action, self)
        self._sequence += 1
        earliest = self._heap[0][0] if self._heap else None
        heapq.heappush(self._heap, (deadline_s, self._sequence, timer))
        if earliest is None or deadline_s < earliest:
            self.on_earlier(deadline_s)
        return timer

    def next_deadline(self) -> float | None:
        """Return the earliest live deadline, or None where there is none."""
        heap = self._heap
        while heap and not heap[0][2].is_alive:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Run every action whose deadline has come, in the order of the deadlines."""
        while (deadline_s := self.next_deadline()) is not None and deadline_s <= now:
            timer = heapq.heappop(self._heap)[2]
            self._rebuild_if_mostly_dead()
            timer._fire(now)

    def __len__(self) -> int:
        """Return the number of live timers."""
        return len(self._heap) - self._dead

    def _one_died(self) -> None:
        self._dead += 1
        self._rebuild_if_mostly_dead()

    def _rebuild_if_mostly_dead(self) -> None:
        if self._dead > _REBUILD_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].is_alive]
            heapq.heapify(self._heap)
            self._dead = 0
