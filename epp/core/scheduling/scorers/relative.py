"""Scores that compare the candidates with each other."""

import numpy as np

from epp.core.pool import Column

__all__ = ["lowest_best"]


def lowest_best(values: Column) -> Column:
    """Return 1 for the lowest and 0 for the highest, linear in between; 1 where all are equal.

    There is at least one value, and each is finite.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.ones(len(values))
    scores: Column = (high - values) / (high - low)
    return scores
