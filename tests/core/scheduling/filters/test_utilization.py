"""Who is kept by load."""

import pytest

from ..support import candidates_of, make, pool_of, told

_LOADS = [told(0, 5, 0.1), told(3, 5, 0.5), told(9, 20, 0.95), None]


def _kept(*conditions: tuple[str, float], fallback: bool = False) -> list[int]:
    pool = pool_of(_LOADS, in_flight=[5, 8, 29, 2])
    parameters = {
        "conditions": [{"metric": metric, "maxValue": value} for metric, value in conditions],
        "fallbackOnEmpty": fallback,
    }
    mask = make("utilization-filter", parameters).filter(candidates_of(pool))
    kept: list[int] = mask.nonzero()[0].tolist()
    return kept


@pytest.mark.parametrize(
    ("metric", "value", "kept"),
    [
        ("active-requests", 7, [0, 3]),
        ("running-requests", 5, [0, 1, 3]),
        ("waiting-queue", 3, [0, 1, 3]),
        ("waiting-queue", 2.9, [0, 3]),
        ("kv-cache-utilization", 0.95, [0, 1, 2, 3]),
        ("kv-cache-utilization", 0.2, [0]),  # of whom nothing is known is as full as the others
    ],
)
def test_a_bound_may_be_reached_but_not_passed(metric: str, value: float, kept: list[int]) -> None:
    assert _kept((metric, value)) == kept


def test_all_bounds_must_be_kept() -> None:
    assert _kept(("waiting-queue", 3), ("kv-cache-utilization", 0.4), ("active-requests", 5)) == [0]


def test_where_none_is_within_its_bounds_all_are_kept_or_none() -> None:
    assert _kept(("active-requests", 1)) == []
    assert _kept(("active-requests", 1), fallback=True) == [0, 1, 2, 3]
    assert _kept(("active-requests", 2), fallback=True) == [3]


def test_requests_since_the_last_page_count() -> None:
    pool = pool_of([told(2, 0, 0)] * 2)
    full = make("utilization-filter", {"conditions": [{"metric": "waiting-queue", "maxValue": 2}]})
    assert full.filter(candidates_of(pool)).tolist() == [True, True]
    pool.lease(0)
    assert full.filter(candidates_of(pool)).tolist() == [False, True]


def test_more_than_a_whole_cache_is_no_bound() -> None:
    with pytest.raises(ValueError, match=r"conditions\[1\].maxValue 80 for kv-cache-utilization"):
        _kept(("waiting-queue", 80), ("kv-cache-utilization", 80))


@pytest.mark.parametrize("conditions", [[], [{"metric": "waiting-queue", "maxValue": -1}],
                                        [{"metric": "queue", "maxValue": 1}]])  # fmt: skip
def test_conditions_that_are_none_are_refused(conditions: list[object]) -> None:
    with pytest.raises(ValueError, match=r"conditions|length"):
        make("utilization-filter", {"conditions": conditions})
