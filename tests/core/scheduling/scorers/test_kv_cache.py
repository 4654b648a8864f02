"""``kv-cache-utilization-scorer``."""

import math

import pytest

from ..support import candidates_of, make, pool_of, told


@pytest.mark.parametrize(
    ("ratios", "scores"),
    [
        ([0.8, 0.5, 0.0], [0.2, 0.5, 1.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0, 0.9999], [0.0, 0.0001]),
        ([0.2, 0.6, math.nan], [0.8, 0.4, 0.6]),
    ],
)
def test_the_score_is_what_is_free(ratios: list[float], scores: list[float]) -> None:
    pool = pool_of([told(kv_ratio=ratio) for ratio in ratios])
    scorer = make("kv-cache-utilization-scorer")
    assert scorer.score(candidates_of(pool)) == pytest.approx(scores)
