"""Axes: where a value lies on one, as a part of its length, and which ticks it has."""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np

from epp.simulation.report.numbers import brief, duration, seconds
from epp.simulation.result import Floats

__all__ = ["Axis", "Tick", "linear_axis", "log_seconds_axis", "percentile_axis", "time_axis"]

_MOST_STEPS: Final = 5
_TIME_UNITS: Final = (
    ("h", 3600.0, 3 * 3600.0, (1.0, 2.0, 3.0, 6.0, 12.0, 24.0)),
    ("min", 60.0, 180.0, (1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0)),
    ("s", 1.0, 0.0, ()),
)
"""Name, seconds, from which length on an axis uses it, and the steps that are round in it."""

_LEAST_S: Final = 0.001

_PERCENTILES: Final = (0.0, 50.0, 90.0, 99.0, 99.9)


class Tick(NamedTuple):
    """A marked value: its position, 0 to 1 along the axis, and its label."""

    position: float
    label: str


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of a plot.

    ``place`` gives the positions of values, 0 to 1 along the axis; ``show`` the text for one value.
    """

    label: str
    ticks: tuple[Tick, ...]
    place: Callable[[Floats], Floats]
    show: Callable[[float], str]


def linear_axis(label: str, largest: float) -> Axis:
    """Return an axis from 0 to a round number that is not below the largest value."""
    largest = largest if math.isfinite(largest) and largest > 0 else 1.0
    step = _round_step(largest / _MOST_STEPS)
    end = step * math.ceil(largest / step - 1e-9)
    marks = [step * number for number in range(round(end / step) + 1)]
    return Axis(
        label=label,
        ticks=tuple(Tick(mark / end, brief(mark, end)) for mark in marks),
        place=lambda values: values / end,
        show=brief,
    )


def time_axis(end_s: float) -> Axis:
    """Return an axis from 0 to this time, in the unit that suits its length."""
    end_s = end_s if math.isfinite(end_s) and end_s > 0 else 1.0
    unit, unit_s, _, steps = next(of for of in _TIME_UNITS if end_s >= of[2])
    least = end_s / unit_s / _MOST_STEPS
    step_s = unit_s * next((step for step in steps if step >= least), _round_step(least))
    marks_s = [step_s * number for number in range(int(end_s / step_s + 1e-9) + 1)]
    return Axis(
        label=f"time, {unit}",
        ticks=tuple(Tick(mark_s / end_s, brief(mark_s / unit_s)) for mark_s in marks_s),
        place=lambda values: values / end_s,
        show=lambda value: f"{brief(value / unit_s)} {unit}",
    )


def log_seconds_axis(label: str, values_s: Floats, most_labels: int) -> Axis:
    """Return a logarithmic axis for these values, from one power of ten to another.

    It begins at 1 ms or above: what is shorter, 0 too, is drawn at its beginning. Where there would
    be more labels than fit, only every second tick has one, or every third.
    """
    known_s = values_s[np.isfinite(values_s)]
    smallest_s, largest_s = (known_s.min(), known_s.max()) if len(known_s) else (0.0, 0.0)
    first = math.floor(math.log10(max(smallest_s, _LEAST_S)) + 1e-9)
    last = max(first + 1, math.ceil(math.log10(max(largest_s, _LEAST_S)) - 1e-9))
    decades = last - first
    least_s = 10.0**first
    every = math.ceil((decades + 1) / most_labels)
    labels = [
        duration(10.0 ** (first + number)) if number % every == 0 else ""
        for number in range(decades + 1)
    ]
    if smallest_s < least_s:
        labels[0] = f"≤ {labels[0]}"
    return Axis(
        label=label,
        ticks=tuple(Tick(number / decades, name) for number, name in enumerate(labels)),
        place=lambda values: np.log10(np.maximum(values, least_s) / least_s) / decades,
        show=lambda value: f"{seconds(value)} s",
    )


def percentile_axis() -> Axis:
    """Return an axis of percentiles from 0 to 99.9, stretched towards the end: each further nine
    takes the same length."""
    nines = -math.log10(1 - _PERCENTILES[-1] / 100)

    def place(values: Floats) -> Floats:
        return -np.log10(1 - values / 100) / nines

    positions = place(np.array(_PERCENTILES)).tolist()
    return Axis(
        label="percentile of the requests",
        ticks=tuple(
            Tick(position, f"{mark:g}")
            for position, mark in zip(positions, _PERCENTILES, strict=True)
        ),
        place=place,
        show=lambda value: f"{value:.4g} %",
    )


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below this."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step for factor in (1, 2, 5, 10) if (step := factor * power) >= least * (1 - 1e-9))
