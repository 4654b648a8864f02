"""Percentiles and shares, row by row, as SVG."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from epp.simulation.report.axes import log_seconds_axis
from epp.simulation.report.rows import (
    PERCENTILES,
    Part,
    RangeRow,
    ShareRow,
    draw_ranges,
    draw_shares,
)
from epp.simulation.report.series import over_values


def _ranges(*runs: list[float], name: str = "alice") -> ElementTree.Element:
    values = over_values(np.array(PERCENTILES), [np.array(run) for run in runs])
    axis = log_seconds_axis("seconds", np.array([0.01, 1.0]), 5)
    row = RangeRow(name=name, label=name[:8], style="t0 d0", values=values)
    return ElementTree.fromstring(draw_ranges([row], axis, title="Wait"))


def _texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in svg.iter("text")]


def test_marks_stand_at_the_percentiles() -> None:
    svg = _ranges([0.01, 0.1, 1.0])
    (circle,) = svg.iter("circle")
    assert circle.get("cx") == "146"  # the left end of the axis
    paths = [path.get("d") for path in svg.iter("path") if path.get("class") == "open"]
    assert paths == ["M336 13l5 5l-5 5l-5-5z"]  # its right end
    assert "1.00 s" in _texts(svg)
    assert not [rect for rect in svg.iter("rect") if rect.get("class") == "spread"]


def test_seeds_are_medians_with_their_range() -> None:
    svg = _ranges([0.01, 0.1, 0.5], [0.02, 0.1, 1.0], [0.04, 0.1, 0.6])
    title = svg.find("g/title")
    assert title is not None
    assert title.text == (
        "alice\np50: 0.020 s (0.010 to 0.040 s)\np90: 0.100 s\np99: 0.600 s (0.500 to 1.00 s)"
    )
    assert len([rect for rect in svg.iter("rect") if rect.get("class") == "spread"]) == 2


@pytest.mark.parametrize("runs", [[], [[math.nan] * 3]])
def test_without_values_the_row_says_so(runs: list[list[float]]) -> None:
    svg = _ranges(*runs)
    assert "no such request" in _texts(svg)
    assert not list(svg.iter("circle"))


def test_a_shortened_label_has_the_full_name_under_the_pointer() -> None:
    svg = _ranges([0.1, 0.1, 0.1], name="a very long name")
    assert [title.text for title in svg.findall("text/title")] == ["a very long name"]


def _part(name: str, share: float, lowest: float, highest: float) -> Part:
    return Part(name=name, style="t0 d0", share=share, lowest=lowest, highest=highest)


def test_parts_lie_side_by_side_and_fill_the_bar() -> None:
    parts = [_part("alice", 0.25, 0.2, 0.3), _part("bob", 0.75, 0.75, 0.75)]
    svg = ElementTree.fromstring(
        draw_shares([ShareRow(label="policy", parts=parts, note="Jain 0.800")], title="Shares")
    )
    bars = [rect for rect in svg.iter("rect") if rect.get("class") == "bar"]
    assert [(bar.get("x"), bar.get("width")) for bar in bars] == [
        ("146", "47.5"),
        ("193.5", "142.5"),
    ]
    assert {"25 %", "75 %", "Jain 0.800", "policy"} <= set(_texts(svg))
    assert [title.text for title in svg.iter("title")] == [
        "alice: 25.0 % (20.0 % to 30.0 %)",
        "bob: 75.0 %",
    ]


@pytest.mark.parametrize("parts", [[], [_part("alice", 0.0, 0.0, 0.0)]])
def test_without_service_the_row_says_so(parts: list[Part]) -> None:
    row = ShareRow(label="policy", parts=parts, note="")
    svg = ElementTree.fromstring(draw_shares([row], title="Shares"))
    assert "nothing was served" in _texts(svg)


def test_a_narrow_part_has_no_text_inside() -> None:
    parts = [_part("alice", 0.05, 0.05, 0.05), _part("bob", 0.95, 0.95, 0.95)]
    row = ShareRow(label="policy", parts=parts, note="")
    assert "5 %" not in draw_shares([row], title="Shares").replace("95 %", "")
