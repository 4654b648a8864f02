"""What the endpoints of a pool have as the value of one label."""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
import numpy as np

from epp.core.pool import Pool
from epp.core.scheduling.candidates import Slots

__all__ = ["LabelColumn", "LabelValues"]

_T = TypeVar("_T")


class LabelValues(msgspec.Struct, Generic[_T], frozen=True):
    """The different values, and which of them each endpoint has: indices of shape ``(slots,)``."""

    values: list[_T]
    which: Slots


class LabelColumn(Generic[_T]):
    """Reads one label of all endpoints, once for each change of the pool, not for each request.

    ``read`` makes of a value what is wanted of it, of None where an endpoint has no such label. It
    is asked once for each different value: many endpoints have few.
    """

    def __init__(self, label: str, read: Callable[[str | None], _T]) -> None:
        self._label = label
        self._read = read
        self._pool: Pool | None = None
        self._version = -1
        self._found: LabelValues[_T] = LabelValues([], np.zeros(0, dtype=np.intp))

    def of(self, pool: Pool) -> LabelValues[_T]:
        """Return the values by now."""
        if pool is not self._pool or pool.version != self._version:
            self._pool, self._version = pool, pool.version
            self._found = self._look(pool)
        return self._found

    def _look(self, pool: Pool) -> LabelValues[_T]:
        texts: dict[str | None, int] = {}
        which = np.zeros(len(pool.active), dtype=np.intp)
        for slot in pool.active.nonzero()[0].tolist():
            text = pool.endpoint(slot).labels.get(self._label)
            which[slot] = texts.setdefault(text, len(texts))
        return LabelValues([self._read(text) for text in texts], which)
