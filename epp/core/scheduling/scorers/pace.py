"""How slow each endpoint is, compared with the others."""

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

import numpy as np

from epp.core.pool import Column, Mask

__all__ = ["Pace"]

_MEMORY: Final = 32
_KIND_MEMORY: Final = 64
_LEARNS_EVERY: Final = 8
_MOST_KINDS: Final = 1024
_ENOUGH: Final = 8
_NOISE: Final = 0.4
_MOST: Final = math.log(8.0)


class Pace:
    """Learns from how long requests take where.

    Requests that are alike, those of one tenant for one model, take about as long everywhere; so
    where they take three times as long as elsewhere, the endpoint is slow. Lengths differ a lot,
    hence means of logarithms, decayed: of about the last 64 requests of a kind wherever they went,
    and of how far from that the last 32 requests of an endpoint were. What is within a factor of
    1.5 of the pool's median counts as noise, and more than a factor of 8 is not believed. Of an
    endpoint with fewer than 8 requests nothing is known. The last 1,024 kinds are remembered.
    """

    def __init__(self) -> None:
        self._mean: Column = np.zeros(0)
        self._count: Column = np.zeros(0)
        self._kinds: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._factors: Column | None = None
        self._factors_of = b""
        self._ended = 0

    def ended(self, slot: int, slot_s: float, kind: Hashable) -> None:
        """A request of this kind has held an endpoint for so many seconds and was served."""
        self._reserve(slot + 1)
        length = math.log(max(slot_s, 1e-3))
        usual, seen = self._kinds.get(kind, (0.0, 0))
        seen = min(_KIND_MEMORY, seen + 1)
        usual += (length - usual) / seen
        self._kinds[kind] = usual, seen
        self._kinds.move_to_end(kind)
        if len(self._kinds) > _MOST_KINDS:
            self._kinds.popitem(last=False)
        count = self._count[slot] = min(_MEMORY, self._count[slot] + 1.0)
        self._mean[slot] += (length - usual - self._mean[slot]) / count
        self._ended += 1
        if self._ended % _LEARNS_EVERY == 0:
            self._factors_of = b""

    def forget(self, slot: int) -> None:
        """Another endpoint may come to this slot."""
        if slot < len(self._count):
            self._count[slot] = 0.0
            self._mean[slot] = 0.0
            self._factors_of = b""

    def factors(self, active: Mask) -> Column | None:
        """Return how many times as long as usual each endpoint takes, shape ``(slots,)``; None
        where that is 1 for all. ``active`` are the endpoints that there are.

        It is worked out anew when these have changed, and after every 8 requests.
        """
        active_bytes = active.tobytes()
        if active_bytes != self._factors_of:
            self._factors, self._factors_of = self._new_factors(active), active_bytes
        return self._factors

    def _new_factors(self, active: Mask) -> Column | None:
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
