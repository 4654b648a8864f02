"""Counts in JSON that others wrote."""

from typing import Final

import msgspec

__all__ = ["count_in"]

_MOST_DIGITS: Final = 9


def count_in(raw: msgspec.Raw) -> int | None:
    """Return the whole number from 0 to 999,999,999 that a JSON value is; None for all else, and
    for no value."""
    digits = bytes(raw)
    return int(digits) if len(digits) <= _MOST_DIGITS and digits.isdigit() else None
