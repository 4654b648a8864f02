"""Numbers as people read them."""

import math

import pytest

from epp.simulation.report.numbers import brief, count, duration, percent, seconds


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0.000"),
        (0.00049, "0.000"),
        (0.1234, "0.123"),
        (1.2345, "1.23"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (math.nan, "–"),  # noqa: RUF001
    ],
)
def test_seconds(value: float, written: str) -> None:
    assert seconds(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0 s"),
        (0.001, "1 ms"),
        (0.1, "100 ms"),
        (1.0, "1 s"),
        (30.0, "30 s"),
        (600.0, "600 s"),
        (10_000.0, "10,000 s"),
        (14_400.0, "4 h"),
        (math.inf, "–"),  # noqa: RUF001
    ],
)
def test_duration(value: float, written: str) -> None:
    assert duration(value) == written


@pytest.mark.parametrize(
    ("value", "largest", "written"),
    [
        (0.0, 500_000.0, "0"),
        (200_000.0, 500_000.0, "200 k"),
        (2_500_000.0, None, "2.5 M"),
        (7.25e9, None, "7.25 G"),
        (250.0, None, "250"),
        (9_999.0, None, "9,999"),
        (0.25, None, "0.25"),
        (math.nan, None, "–"),  # noqa: RUF001
    ],
)
def test_brief(value: float, largest: float | None, written: str) -> None:
    assert brief(value, largest) == written


def test_count_and_percent() -> None:
    assert count(1_234_567) == "1,234,567"
    assert count(math.nan) == "–"  # noqa: RUF001
    assert percent(0.12345) == "12.3 %"
    assert percent(math.nan) == "–"  # noqa: RUF001
