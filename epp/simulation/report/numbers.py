"""Numbers as people read them."""

import math
from typing import Final

__all__ = ["NOTHING", "brief", "count", "duration", "percent", "seconds", "unit_of"]

NOTHING: Final = "–"  # noqa: RUF001
"""Stands where there is no number."""

_UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k"))


def count(value: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,.0f}" if math.isfinite(value) else NOTHING


def percent(ratio: float) -> str:
    """Return a part of 1 as a percentage with one decimal place."""
    return f"{100 * ratio:.1f} %" if math.isfinite(ratio) else NOTHING


def seconds(value: float) -> str:
    """Return seconds without their unit, to about three digits and no finer than 1 ms."""
    if not math.isfinite(value):
        return NOTHING
    places = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{places}f}"


def duration(value: float) -> str:
    """Return a time span with the unit that suits it, from milliseconds to hours."""
    if not math.isfinite(value):
        return NOTHING
    if 0 < abs(value) < 1:
        return f"{1000 * value:.0f} ms"
    if abs(value) < 100:
        return f"{_trim(f'{value:.1f}')} s"
    if abs(value) < 3 * 3600:
        return f"{value:,.0f} s"
    return f"{_trim(f'{value / 3600:,.1f}')} h"


def unit_of(largest: float) -> tuple[float, str]:
    """Return the factor and the letter in which numbers up to this one read well."""
    for factor, letter in _UNITS:
        if largest >= factor:
            return (1e3, "k") if letter == "k" else (factor, letter)
    return (1.0, "")


def brief(value: float, largest: float | None = None) -> str:
    """Return a number in a few characters, with the unit that suits the largest beside it."""
    if not math.isfinite(value):
        return NOTHING
    factor, letter = unit_of(abs(value) if largest is None else largest)
    written = f"{value / factor:,.2f}" if letter or abs(value) < 10 else f"{value:,.1f}"
    written = _trim(written)
    return f"{written} {letter}" if letter and value else written


def _trim(written: str) -> str:
    """Without zeros that say nothing."""
    return written.rstrip("0").rstrip(".") if "." in written else written
