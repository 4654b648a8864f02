"""A few endpoints: how many are few, and the choice among those that are equally good."""

import random
from collections.abc import Sequence
from typing import Final

__all__ = ["FEW", "one_of"]

FEW: Final = 64
"""Up to so many, plain numbers are quicker than arrays: numpy's functions need many times as long
to be called at all, on a processor whose caches hold something else by now, as they do after each
sleep."""


def one_of(best: Sequence[int], rng: random.Random) -> int:
    """Return one of these by chance; there is at least one."""
    return best[0] if len(best) == 1 else best[int(rng.random() * len(best))]
