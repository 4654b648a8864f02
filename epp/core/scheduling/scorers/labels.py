"""What the endpoints of a pool have as the value of one label."""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
import numpy as np

from epp.core.pool import Pool
from epp.core.scheduling.candidates import Slots
from epp.core.scheduling.changed_slots import ChangedSlots

__all__ = ["LabelColumn", "LabelValues"]

_T = TypeVar("_T")
_FEW_TEXTS = 64


class LabelValues(msgspec.Struct, Generic[_T], frozen=True):
    """The different values, and which of them each endpoint has: indices of shape ``(slots,)``, of
    no meaning where there is no endpoint. There may be values that no endpoint has any more.
    ``generation`` grows when the values change."""

    values: list[_T]
    which: Slots
    generation: int


class LabelColumn(Generic[_T]):
    """Reads one label of the endpoints, once for each that joins or has other labels, not for each
    request.

    ``read`` makes of a value what is wanted of it, of None where an endpoint has no such label. It
    is asked once for each different value: many endpoints have few. Values that no endpoint has any
    more are forgotten when they have become as many as the others.
    """

    def __init__(self, label: str, read: Callable[[str | None], _T]) -> None:
        self._label = label
        self._read = read
        self._changed = ChangedSlots()
        self._texts: dict[str | None, int] = {}
        self._values: list[_T] = []
        self._which: Slots = np.zeros(0, dtype=np.intp)
        self._most_texts = _FEW_TEXTS
        self._generation = 0

    def of(self, pool: Pool) -> LabelValues[_T]:
        """Return the values by now."""
        slots = self._changed.take(pool)
        if slots:
            missing = max(0, len(pool.active) - len(self._which))
            self._which = np.concatenate([self._which, np.zeros(missing, dtype=np.intp)])
            self._look(pool, slots)
            if len(self._texts) > self._most_texts:
                self._texts.clear()
                self._values.clear()
                self._look(pool, pool.active.nonzero()[0].tolist())
                self._most_texts = max(_FEW_TEXTS, 2 * len(self._texts))
        return LabelValues(self._values, self._which, self._generation)

    def _look(self, pool: Pool, slots: list[int]) -> None:
        texts, values = self._texts, self._values
        for slot in slots:
            text = pool.endpoint(slot).labels.get(self._label)
            which = self._which[slot] = texts.setdefault(text, len(texts))
            if which == len(values):
                values.append(self._read(text))
                self._generation += 1
