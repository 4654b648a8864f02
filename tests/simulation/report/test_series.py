"""Long series made short: no peak is lost."""

import math

import numpy as np
import pytest

from epp.simulation.report.series import over_percentiles, over_time, over_values


def test_a_short_series_stays_as_it_is() -> None:
    time_s, values = np.array([0.0, 1.0, 2.0]), np.array([5.0, 1.0, 3.0])
    envelope = over_time([(time_s, values)], 100)
    assert envelope.x.tolist() == [0.0, 1.0, 2.0]
    for line in (envelope.low, envelope.middle, envelope.high):
        assert line.tolist() == [5.0, 1.0, 3.0]


def test_a_single_peak_among_a_million_samples_is_kept() -> None:
    values = np.ones(1_000_000)
    values[654_321], values[123_456] = 99.0, -7.0
    envelope = over_time([(np.arange(1_000_000.0), values)], 160)
    assert len(envelope.x) == 160
    assert (envelope.low.min(), envelope.high.max()) == (-7.0, 99.0)
    assert np.all(np.diff(envelope.x) > 0)


def test_the_line_is_the_mean_of_each_place() -> None:
    envelope = over_time([(np.arange(4.0), np.array([1.0, 3.0, 10.0, 20.0]))], 2)
    assert envelope.middle.tolist() == [2.0, 15.0]
    assert (envelope.low.tolist(), envelope.high.tolist()) == ([1.0, 10.0], [3.0, 20.0])


def test_several_runs_give_their_median_and_their_range() -> None:
    time_s = np.array([0.0, 1.0])
    runs = [(time_s, np.array([value, 2 * value])) for value in (1.0, 5.0, 2.0)]
    envelope = over_time(runs, 10)
    assert envelope.middle.tolist() == [2.0, 4.0]
    assert envelope.low.tolist() == [1.0, 2.0]
    assert envelope.high.tolist() == [5.0, 10.0]


def test_a_run_that_ended_earlier_stays_as_it_was_at_its_end() -> None:
    long = (np.arange(4.0), np.array([1.0, 1.0, 1.0, 1.0]))
    short = (np.arange(2.0), np.array([3.0, 5.0]))
    envelope = over_time([short, long], 4)
    assert envelope.x.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert envelope.middle.tolist() == [2.0, 3.0, 3.0, 3.0]
    assert envelope.high.tolist() == [3.0, 5.0, 5.0, 5.0]


def test_what_is_unknown_stays_unknown() -> None:
    envelope = over_time([(np.arange(3.0), np.array([1.0, math.nan, 2.0]))], 3)
    assert np.isnan(envelope.middle).tolist() == [False, True, False]
    assert np.isnan(envelope.low).tolist() == [False, True, False]


@pytest.mark.parametrize("runs", [[], [(np.empty(0), np.empty(0))]])
def test_nothing_is_an_empty_series(runs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert len(over_time(runs, 100).x) == 0


def test_percentiles_are_numpys() -> None:
    values = np.random.default_rng(2).exponential(1.0, 5000)
    envelope = over_percentiles([values], 50)
    assert envelope.middle.tolist() == np.percentile(values, envelope.x).tolist()
    assert envelope.x[[0, -1]] == pytest.approx([0.0, 99.9])


def test_few_values_have_no_extreme_percentiles() -> None:
    envelope = over_percentiles([np.arange(20.0)], 50)
    known = ~np.isnan(envelope.middle)
    assert 0 < envelope.x[known].max() <= 95.0


def test_a_seed_without_values_does_not_hide_the_others() -> None:
    envelope = over_percentiles([np.empty(0), np.full(5000, 3.0)], 10)
    assert envelope.middle.tolist() == [3.0] * 10


def test_no_run_at_all_is_unknown_everywhere() -> None:
    envelope = over_values(np.array([50.0, 90.0]), [])
    assert np.isnan([envelope.middle, envelope.low, envelope.high]).all()
