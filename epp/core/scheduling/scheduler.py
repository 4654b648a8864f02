"""The pick of an endpoint among candidates.

A scheduler decides *where*, never *when*: whether a request may go was decided before, by the mask
that it is handed.
"""

import random
from typing import Final, Protocol

from epp.core.pool import Mask, Pool
from epp.core.request import Request

__all__ = ["LeastLoaded", "Scheduler"]

_FEW_SLOTS: Final = 64


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
    """Picks the candidate that is used least, in flight by limit, ties by chance."""

    def pick(
        self, request: Request | None, pool: Pool, mask: Mask, rng: random.Random
    ) -> int | None:
        """Return the least loaded slot of ``mask``, or None where the mask is empty."""
        best = _least_of_few(mask, pool) if len(mask) <= _FEW_SLOTS else _least(mask, pool)
        if not best:
            return None
        return best[0] if len(best) == 1 else best[int(rng.random() * len(best))]


def _least(mask: Mask, pool: Pool) -> list[int]:
    slots = mask.nonzero()[0]
    if not len(slots):
        return []
    used = pool.used_ratio[slots]
    least: list[int] = slots[used == used.min()].tolist()
    return least


def _least_of_few(mask: Mask, pool: Pool) -> list[int]:
    """Do the same without numpy, whose functions need many times as long to be called at all, on a
    processor whose caches hold something else by now, as they do after each sleep."""
    least: list[int] = []
    least_used = 0.0
    columns = zip(mask.tolist(), pool.used_ratio.tolist(), strict=True)
    for slot, (is_candidate, used) in enumerate(columns):
        if is_candidate:
            if not least or used < least_used:
                least, least_used = [slot], used
            elif used == least_used:
                least.append(slot)
    return least
