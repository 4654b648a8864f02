"""Amounts and times as Kubernetes and Go write them: ``1Gi``, ``5k``, ``1h30m``.

Sources: the grammar of ``k8s.io/apimachinery`` ``resource.Quantity``, and that of Go's
``time.ParseDuration``.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

__all__ = ["MAX_QUANTITY", "Duration", "Quantity"]

MAX_QUANTITY: Final = (1 << 63) - 1
"""The largest quantity; whatever is larger counts as this, as in Kubernetes."""

_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_QUANTITY: Final = re.compile(
    rf"\+?({_NUMBER})(?:([eE][-+]?[0-9]+)|([KMGTPE]i|[numkMGTPE]))?", re.ASCII
)
_FACTORS: Final[Mapping[str | None, Fraction]] = MappingProxyType(
    {
        None: Fraction(1),
        **{unit: Fraction(10) ** (3 * power) for power, unit in enumerate("kMGTPE", 1)},
        **{unit: Fraction(10) ** (-3 * power) for power, unit in enumerate("mun", 1)},
        **{f"{unit}i": Fraction(1 << 10 * power) for power, unit in enumerate("KMGTPE", 1)},
    }
)

_DURATION_PART: Final = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_DURATION: Final = re.compile(rf"\+?(?:0|(?:{_DURATION_PART.pattern})+)", re.ASCII)
_NANOSECONDS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "ns": 1,
        **dict.fromkeys(("us", "µs", "μs"), 1_000),  # the micro sign, and the Greek letter
        "ms": 1_000_000,
        "s": 1_000_000_000,
        "m": 60 * 1_000_000_000,
        "h": 3600 * 1_000_000_000,
    }
)
# More than any amount or time that is meant, and little enough to work with.
_MAX_CHARACTERS: Final = 100
# Beyond these a number of so many characters is above the most, or below 1, anyway.
_MOST_POWERS: Final = 2 * _MAX_CHARACTERS


class Quantity(int):
    """A Kubernetes quantity of at least 0, as a whole number: fractions are rounded up."""

    @classmethod
    def parse(cls, value: object) -> "Quantity":
        """Return the quantity that a text or number says. Raises ValueError if it is none."""
        if isinstance(value, int | float):
            value = repr(value)
        if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
            raise ValueError("not a quantity")
        found = _QUANTITY.fullmatch(value)
        if found is None:
            raise ValueError("not a quantity")
        digits, exponent, unit = found.groups()
        amount = _fraction(digits) * _FACTORS[unit]
        if exponent is not None:
            power = max(-_MOST_POWERS, min(int(exponent[1:]), _MOST_POWERS))
            amount *= Fraction(10) ** power
        return cls(min(math.ceil(amount), MAX_QUANTITY))


class Duration(float):
    """A Go duration of at least 0, in seconds."""

    @classmethod
    def parse(cls, value: object) -> "Duration":
        """Return the duration that a text says. Raises ValueError if it is none.

        Like Go, it takes no bare number but ``"0"``, and nothing beyond 2⁶³ - 1 nanoseconds.
        """
        if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
            raise ValueError("not a duration")
        if _DURATION.fullmatch(value) is None:
            raise ValueError("not a duration")
        parts = _DURATION_PART.findall(value)
        nanoseconds = sum(_fraction(number) * _NANOSECONDS[unit] for number, unit in parts)
        if nanoseconds > MAX_QUANTITY:
            raise ValueError("not a duration")
        return cls(nanoseconds / 1_000_000_000)


def _fraction(number: str) -> Fraction:
    return Fraction(f"0{number}0" if "." in number else number)  # which knows no "5."
