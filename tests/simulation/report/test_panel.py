"""Curves as SVG."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from epp.simulation.report.axes import linear_axis, time_axis
from epp.simulation.report.panel import Curve, draw_panel

_INNER_WIDTH, _INNER_HEIGHT = 334, 166


def _curve(
    x: list[float],
    y: list[float],
    *,
    low: list[float] | None = None,
    high: list[float] | None = None,
    is_stepped: bool = False,
    name: str = "alice",
) -> Curve:
    return Curve(
        name=name,
        style="t0 d0",
        x=np.array(x),
        y=np.array(y),
        low=np.array(low or y),
        high=np.array(high or y),
        is_stepped=is_stepped,
    )


def _draw(
    *curves: Curve, columns: int = 4, events: tuple[tuple[float, str], ...] = ()
) -> ElementTree.Element:
    axes = time_axis(100.0), linear_axis("requests", 10.0)
    return ElementTree.fromstring(draw_panel(curves, *axes, "Queue: policy", columns, events))


def _paths(svg: ElementTree.Element, kind: str) -> list[str]:
    return [
        path.get("d", "") for path in svg.iter("path") if kind in (path.get("class") or "").split()
    ]


def test_a_line_goes_from_value_to_value() -> None:
    assert _paths(_draw(_curve([0, 50, 100], [0, 10, 5])), "line") == ["M0 166L167 0L334 83"]


def test_steps_hold_each_value_until_the_next() -> None:
    svg = _draw(_curve([0, 50, 100], [0, 10, 5], is_stepped=True))
    assert _paths(svg, "line") == ["M0 166H167V0H334V83"]


def test_nan_interrupts_a_line() -> None:
    svg = _draw(_curve([0, 25, 50, 75, 100], [0, 5, math.nan, 10, 10]))
    assert _paths(svg, "line") == ["M0 166L83.5 83M250.5 0H334"]


def test_a_range_is_drawn_only_where_there_is_one() -> None:
    assert _paths(_draw(_curve([0, 100], [1, 2])), "band") == []
    svg = _draw(_curve([0, 100], [5, 5], low=[0, 5], high=[10, 5]))
    assert _paths(svg, "band") == ["M0 0L334 83L0 166z"]


def test_what_lies_beyond_the_axes_is_cut_off_and_stays_finite() -> None:
    svg = _draw(_curve([0, 100], [5, math.inf], high=[5, 1e300]))
    (line,) = _paths(svg, "line")
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", line)]
    assert max(abs(number) for number in numbers) <= 2 * _INNER_WIDTH
    inner = svg.find("svg")
    assert inner is not None
    assert (inner.get("width"), inner.get("height")) == (str(_INNER_WIDTH), str(_INNER_HEIGHT))


def test_columns_tell_what_the_curves_are_worth_there() -> None:
    svg = _draw(
        _curve([0, 50, 100], [1, 2, 3], low=[1, 1.5, 3], high=[1, 4, 3]),
        _curve([50], [7], name="<bob>"),
        columns=5,
    )
    told = [title.text for title in svg.iter("title")]
    assert told == ["0 s\nalice: 1", "50 s\nalice: 2 (1.5 to 4)\n<bob>: 7", "100 s\nalice: 3"]


def test_a_place_where_nothing_is_known_tells_nothing() -> None:
    svg = _draw(_curve([0, 100], [math.nan, 1]), columns=2)
    assert [title.text for title in svg.iter("title")] == ["100 s\nalice: 1"]


@pytest.mark.parametrize("values", [([], []), ([0.0], [math.nan])])
def test_a_curve_without_values_leaves_the_panel_empty(
    values: tuple[list[float], list[float]],
) -> None:
    svg = _draw(_curve(*values, is_stepped=True))
    assert _paths(svg, "line") == []
    assert len(list(svg.iter("title"))) == 0


def test_axes_and_events_are_labelled() -> None:
    svg = _draw(events=((50.0, "arrivals end"),))
    texts = [text.text for text in svg.iter("text")]
    assert {"requests", "time, s", "0", "10", "100", "arrivals end"} <= set(texts)
    assert _paths(svg, "event") == ["M219 34L219 200"]
    assert svg.get("aria-label") == "Queue: policy"
