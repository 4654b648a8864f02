"""Plots of one row per thing that is compared, as SVG: percentiles, and parts of a whole."""

from collections.abc import Sequence
from typing import Final

import msgspec

from epp.simulation.report.axes import Axis
from epp.simulation.report.markup import Markup, coordinate, join, shortened, tag
from epp.simulation.report.numbers import percent, seconds
from epp.simulation.report.series import Envelope

__all__ = [
    "LABEL_LENGTH",
    "PERCENTILES",
    "Part",
    "RangeRow",
    "ShareRow",
    "draw_ranges",
    "draw_shares",
]

PERCENTILES: Final = (50.0, 90.0, 99.0)
"""What an envelope of a :class:`RangeRow` has its values for."""

_WIDTH: Final = 400
_LEFT: Final = 146
_RIGHT: Final = 64
_INNER_WIDTH: Final = _WIDTH - _LEFT - _RIGHT
LABEL_LENGTH: Final = 24
"""So many characters fit beside a row."""

_RANGE_HEIGHT: Final = 24
_SHARE_HEIGHT: Final = 30
_AXIS_HEIGHT: Final = 40
_LEAST_LABELLED: Final = 26


class RangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """The 50th, 90th and 99th percentile of something, with their ranges over the seeds.

    The label, its short name, stands beside it.
    """

    name: str
    label: str
    style: str
    values: Envelope


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a whole, 0 to 1, with its range over the seeds; NaN where there is no whole."""

    name: str
    style: str
    share: float
    lowest: float
    highest: float


class ShareRow(msgspec.Struct, frozen=True, kw_only=True):
    """A whole and its parts; the note stands at its end."""

    label: str
    parts: Sequence[Part]
    note: str


def draw_ranges(rows: Sequence[RangeRow], axis: Axis, *, title: str) -> Markup:
    """Return a plot with a row of three marks for each: median, 90th and 99th percentile."""
    bottom = 6 + _RANGE_HEIGHT * len(rows)
    pieces = []
    for tick in axis.ticks:
        x = _LEFT + tick.position * _INNER_WIDTH
        pieces.append(tag("path", d=f"M{coordinate(x)} 4V{coordinate(bottom)}", class_="rule"))
        pieces.append(tag("text", tick.label, x=x, y=bottom + 15, class_="tick middle"))
    pieces.append(tag("text", axis.label, x=_LEFT + _INNER_WIDTH, y=bottom + 32, class_="axis end"))
    for number, row in enumerate(rows):
        pieces.append(_range(row, axis, 6 + _RANGE_HEIGHT * (number + 0.5)))
    return _svg(bottom + _AXIS_HEIGHT, title, pieces)


def draw_shares(rows: Sequence[ShareRow], *, title: str) -> Markup:
    """Return a plot with a bar for each row, divided into its parts."""
    pieces = []
    for number, row in enumerate(rows):
        top = _SHARE_HEIGHT * number + 4.0
        pieces.append(_label(row.label, shortened(row.label, LABEL_LENGTH), top + 15))
        pieces.extend(_bar(row, top))
        pieces.append(tag("text", row.note, x=_WIDTH - 2, y=top + 15, class_="tick end"))
    return _svg(_SHARE_HEIGHT * len(rows) + 4, title, pieces)


def _svg(height: float, title: str, pieces: Sequence[str]) -> Markup:
    return tag(
        "svg", *pieces, viewBox=f"0 0 {_WIDTH} {coordinate(height)}", role="img", aria_label=title
    )


def _label(name: str, label: str, y: float) -> Markup:
    full = tag("title", name) if label != name else Markup()
    return tag("text", full, label, x=_LEFT - 8, y=y, class_="tick end")


def _range(row: RangeRow, axis: Axis, y: float) -> Markup:
    values = row.values
    label = _label(row.name, row.label, y + 4)
    if not len(values.x) or values.middle[0] != values.middle[0]:
        return join(label, tag("text", "no such request", x=_LEFT + 6, y=y + 4, class_="tick"))
    p50, p90, p99 = (_LEFT + axis.place(values.middle) * _INNER_WIDTH).tolist()
    lows = (_LEFT + axis.place(values.low) * _INNER_WIDTH).tolist()
    highs = (_LEFT + axis.place(values.high) * _INNER_WIDTH).tolist()
    across = f"M{coordinate(p50)} {coordinate(y)}H{coordinate(p99)}"
    return join(
        label,
        tag(
            "g",
            tag("title", "\n".join([row.name, *_told(values)])),
            *(
                tag("rect", x=low, y=y - 5, width=high - low, height=10, class_="spread")
                for low, high in zip(lows, highs, strict=True)
                if high - low >= 0.1
            ),
            tag("path", d=across, class_="reach"),
            tag("circle", cx=p50, cy=y, r=4),
            tag("path", d=f"M{coordinate(p90)} {coordinate(y - 5)}v10", class_="reach"),
            tag("path", d=_diamond(p99, y), class_="open"),
            class_=row.style,
        ),
        tag("text", f"{seconds(values.middle[2])} s", x=_WIDTH - 2, y=y + 4, class_="tick end"),
    )


def _told(values: Envelope) -> list[str]:
    """What the marks say, in words."""
    lines = []
    for name, low, middle, high in zip(
        PERCENTILES, values.low, values.middle, values.high, strict=True
    ):
        spread = "" if low == high else f" ({seconds(low)} to {seconds(high)} s)"
        lines.append(f"p{name:g}: {seconds(middle)} s{spread}")
    return lines


def _diamond(x: float, y: float) -> str:
    return f"M{coordinate(x)} {coordinate(y - 5)}l5 5l-5 5l-5-5z"


def _bar(row: ShareRow, top: float) -> list[Markup]:
    """The parts side by side, with their percentages where there is room."""
    pieces = []
    left = float(_LEFT)
    for part in row.parts:
        if not part.share > 0:
            continue
        width = part.share * _INNER_WIDTH
        spread = f" ({percent(part.lowest)} to {percent(part.highest)})"
        told = f"{part.name}: {percent(part.share)}" + (
            spread if part.lowest != part.highest else ""
        )
        bar = tag("rect", x=left, y=top, width=width, height=22, class_="bar")
        inside = (
            tag(
                "text", f"{100 * part.share:.0f} %", x=left + width / 2, y=top + 15, class_="inside"
            )
            if width >= _LEAST_LABELLED
            else Markup()
        )
        pieces.append(tag("g", tag("title", told), bar, inside, class_=part.style))
        left += width
    if not pieces:
        pieces.append(tag("text", "nothing was served", x=_LEFT, y=top + 15, class_="tick"))
    return pieces
