"""Axes: round ticks, values in their places."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.simulation.report.axes import (
    Axis,
    linear_axis,
    log_seconds_axis,
    percentile_axis,
    time_axis,
)


def _labels(axis: Axis) -> list[str]:
    return [tick.label for tick in axis.ticks]


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (7.0, ["0", "2", "4", "6", "8"]),
        (660.0, ["0", "200", "400", "600", "800"]),
        (5.2e6, ["0", "2 M", "4 M", "6 M"]),
        (48_000.0, ["0", "10 k", "20 k", "30 k", "40 k", "50 k"]),
    ],
)
def test_a_linear_axis_ends_at_a_round_number(largest: float, labels: list[str]) -> None:
    axis = linear_axis("requests", largest)
    assert _labels(axis) == labels
    assert axis.ticks[-1].position == 1.0
    assert axis.place(np.array([0.0, largest])).max() <= 1.0


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan, math.inf])
def test_a_linear_axis_for_nothing_goes_to_one(largest: float) -> None:
    assert _labels(linear_axis("requests", largest))[-1] == "1"


@given(st.floats(min_value=1e-6, max_value=1e15))
def test_a_linear_axis_holds_its_largest_value_with_few_ticks(largest: float) -> None:
    axis = linear_axis("requests", largest)
    assert 2 <= len(axis.ticks) <= 6
    assert 0.5 <= float(axis.place(np.array([largest]))[0]) <= 1.0 + 1e-6


@pytest.mark.parametrize(
    ("end_s", "label", "labels"),
    [
        (0.5, "time, s", ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        (60.0, "time, s", ["0", "20", "40", "60"]),
        (660.0, "time, min", ["0", "5", "10"]),
        (3600.0, "time, min", ["0", "15", "30", "45", "60"]),
        (86_400.0, "time, h", ["0", "6", "12", "18", "24"]),
    ],
)
def test_a_time_axis_uses_the_unit_that_suits(end_s: float, label: str, labels: list[str]) -> None:
    axis = time_axis(end_s)
    assert (axis.label, _labels(axis)) == (label, labels)
    assert axis.place(np.array([0.0, end_s])).tolist() == [0.0, 1.0]


def test_a_time_axis_for_no_time_is_one_second() -> None:
    assert time_axis(0.0).place(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


def test_a_time_axis_tells_times_in_its_unit() -> None:
    assert time_axis(600.0).show(90.0) == "1.5 min"


def test_a_logarithmic_axis_spans_whole_powers_of_ten() -> None:
    axis = log_seconds_axis("s", np.array([0.2, 0.03, math.nan, 14.0]), 8)
    assert _labels(axis) == ["10 ms", "100 ms", "1 s", "10 s", "100 s"]
    assert axis.place(np.array([0.01, 1.0, 100.0])) == pytest.approx([0.0, 0.5, 1.0])


def test_a_logarithmic_axis_shows_0_at_its_beginning_and_says_so() -> None:
    axis = log_seconds_axis("s", np.array([0.0, 0.05]), 8)
    assert _labels(axis) == ["≤ 1 ms", "10 ms", "100 ms"]
    assert axis.place(np.array([0.0, 1e-9])).tolist() == [0.0, 0.0]


def test_a_logarithmic_axis_leaves_labels_out_where_they_would_overlap() -> None:
    axis = log_seconds_axis("s", np.array([0.001, 900.0]), 5)
    assert _labels(axis) == ["1 ms", "", "100 ms", "", "10 s", "", "1,000 s"]


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [1.0]])
def test_a_logarithmic_axis_always_has_a_length(values: list[float]) -> None:
    axis = log_seconds_axis("s", np.array(values), 5)
    assert [tick.position for tick in axis.ticks] == [0.0, 1.0]


def test_each_further_nine_takes_the_same_length_of_a_percentile_axis() -> None:
    axis = percentile_axis()
    assert _labels(axis) == ["0", "50", "90", "99", "99.9"]
    places = axis.place(np.array([0.0, 90.0, 99.0, 99.9]))
    assert places == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0])
    assert axis.show(99.0) == "99 %"
