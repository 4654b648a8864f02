"""``load-aware-scorer``."""

import pytest

from ..support import candidates_of, make, pool_of, told


@pytest.mark.parametrize(
    ("parameters", "waiting", "scores"),
    [
        ({}, [0, 64, 128, 1000], [0.5, 0.25, 0.0, 0.0]),
        ({}, [2, 2], [0.4921875, 0.4921875]),
        ({"threshold": 10}, [0, 1, 5, 10, 11], [0.5, 0.45, 0.25, 0.0, 0.0]),
        ({"threshold": 0}, [64], [0.25]),
        ({"threshold": -5}, [64], [0.25]),
    ],
)
def test_the_score_falls_from_a_half_to_nothing_at_the_threshold(
    parameters: dict[str, object], waiting: list[int], scores: list[float]
) -> None:
    pool = pool_of([told(waiting=count) for count in waiting])
    scorer = make("load-aware-scorer", parameters)
    assert scorer.score(candidates_of(pool)) == pytest.approx(scores)
