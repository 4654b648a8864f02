"""Long series made short, and those of several seeds made one.

A series of a million samples is drawn at some hundred places. Each place keeps the lowest and the
highest of its samples, so no peak is lost, and the mean of them for the line.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from epp.simulation.result import Floats
from epp.simulation.summary import Rows

__all__ = ["Envelope", "over_percentiles", "over_time", "over_values"]

_NINES: Final = 3.0
"""How far percentile curves go: 99.9 has three of them."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A line with a range around it, at the positions ``x``; NaN where nothing is known."""

    x: Floats
    middle: Floats
    low: Floats
    high: Floats


def over_time(runs: Sequence[tuple[Floats, Floats]], places: int) -> Envelope:
    """Return the series of one or more runs, each with its times and values, at so many places.

    The line is the median over the runs of the means within each place, the range that of all
    samples of all runs. A run that ended earlier than others stays as it was at its end.
    """
    runs = [(time_s, values) for time_s, values in runs if len(time_s)]
    if not runs:
        empty = np.empty(0)
        return Envelope(x=empty, middle=empty, low=empty, high=empty)
    places = max(1, min(places, max(len(time_s) for time_s, _ in runs)))
    end_s = max(float(time_s[-1]) for time_s, _ in runs)
    edges_s = np.linspace(0.0, end_s, places + 1)[1:-1]
    cells = [_by_place(time_s, values, edges_s) for time_s, values in runs]
    times_s, lows, means, highs = (np.array(kind) for kind in zip(*cells, strict=True))
    seen = ~np.isnan(times_s).all(axis=0)  # a place without any sample is none
    return Envelope(
        x=_middle(times_s[:, seen]),
        middle=_middle(means[:, seen]),
        low=np.fmin.reduce(lows[:, seen], axis=0),
        high=np.fmax.reduce(highs[:, seen], axis=0),
    )


def over_percentiles(runs: Sequence[Floats], places: int) -> Envelope:
    """Return the percentiles of the values of one or more runs, at so many places.

    The places lie evenly on an axis where each further nine takes the same length. A run with too
    few values for a percentile has none there. The line is the median over the runs.
    """
    x = 100 * (1 - 10.0 ** -np.linspace(0.0, _NINES, places))
    return over_values(x, [_percentiles(values, x) for values in runs])


def over_values(x: Floats, runs: Sequence[Floats]) -> Envelope:
    """Return the median and the range over the runs, each with one value per position."""
    table = np.array([*runs, np.full(len(x), np.nan)])
    return Envelope(
        x=x,
        middle=_middle(table),
        low=np.fmin.reduce(table, axis=0),
        high=np.fmax.reduce(table, axis=0),
    )


def _by_place(
    time_s: Floats, values: Floats, edges_s: Floats
) -> tuple[Floats, Floats, Floats, Floats]:
    """The mean time, lowest, mean and highest of the samples in each place."""
    place = np.searchsorted(edges_s, time_s, side="right")
    places = len(edges_s) + 1
    known = ~np.isnan(values)
    low, high = np.full(places, np.nan), np.full(places, np.nan)
    np.fmin.at(low, place, values)
    np.fmax.at(high, place, values)
    mean = _means(place[known], values[known], places)
    for line in (low, mean, high):
        line[place[-1] + 1 :] = values[-1]
    return _means(place, time_s, places), low, mean, high


def _means(place: Rows, values: Floats, places: int) -> Floats:
    counts = np.bincount(place, minlength=places)
    sums = np.bincount(place, weights=values, minlength=places)
    means: Floats = np.divide(sums, counts, out=np.full(places, np.nan), where=counts > 0)
    return means


def _percentiles(values: Floats, x: Floats) -> Floats:
    """The percentiles that so few values can have: beyond the last one stands at most one value."""
    if not len(values):
        return np.full(len(x), np.nan)
    return np.where(x <= 100 * (1 - 1 / len(values)) + 1e-9, np.percentile(values, x), np.nan)


def _middle(table: Floats) -> Floats:
    """The median of each column, of what is known in it."""
    middle = np.full(table.shape[1], np.nan)
    known = ~np.isnan(table).all(axis=0)
    middle[known] = np.nanmedian(table[:, known], axis=0)
    return middle
