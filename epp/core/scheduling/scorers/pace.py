"""How slow each endpoint is, compared with the others."""

import math
from typing import Final

import numpy as np

from epp.core.pool import Column, Mask

__all__ = ["Pace"]

_MEMORY: Final = 32
_ENOUGH: Final = 8
_NOISE: Final = 0.4
_MOST: Final = math.log(8.0)


class Pace:
    """Learns from how long requests take where.

    What is asked of the endpoints of a pool is much the same, so where requests take three times as
    long, the endpoint is slow. Lengths differ a lot, hence means of logarithms, decayed, of about
    the last 32 requests; what is within a factor of 1.5 of the pool's median counts as noise, and
    more than a factor of 8 is not believed. Of an endpoint with fewer than 8 requests nothing is
    known.
    """

    def __init__(self) -> None:
        self._mean: Column = np.zeros(0)
        self._count: Column = np.zeros(0)

    def ended(self, slot: int, slot_s: float) -> None:
        """A request has held an endpoint for so many seconds and was served."""
        self._reserve(slot + 1)
        count = self._count[slot] = min(_MEMORY, self._count[slot] + 1.0)
        self._mean[slot] += (math.log(max(slot_s, 1e-3)) - self._mean[slot]) / count

    def forget(self, slot: int) -> None:
        """Another endpoint may come to this slot."""
        if slot < len(self._count):
            self._count[slot] = 0.0
            self._mean[slot] = 0.0

    def factors(self, active: Mask) -> Column | None:
        """Return how many times as long as usual each endpoint takes, shape ``(slots,)``; None
        where that is 1 for all. ``active`` are the endpoints that there are."""
        self._reserve(len(active))
        known = active & (self._count[: len(active)] >= _ENOUGH)
        if np.count_nonzero(known) < 2:
            return None
        mean = self._mean[: len(active)]
        deviation = mean - np.median(mean[known])
        is_other = known & (np.abs(deviation) > _NOISE)
        if not is_other.any():
            return None
        return np.where(is_other, np.exp(np.clip(deviation, -_MOST, _MOST)), 1.0)

    def _reserve(self, slots: int) -> None:
        missing = slots - len(self._count)
        if missing > 0:
            self._mean = np.concatenate([self._mean, np.zeros(missing)])
            self._count = np.concatenate([self._count, np.zeros(missing)])
