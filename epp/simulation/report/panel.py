"""A plot of curves over one horizontal axis, as SVG.

A panel is drawn 400 wide, so that it stays readable on a phone; colours and strokes come from the
page's style sheet by class. A title element in each of its columns says what the curves are worth
there: browsers show it under the pointer, without a script.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from epp.simulation.report.axes import Axis
from epp.simulation.report.markup import Markup, coordinate, join, tag
from epp.simulation.result import Floats

__all__ = ["Curve", "draw_panel"]

_WIDTH: Final = 400
_HEIGHT: Final = 236
_LEFT: Final = 52
_TOP: Final = 34
_INNER_WIDTH: Final = _WIDTH - _LEFT - 14
_INNER_HEIGHT: Final = _HEIGHT - _TOP - 36
_BOTTOM: Final = _TOP + _INNER_HEIGHT


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One curve: its values at rising positions, and the range around each of them.

    ``style`` are the classes of its colour and stroke. NaN interrupts it. With ``is_stepped`` a
    value holds until the next one. Where the range is the value itself, only the line is drawn.
    """

    name: str
    style: str
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    is_stepped: bool = False


def draw_panel(
    curves: Sequence[Curve],
    x_axis: Axis,
    y_axis: Axis,
    title: str,
    columns: int,
    events: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Return the panel.

    ``columns`` is how many places along the axis tell their values; ``events`` are values of the
    horizontal axis where something happened, and what.
    """
    return tag(
        "svg",
        _frame(x_axis, y_axis),
        *(_event(what, x_axis.place(np.array([when]))[0]) for when, what in events),
        tag(  # its own viewport: what lies beyond the axes is cut off
            "svg",
            *(_band(curve, x_axis, y_axis) for curve in curves),
            *(_line(curve, x_axis, y_axis) for curve in curves),
            *_hover_columns(curves, x_axis, y_axis, columns),
            x=_LEFT,
            y=_TOP,
            width=_INNER_WIDTH,
            height=_INNER_HEIGHT,
        ),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=title,
    )


def _frame(x_axis: Axis, y_axis: Axis) -> Markup:
    """Ticks, grid lines and what the axes are."""
    pieces = [
        tag("text", y_axis.label, x=2, y=12, class_="axis"),
        tag("text", x_axis.label, x=_WIDTH - 14, y=_HEIGHT - 4, class_="axis end"),
    ]
    for tick in y_axis.ticks:
        y = _BOTTOM - tick.position * _INNER_HEIGHT
        pieces.append(tag("path", d=_segment(_LEFT, y, _LEFT + _INNER_WIDTH, y), class_="rule"))
        pieces.append(tag("text", tick.label, x=_LEFT - 5, y=y + 4, class_="tick end"))
    for tick in x_axis.ticks:
        x = _LEFT + tick.position * _INNER_WIDTH
        pieces.append(tag("path", d=_segment(x, _BOTTOM, x, _BOTTOM + 4), class_="base"))
        pieces.append(tag("text", tick.label, x=x, y=_BOTTOM + 16, class_="tick middle"))
    base = _segment(_LEFT, _BOTTOM, _LEFT + _INNER_WIDTH, _BOTTOM)
    return join(*pieces, tag("path", d=base, class_="base"))


def _event(what: str, position: float) -> Markup:
    """A line across the panel; its text, above, stays on the panel."""
    x = _LEFT + position * _INNER_WIDTH
    return join(
        tag("path", d=_segment(x, _TOP, x, _BOTTOM), class_="event"),
        tag("text", what, x=x, y=_TOP - 4, class_="tick end" if position > 0.3 else "tick"),
    )


def _line(curve: Curve, x_axis: Axis, y_axis: Axis) -> Markup:
    x, y = _points(curve, curve.y, x_axis, y_axis)
    path = _path(x, y)
    return tag("path", d=path, class_=f"line {curve.style}") if path else Markup()


def _band(curve: Curve, x_axis: Axis, y_axis: Axis) -> Markup:
    """The range around the curve, where there is one that can be seen."""
    x, low = _points(curve, curve.low, x_axis, y_axis)
    _, high = _points(curve, curve.high, x_axis, y_axis)
    known = ~np.isnan(low) & ~np.isnan(high)
    x, low, high = x[known], low[known], high[known]
    if not np.any(low - high > 0.1):
        return Markup()
    path = _path(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]))
    return tag("path", d=f"{path}z", class_=f"band {curve.style}")


def _points(curve: Curve, values: Floats, x_axis: Axis, y_axis: Axis) -> tuple[Floats, Floats]:
    """Where the values are in the panel; steps get the corners between them."""
    x = x_axis.place(curve.x) * _INNER_WIDTH
    y = np.clip((1 - y_axis.place(values)) * _INNER_HEIGHT, -_HEIGHT, _HEIGHT)
    if curve.is_stepped:
        return np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    return x, y


def _path(x: Floats, y: Floats) -> str:
    """The data of a path through the points; a NaN interrupts it."""
    commands: list[str] = []
    previous: tuple[str, str] | None = None
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if np.isnan(across) or np.isnan(down):
            previous = None
            continue
        point = coordinate(across), coordinate(down)
        if previous is None:
            commands.append(f"M{point[0]} {point[1]}")
        elif point[0] == previous[0] and point[1] != previous[1]:
            commands.append(f"V{point[1]}")
        elif point[0] != previous[0]:
            commands.append(
                f"H{point[0]}" if point[1] == previous[1] else f"L{point[0]} {point[1]}"
            )
        previous = point
    return "".join(commands)


def _hover_columns(
    curves: Sequence[Curve], x_axis: Axis, y_axis: Axis, columns: int
) -> list[Markup]:
    """One column per place, with what the curves are worth in its middle."""
    width = _INNER_WIDTH / columns
    middles = (np.arange(columns) + 0.5) / columns
    texts: list[list[str]] = [[] for _ in range(columns)]
    places = np.full(columns, np.nan)
    for curve in curves:
        if not len(curve.x):
            continue
        positions = x_axis.place(curve.x)
        nearest = np.abs(positions[:, None] - middles[None, :]).argmin(axis=0)
        for column, point in enumerate(nearest.tolist()):
            if abs(positions[point] - middles[column]) > 0.5 / columns + 1e-9 or np.isnan(
                curve.y[point]
            ):
                continue
            places[column] = curve.x[point]
            texts[column].append(f"{curve.name}: {_worth(curve, point, y_axis)}")
    return [
        tag(
            "rect",
            tag("title", "\n".join([x_axis.show(float(places[column])), *lines])),
            x=column * width,
            y=0,
            width=width,
            height=_INNER_HEIGHT,
            class_="hover",
        )
        for column, lines in enumerate(texts)
        if lines
    ]


def _worth(curve: Curve, point: int, y_axis: Axis) -> str:
    low, value, high = (float(of[point]) for of in (curve.low, curve.y, curve.high))
    worth, lowest, highest = y_axis.show(value), y_axis.show(low), y_axis.show(high)
    return worth if lowest == highest else f"{worth} ({lowest} to {highest})"


def _segment(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"M{coordinate(x1)} {coordinate(y1)}L{coordinate(x2)} {coordinate(y2)}"
