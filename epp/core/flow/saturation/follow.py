"""The limit of one endpoint by what its engine reports.

An engine is full when requests wait in its own queue and go on waiting. It is then known how many
it can run: as many as it runs. So the limit comes down half of the way to that at a time, and not
below it; a report that is seconds old, or seen twice, does no more harm than a new one. While
nothing waits and the limit is what holds requests back, it rises: by doubling at first, and after
the first queue by 1, faster the longer no queue shows, but not beyond what its KV cache can hold.

It must not know of clocks, slots, or reports that are missing.
"""

import math
from typing import Final, TypeVar

from epp.core.pool import EngineLoad

__all__ = ["Follow"]

_REPORTS: Final = 3
"""A queue is one that stands if so many reports in a row have it: prompts that arrive together, and
are being read, are none."""

_STEADY_REPORTS: Final = 4
_FORGET_REPORTS: Final = 10
"""After so many reports without the limit in use, it is searched by doubling again."""

_FOREIGN_REPORTS: Final = 8
_MAX_KV_RATIO: Final = 0.95
_DRAINING_RATIO: Final = 0.5
_UNTOLD_RATIO: Final = 0.2
_UNTOLD_REQUESTS: Final = 2

_Number = TypeVar("_Number", int, float)


class Follow:
    """Reports in, limits out. ``reason`` tells what keeps the limit from rising."""

    __slots__ = ("_calm", "_doubles", "_in_flight", "_most", "_running", "_unused", "_waiting",
                 "limit", "reason")  # fmt: skip

    def __init__(self, limit: int, most: int) -> None:
        self.limit = limit
        self.reason = "warming"
        self._most = most
        self._doubles = True
        self._calm = 0
        self._unused = 0
        self._waiting: list[float] = []
        self._running: list[float] = []
        self._in_flight: list[int] = []

    @property
    def is_searching(self) -> bool:
        """Whether the engine has never been seen full, so that its limit may be far away."""
        return self._doubles

    def resume(self, limit: int) -> None:
        """Go on from a limit that was found otherwise, while there were no reports."""
        self.limit = limit
        self._calm = 0
        self._waiting.clear()
        self._running.clear()
        self._in_flight.clear()

    def report(
        self, load: EngineLoad, in_flight: int, was_full: bool, mean_output_tokens: float
    ) -> None:
        """Take in what the engine says.

        ``was_full`` is whether the limit was reached since the last report. Of a batch of ``n``,
        ``n / mean_output_tokens`` sequences end with each iteration, and those that take their
        places wait for the next one; 0 where that is not known.
        """
        _push(self._waiting, load.waiting, _REPORTS)
        _push(self._running, load.running, _REPORTS)
        _push(self._in_flight, in_flight, _FOREIGN_REPORTS)
        in_passing = load.running / mean_output_tokens if mean_output_tokens else 0.0
        queue = max(1.0, 1.25 * in_passing - 1.75)
        self._unused = 0 if was_full else self._unused + 1
        if self._unused >= _FORGET_REPORTS:
            self._doubles = True
        standing = min(self._waiting) if len(self._waiting) == _REPORTS else 0.0
        if load.waiting or load.running:
            if standing > queue and not self._is_draining():
                self._come_down(in_flight, standing)
            elif load.waiting >= queue:
                self._calm = 0
                self.reason = "waiting"
            elif was_full:
                self._rise(load, in_flight)
        elif load.kv_ratio < _MAX_KV_RATIO:
            # It is idle: it can take one more than it has, whatever there is in flight.
            self.limit = min(self._most, max(self.limit, in_flight + 1))
            self.reason = "inflight"

    def _is_draining(self) -> bool:
        """Tell whether the queue is on its way into the batch."""
        return self._waiting[-1] <= _DRAINING_RATIO * self._waiting[0]

    def _come_down(self, in_flight: int, standing: float) -> None:
        told = max(r + w for r, w in zip(self._running, self._waiting, strict=True))
        foreign = max(0.0, told - max(self._in_flight))  # requests of others
        runs = math.ceil(max(self._running) - foreign) + 1
        self.limit = min(self.limit, max(1, runs, in_flight - math.ceil(standing / 2)))
        self.reason = "waiting"
        self._doubles = False
        self._calm = 0

    def _rise(self, load: EngineLoad, in_flight: int) -> None:
        told = load.waiting + load.running
        if told < (1 - _UNTOLD_RATIO) * in_flight - _UNTOLD_REQUESTS:
            return  # the report is older than what is in flight: what that does is still to be seen
        self._calm += 1
        step = self.limit
        if not self._doubles:
            step = min(step, 1 << max(0, self._calm - _STEADY_REPORTS))
        self.reason = "inflight"
        if load.kv_ratio:
            fits = math.floor(in_flight * _MAX_KV_RATIO / load.kv_ratio)
            if fits < self.limit + step:
                step = max(0, fits - self.limit)
                self.reason = "kv"
        self.limit = min(self._most, self.limit + step)


def _push(values: list[_Number], value: _Number, most: int) -> None:
    values.append(value)
    if len(values) > most:
        del values[0]
