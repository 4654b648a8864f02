"""Times and lists of names, as texts."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

__all__ = ["listed", "micro_time", "second_time"]

_SHOWN: Final = 5


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def second_time(time: datetime) -> str:
    """Return a time as the API's ``Time``, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_time(time: datetime) -> str:
    """Return a time as the API's ``MicroTime``."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
