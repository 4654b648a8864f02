"""Whether what an engine reports can be believed.

It must not know what becomes of the limit, whether it is or not.
"""

import math
from typing import Final

from epp.core.pool import EngineLoad

__all__ = ["Doubt", "without_gaps"]

_DOUBT_AFTER_S: Final = 3.0
_DOUBT_AFTER_EVENTS: Final = 4
_SLACK_REQUESTS: Final = 2.0
_SLACK_RATIO: Final = 0.2


def without_gaps(load: EngineLoad) -> EngineLoad:
    """Return the report with 0 in place of what is no number: a metric that the engine lacks."""
    if math.isfinite(load.waiting + load.running + load.kv_ratio):
        return load
    waiting, running, kv_ratio = (
        value if math.isfinite(value) else 0.0
        for value in (load.waiting, load.running, load.kv_ratio)
    )
    return EngineLoad(waiting=waiting, running=running, kv_ratio=kv_ratio)


class Doubt:
    """Tells reports that are frozen: of an engine whose metrics have stopped, or of a cache in
    between.

    A report that stays the same is no proof, nothing may have happened. It is frozen if requests
    have come and gone meanwhile and it cannot be true: it does not add up to what is in flight, or
    not one block of the KV cache has changed hands. ``since_s`` is when the newest report was new.
    """

    __slots__ = ("_events", "_last", "since_s")

    def __init__(self) -> None:
        self._last: EngineLoad | None = None
        self.since_s = 0.0
        self._events = 0

    def is_frozen(self, load: EngineLoad, in_flight: int, events: int, now: float) -> bool:
        """Tell whether the newest report is as good as none. ``events`` is the number of requests
        that have been dispatched or have ended so far."""
        if load != self._last:
            self._last = load
            self.since_s = now
            self._events = events
            return False
        if now - self.since_s < _DOUBT_AFTER_S or events - self._events < _DOUBT_AFTER_EVENTS:
            return False
        told = load.waiting + load.running
        slack = max(_SLACK_REQUESTS, _SLACK_RATIO * max(told, in_flight))
        return abs(told - in_flight) > slack or 0.0 < load.kv_ratio < 1.0
