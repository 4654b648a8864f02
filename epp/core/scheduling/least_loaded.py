"""The candidate that is used least."""

import random

from epp.core.pool import Mask, Pool
from epp.core.scheduling.few import FEW, one_of

__all__ = ["least_loaded"]


def least_loaded(pool: Pool, mask: Mask, rng: random.Random) -> int | None:
    """Return the slot of ``mask`` with the least in flight by limit, ties by chance; None where the
    mask is empty."""
    best = _least_of_few(mask, pool) if len(mask) <= FEW else _least(mask, pool)
    return one_of(best, rng) if best else None


def _least(mask: Mask, pool: Pool) -> list[int]:
    slots = mask.nonzero()[0]
    if not len(slots):
        return []
    used = pool.used_ratio[slots]
    least: list[int] = slots[used == used.min()].tolist()
    return least


def _least_of_few(mask: Mask, pool: Pool) -> list[int]:
    """Do the same without arrays."""
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
