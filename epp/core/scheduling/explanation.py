"""Why an endpoint was picked."""

import msgspec

__all__ = ["Explanation", "FilterStep", "ScorerStep"]


class FilterStep(msgspec.Struct, frozen=True):
    """A filter, and the slots that it has taken out."""

    name: str
    dropped: list[int]


class ScorerStep(msgspec.Struct, frozen=True):
    """A scorer with its weight, and its score for each of the slots that were scored.

    ``parts`` is what a score was made of, by name, for scorers that can tell.
    """

    name: str
    weight: float
    scores: list[float]
    parts: dict[str, list[float]] = {}


class Explanation(msgspec.Struct, frozen=True):
    """How a profile came to its pick.

    ``considered`` are the slots that it was given, ``scored`` those that the filters have left;
    ``totals`` are their weighted sums, in the same order. ``picked`` are the slots that were
    picked, the best first; none where there were none to pick from.
    """

    profile: str
    considered: list[int]
    filters: list[FilterStep]
    scored: list[int]
    scorers: list[ScorerStep]
    totals: list[float]
    picker: str
    picked: list[int]
