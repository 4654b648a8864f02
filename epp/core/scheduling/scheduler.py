"""The pick of an endpoint among candidates.

A scheduler decides *where*, never *when*: whether a request may go was decided before, by the mask
that it is handed.
"""

import random
from typing import Protocol

from epp.core.pool import Mask, Pool
from epp.core.request import Request

__all__ = ["LeastLoaded", "Scheduler"]


class Scheduler(Protocol):
    """Chooses the slot for a request."""

    def pick(
        self, request: Request | None, pool: Pool, mask: Mask, rng: random.Random
    ) -> int | None:
        """Return a slot of ``mask`` (shape ``(slots,)``), or None where it picks none.

        ``request`` is None for a request that is no inference (a GET, say): any endpoint will do.
        """
        ...


class LeastLoaded:
    """Picks the candidate with the fewest requests in flight, ties by chance."""

    def pick(
        self, request: Request | None, pool: Pool, mask: Mask, rng: random.Random
    ) -> int | None:
        """Return the least loaded slot of ``mask``, or None where the mask is empty."""
        # Methods in C only: numpy's functions in Python take longer than the work on a usual pool.
        slots = mask.nonzero()[0]
        if not len(slots):
            return None
        loads = pool.in_flight[slots]
        best = slots[loads == loads[loads.argmin()]]
        return int(best[0] if len(best) == 1 else best[int(rng.random() * len(best))])
