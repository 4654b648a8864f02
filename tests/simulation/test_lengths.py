import random
from collections import Counter

import numpy as np
import pytest

from epp.simulation.lengths import sampler
from epp.simulation.scenario import Fixed, Length, Lognormal, Uniform


def _draws(length: Length, count: int) -> list[int]:
    draw = sampler(length, random.Random(1))
    return [draw() for _ in range(count)]


def test_a_fixed_length_or_a_plain_number_is_always_the_same() -> None:
    assert set(_draws(Fixed(tokens=7), 10)) == {7}
    assert set(_draws(7, 10)) == {7}


def test_uniform_has_all_lengths_equally_often() -> None:
    counts = Counter(_draws(Uniform(low=3, high=6), 40_000))
    assert set(counts) == {3, 4, 5, 6}
    assert max(counts.values()) < 1.05 * min(counts.values())


def test_lognormal_has_its_mean_and_its_spread() -> None:
    draws = _draws(Lognormal(mean=1000.0, sigma=0.5), 40_000)
    assert np.mean(draws) == pytest.approx(1000.0, rel=0.02)
    assert np.std(np.log(draws)) == pytest.approx(0.5, rel=0.02)


def test_lognormal_is_cut_and_never_below_one() -> None:
    draws = _draws(Lognormal(mean=2.0, sigma=2.0, most=50), 1000)
    assert min(draws) == 1
    assert max(draws) == 50
