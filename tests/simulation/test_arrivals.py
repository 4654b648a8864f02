import itertools
import random

import pytest

from epp.simulation.arrivals import arrival_times
from epp.simulation.scenario import Burst, Constant, OnOff, Poisson


def _first(process: Poisson | Constant | Burst | OnOff, count: int) -> list[float]:
    times = arrival_times(process, 10.0, random.Random(1))
    return list(itertools.islice(times, count))


def test_poisson_has_its_rate_and_its_spread() -> None:
    times = _first(Poisson(rate_per_s=4.0), 20_000)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.25, rel=0.03)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert variance == pytest.approx(mean**2, rel=0.06)


def test_poisson_may_begin_slowly() -> None:
    times = _first(Poisson(rate_per_s=40.0, ramp_s=100.0), 8_000)
    # The integral of a rate that grows linearly, then of one that stays.
    for from_s, to_s, expected in ((10, 35, 125), (35, 60, 375), (60, 110, 1500), (110, 135, 1000)):
        assert sum(from_s <= time < to_s for time in times) == pytest.approx(expected, rel=0.15)


def test_constant_has_equal_gaps() -> None:
    assert _first(Constant(rate_per_s=2.0), 3) == [10.0, 10.5, 11.0]


def test_a_burst_comes_once_or_again_and_again() -> None:
    assert _first(Burst(size=2), 5) == [10.0, 10.0]
    assert _first(Burst(size=2, period_s=5.0), 5) == [10.0, 10.0, 15.0, 15.0, 20.0]


def test_on_off_has_two_rates() -> None:
    process = OnOff(rate_per_s=100.0, on_s=10.0, off_s=30.0, off_rate_per_s=10.0)
    times = [time - 10.0 for time in _first(process, 20_000)]
    assert times == sorted(times)
    periods = times[-1] / 40.0
    on = sum(time % 40.0 < 10.0 for time in times)
    assert on / periods == pytest.approx(1000, rel=0.05)
    assert (len(times) - on) / periods == pytest.approx(300, rel=0.1)
    silent = _first(OnOff(rate_per_s=100.0, on_s=1.0, off_s=9.0), 1000)
    assert all((time - 10.0) % 10.0 < 1.0 for time in silent)
