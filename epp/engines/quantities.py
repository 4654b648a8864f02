"""From several series of one metric to one number.

A server with several engines or ranks has a series for each; what becomes of them depends on what
they measure. It must not know of pages and of what the metrics are called.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

__all__ = ["Labelled", "Quantity", "quantity_of"]

Labelled: TypeAlias = tuple[int, Mapping[str, str] | None]
"""Where in a list the value of a series is, and its labels; None where they cannot be read."""

_COPIES: Final = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})
"""Labels of SGLang's schedulers that work on the same requests: each tells of all of them."""

_PART: Final = "priority"
"""With priority scheduling SGLang tells each count in total, where this label is empty, and by
priority."""


class Quantity(msgspec.Struct, frozen=True):
    """Which values make up a quantity.

    Each of ``groups`` are the values of one rank with requests and a cache of its own: the largest
    of them counts, since copies are told one after the other. ``twins`` are values of one and the
    same series, which must agree. With no groups it is not told, and neither is it where any of its
    values is missing (NaN): part of a sum is no sum.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    twins: tuple[tuple[int, int], ...] = ()

    def sum(self, values: Sequence[float]) -> float:
        """Return the values of all ranks together, NaN where they are not told."""
        each = self._each(values)
        return sum(each) if each else math.nan

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean of the ranks, NaN where they are not told."""
        each = self._each(values)
        return sum(each) / len(each) if each else math.nan

    def largest(self, values: Sequence[float]) -> float:
        """Return the largest value of all ranks, NaN where they are not told."""
        return max(self._each(values), default=math.nan)

    def only(self, values: Sequence[float]) -> float:
        """Return the value that all ranks have in common, NaN where they have none."""
        each = self._each(values)
        return each[0] if len(set(each)) == 1 else math.nan

    def _each(self, values: Sequence[float]) -> list[float]:
        """Return the value of each rank; none where any of them is not told."""
        for one, other in self.twins:
            if values[one] != values[other]:
                return []
        each = []
        for group in self.groups:
            value = values[group[0]]
            for index in group[1:]:
                value = max(value, values[index])
                if math.isnan(values[index]):
                    return []
            if math.isnan(value):
                return []
            each.append(value)
        return each


def quantity_of(series: Iterable[Labelled]) -> Quantity:
    """Return what these series of a metric make up.

    It is not told where the labels of one of them cannot be read: whose value it has is not known.
    """
    totals: dict[frozenset[tuple[str, str]], list[int]] = {}
    parts: dict[frozenset[tuple[str, str]], list[int]] = {}
    seen: dict[frozenset[tuple[str, str]], int] = {}
    twins = []
    for index, labels in series:
        if labels is None:
            return Quantity()
        identity = frozenset(labels.items())
        if identity in seen:
            twins.append((seen[identity], index))
            continue
        seen[identity] = index
        rank = frozenset(item for item in labels.items() if item[0] not in _COPIES)
        (parts if labels.get(_PART) else totals).setdefault(rank, []).append(index)
    return Quantity(tuple(map(tuple, (totals or parts).values())), tuple(twins))
