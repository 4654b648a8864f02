"""The candidate that is used least."""

import random
from typing import Final

from epp.core.pool import Mask, Pool

__all__ = ["least_loaded"]

_FEW_SLOTS: Final = 64


def least_loaded(pool: Pool, mask: Mask, rng: random.Random) -> int | None:
    """Return the slot of ``mask`` with the least in flight by limit, ties by chance; None where the
    mask is empty."""
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
