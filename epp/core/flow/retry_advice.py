"""When a client that was turned away should come back."""

import math
import random
from typing import Final

import numpy as np

__all__ = ["RetryAdvice"]

_UNKNOWN_RETRY_S: Final = 5
_BOOKED_RATIO: Final = 0.8
"""How much of the drain rate is promised: the rest is for newcomers, and for a rate that was not
measured exactly."""

_ZERO: Final = np.zeros(1)


class RetryAdvice:
    """Gives each client that is turned away a second in which there will be capacity for it.

    Were all told when the queue of now has drained, they would come back at the same time, find the
    places taken by those who were quicker, and be turned away again. So there is a calendar of who
    was told to come back when, and each is given the first second by whose end the queue of now and
    all that comes back before will have gone, at four fifths of the rate at which the queue drains
    by the latest measure. A rate that was measured too low at first, while the pool was filling up,
    so leaves seconds with room, which the next ones are given.

    Nothing is reserved: who does not come leaves the place to others.
    """

    def __init__(self, rng: random.Random, max_s: int) -> None:
        self._rng = rng
        self._max_s = max(1, max_s)
        self._seconds = np.arange(1.0, self._max_s + 1.0)
        self._booked = np.zeros(self._max_s)  # cost that comes back in so many seconds
        self._second = -math.inf

    def retry_after_s(
        self, waiting_cost: float, cost: float, rate_per_s: float | None, now: float
    ) -> int:
        """Return the advice for a request of this ``cost``, with ``waiting_cost`` in the queue that
        drains at ``rate_per_s``.

        Whole seconds, 1 to the maximum, which is told to all that have no room before; a few
        seconds, by chance, where the drain rate is not known.
        """
        if not rate_per_s:
            return self._rng.randint(1, min(_UNKNOWN_RETRY_S, self._max_s))
        self._turn_pages(now)
        # Without regard to seconds in which nothing is left to do, what is ahead at the end of
        # second n is a_n = queue + booked until n - rate·n. There is room in it where a_n is less
        # than 0 and than ever before: what was less was idle time, which can be used no more.
        rate = _BOOKED_RATIO * rate_per_s
        ahead = waiting_cost + np.cumsum(self._booked) - rate * self._seconds
        least_before = np.minimum.accumulate(np.concatenate((_ZERO, ahead[:-1])))
        has_room = ahead < least_before
        index = int(has_room.argmax())
        if not has_room[index]:
            index = self._max_s - 1
        self._booked[index] += cost
        return index + 1

    def _turn_pages(self, now: float) -> None:
        """Forget the seconds that have passed."""
        second = math.floor(now)
        passed = second - self._second
        if passed <= 0:
            return
        self._second = second
        if passed >= self._max_s:
            self._booked[:] = 0.0
            return
        kept = self._max_s - int(passed)
        self._booked[:kept] = self._booked[self._max_s - kept :].copy()
        self._booked[kept:] = 0.0
