"""How slow each endpoint is: learned from how long requests take, noise left out."""

import random

import numpy as np
import pytest

from epp.core.scheduling.scorers.pace import Pace

_ALL = np.ones(4, dtype=np.bool_)


def _learned(*usual_s: float, requests: int = 40, sigma: float = 0.0, seed: int = 1) -> Pace:
    """Return what was learned from requests that usually take so long at each endpoint."""
    pace, rng = Pace(), random.Random(seed)
    for _ in range(requests):
        for slot, usual in enumerate(usual_s):
            pace.ended(slot, usual * rng.lognormvariate(0.0, sigma), "chat")
    return pace


def test_one_that_takes_four_times_as_long_counts_four_times() -> None:
    factors = _learned(2.0, 8.0, 2.0, 2.0).factors(_ALL)
    assert factors is not None
    assert factors.tolist() == pytest.approx([1.0, 4.0, 1.0, 1.0], rel=0.1)


def test_one_that_is_quicker_counts_less() -> None:
    factors = _learned(2.0, 0.5, 2.0, 2.0).factors(_ALL)
    assert factors is not None
    assert factors.tolist() == pytest.approx([1.0, 0.25, 1.0, 1.0], rel=0.1)


@pytest.mark.parametrize("seed", range(20))
def test_requests_of_different_lengths_make_no_endpoint_slow(seed: int) -> None:
    assert _learned(5.0, 5.0, 5.0, 5.0, requests=200, sigma=0.7, seed=seed).factors(_ALL) is None


def test_a_few_requests_say_nothing() -> None:
    assert _learned(2.0, 20.0, 2.0, requests=7).factors(_ALL) is None


def test_more_than_a_factor_of_eight_is_not_believed() -> None:
    factors = _learned(1.0, 1000.0, 1.0).factors(_ALL)
    assert factors is not None
    assert factors[1] == pytest.approx(8.0)


def test_what_has_changed_is_learned_anew() -> None:
    pace = _learned(2.0, 8.0, 2.0, 2.0)
    for _ in range(150):
        pace.ended(1, 2.0, "chat")
    assert pace.factors(_ALL) is None


def test_another_endpoint_in_the_slot_is_not_known_yet() -> None:
    pace = _learned(2.0, 8.0, 2.0, 2.0)
    pace.forget(1)
    pace.forget(9)
    assert pace.factors(_ALL) is None


def test_endpoints_that_are_gone_count_for_nothing() -> None:
    pace = _learned(2.0, 8.0, 2.0, 2.0)
    assert pace.factors(np.array([True, False, True, True])) is None
    assert pace.factors(np.array([False, True, False, False, False])) is None


def test_an_endpoint_that_serves_other_kinds_of_requests_is_not_slow() -> None:
    pace, rng = Pace(), random.Random(3)
    for _ in range(100):
        for slot in range(4):
            kind, usual_s = ("essay", 30.0) if slot == 1 else ("chat", 1.0)
            pace.ended(slot, usual_s * rng.lognormvariate(0.0, 0.3), kind)
    assert pace.factors(_ALL) is None


def test_one_that_is_slow_with_whatever_it_gets_is_found() -> None:
    pace, rng = Pace(), random.Random(3)
    for _ in range(100):
        for slot in range(4):
            kind, usual_s = rng.choice([("essay", 30.0), ("chat", 1.0)])
            pace.ended(slot, usual_s * (4.0 if slot == 1 else 1.0), kind)
    factors = pace.factors(_ALL)
    assert factors is not None
    assert factors[1] == pytest.approx(4.0, rel=0.2)
    assert factors[[0, 2, 3]].tolist() == [1.0, 1.0, 1.0]


def test_the_number_of_kinds_is_bounded() -> None:
    pace = Pace()
    for number in range(3000):
        pace.ended(0, 1.0, f"tenant-{number}")
    assert len(pace._kinds) == 1024
