"""Many draws of one picker."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from epp.core.scheduling import Candidates

from ..support import NOW, pool_of, request_of

__all__ = ["candidates_for", "chi_square", "draws"]


def candidates_for(scores: Sequence[float], seed: int = 0) -> Candidates:
    """Return as many candidates as there are scores."""
    slots = np.arange(len(scores))
    return Candidates(request_of(), pool_of(len(scores)), slots, NOW, random.Random(seed))


def draws(picker: Any, scores: Sequence[float], times: int) -> Counter[tuple[int, ...]]:
    """Return how often each pick was made."""
    candidates, column = candidates_for(scores), np.array(scores, dtype=np.float64)
    return Counter(tuple(picker.pick(candidates, column)) for _ in range(times))


def chi_square(found: Sequence[int], shares: Sequence[float]) -> float:
    """Return how far counts are from their expected shares: sum of ``(n - e)**2 / e``."""
    total = sum(found)
    return sum(
        (count - share * total) ** 2 / (share * total)
        for count, share in zip(found, shares, strict=True)
    )
