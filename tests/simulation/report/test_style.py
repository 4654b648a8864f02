"""Colours that everybody can tell apart, on light and on dark ground."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from epp.simulation.report.style import DARK, LIGHT, style_sheet

_SIGHT = {
    "full": np.eye(3),
    "no-red": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "no-green": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "no-blue": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
"""What is left of linear RGB; Machado, Oliveira, Fernandes (2009), severity 1."""

_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def _linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(_TO_XYZ @ np.clip(linear, 0.0, 1.0) / _WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _contrast(one: str, other: str) -> float:
    dark, light = sorted(float(_TO_XYZ[1] @ _linear(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def _set(colours: Mapping[str, str], kind: str) -> list[str]:
    return [colour for name, colour in colours.items() if name[0] == kind and name[1:].isdigit()]


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("kind", ["t", "p"])
def test_colours_of_a_set_differ_for_every_kind_of_sight(
    colours: Mapping[str, str], kind: str
) -> None:
    for matrix in _SIGHT.values():
        seen = [_lab(matrix @ _linear(colour)) for colour in _set(colours, kind)]
        for one, other in itertools.combinations(seen, 2):
            assert np.linalg.norm(one - other) >= 15


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_curves_stand_out_with_3_to_1_and_text_with_4_5(colours: Mapping[str, str]) -> None:
    paper = colours["paper"]
    for colour in _set(colours, "t") + _set(colours, "p"):
        assert _contrast(colour, paper) >= 3.0
    for name in ("ink", "soft"):
        assert _contrast(colours[name], paper) >= 4.5


def test_both_schemes_name_the_same_colours_and_the_sheet_has_them() -> None:
    assert LIGHT.keys() == DARK.keys()
    sheet = style_sheet()
    assert "prefers-color-scheme:dark" in sheet
    assert "@media print" in sheet
    for name in LIGHT:
        assert sheet.count(f"--{name}:") == 2
    for word in ("url(", "@import", "http"):
        assert word not in sheet
