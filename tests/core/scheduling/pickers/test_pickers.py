"""Who is picked, and how often.

The bounds of chi-square are those that are passed once in 1,000 times, for the degrees of freedom;
the draws are always the same, since the seed is.
"""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from ..support import make
from .support import candidates_for, chi_square, draws

_SCORES = [0.5, 0.9, 0.9, 0.1, 0.9]


# max-score-picker


def test_the_highest_score_wins() -> None:
    picker = make("max-score-picker")
    assert draws(picker, [0.1, 0.7, 0.3], 20) == {(1,): 20}
    assert draws(picker, [0.0], 1) == {(0,): 1}


@pytest.mark.parametrize("others", [0, 200])
def test_ties_are_broken_by_chance(others: int) -> None:
    found = draws(make("max-score-picker"), _SCORES + [0.2] * others, 3000)
    assert found.keys() == {(1,), (2,), (4,)}
    assert chi_square(list(found.values()), [1 / 3] * 3) < 13.8


def test_several_come_in_the_order_of_their_scores_and_ties_by_chance() -> None:
    found = draws(make("max-score-picker", {"maxNumOfEndpoints": 4}), _SCORES, 6000)
    assert found.keys() == {(*best, 0) for best in permutations((1, 2, 4))}
    assert chi_square(list(found.values()), [1 / 6] * 6) < 20.5


def test_of_ties_for_the_last_place_any_may_get_it() -> None:
    found = draws(make("max-score-picker", {"maxNumOfEndpoints": 2}), [1.0, 0.5, 0.5, 0.5], 3000)
    assert found.keys() == {(0, 1), (0, 2), (0, 3)}
    assert chi_square(list(found.values()), [1 / 3] * 3) < 13.8


# random-picker


@pytest.mark.parametrize("count", [1, 2])
def test_chance_does_not_look_at_scores(count: int) -> None:
    found = draws(make("random-picker", {"maxNumOfEndpoints": count}), [0.0, 5.0, 1.0], 6000)
    expected = list(permutations(range(3), count))
    assert chi_square([found[each] for each in expected], [1 / len(expected)] * len(expected)) < 20


# weighted-random-picker


def test_the_first_is_picked_in_proportion_to_its_score() -> None:
    scores = [0.1, 0.2, 0.3, 1.4, 0.0]
    found = draws(make("weighted-random-picker"), scores, 10_000)
    shares = [score / sum(scores) for score in scores[:4]]
    assert (4,) not in found
    assert chi_square([found[(index,)] for index in range(4)], shares) < 16.3


def test_the_others_are_picked_likewise_among_those_left() -> None:
    scores = [1.0, 2.0, 5.0]
    found = draws(make("weighted-random-picker", {"maxNumOfEndpoints": 3}), scores, 12_000)
    orders = list(permutations(range(3)))
    shares = [
        scores[first] / 8 * scores[second] / (8 - scores[first]) for first, second, _ in orders
    ]
    assert chi_square([found[order] for order in orders], shares) < 20.5


def test_scores_that_are_tiny_keep_their_proportions() -> None:
    found = draws(make("weighted-random-picker"), [1e-9, 3e-9], 4000)
    assert chi_square([found[(0,)], found[(1,)]], [0.25, 0.75]) < 10.8


def test_those_without_a_score_come_last_and_by_chance() -> None:
    picker = make("weighted-random-picker", {"maxNumOfEndpoints": 3})
    found = draws(picker, [0.0, 0.1, 0.0, -1.0], 3000)
    assert {order[0] for order in found} == {1}
    seconds: Counter[int] = Counter()
    for order, count in found.items():
        seconds[order[1]] += count
    assert chi_square([seconds[index] for index in (0, 2, 3)], [1 / 3] * 3) < 13.8


def test_without_any_score_all_are_equally_likely() -> None:
    found = draws(make("weighted-random-picker"), [0.0] * 4, 4000)
    assert chi_square([found[(index,)] for index in range(4)], [1 / 4] * 4) < 16.3


@pytest.mark.parametrize("drawn", [0.0, 1.0 - 2**-53])
def test_the_ends_of_what_can_be_drawn_do_no_harm(drawn: float) -> None:
    candidates = candidates_for([0.0, 2.0])
    candidates.rng.random = lambda: drawn  # type: ignore[method-assign]
    picker = make("weighted-random-picker", {"maxNumOfEndpoints": 2})
    assert picker.pick(candidates, np.array([0.0, 2.0])) == [1, 0]


@pytest.mark.parametrize("type_", ["max-score-picker", "random-picker", "weighted-random-picker"])
@pytest.mark.parametrize("count", [0, 65])
def test_the_proxy_is_told_1_to_64_endpoints(type_: str, count: int) -> None:
    with pytest.raises(ValueError, match="maxNumOfEndpoints"):
        make(type_, {"maxNumOfEndpoints": count})
