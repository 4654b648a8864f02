"""The limit of one endpoint by nothing but what comes back from it.

Does more in flight bring more finished work? In an epoch, the limit stays and ends are counted. The
work of an end is its output tokens and a little for its prompt, or 1 where they are not known; its
slot seconds are the time for which it was in flight. Then ``limit · work / slot seconds`` is the
throughput, by Little's law, and it is far steadier than the number of ends in a time, because long
responses weigh in both sums. Two epochs at different limits tell the elasticity,

    e = log(throughput' / throughput) / log(limit' / limit),

1 while the engine has room, 0 when it is full. The larger limit is kept where ``e`` is above 0.1.
The first steps double the limit. Then it is tried a quarter above and below, less often the longer
nothing is gained by it.

Where the time to the first byte is known, there is a shorter way down: by how much it has grown
beyond its lowest mean is time in the engine's queue, and its share of the slot seconds is the share
of what is in flight that waits there.

It must not know of reports or slots.
"""

import math
from typing import Final

from epp.core.gate import Ending

__all__ = ["Climb"]

_MIN_ELASTICITY: Final = 0.1
_TRY_RATIO: Final = 1.25
_PROMPT_WEIGHT: Final = 0.01
_MIN_ENDS: Final = 24
_MAX_ENDS_PER_REQUEST: Final = 8
_ERROR_DOUBLING: Final = 0.05
_ERROR_TRYING: Final = 0.02
_UNTOLD_ENDS: Final = 64
_MAX_REST: Final = 16
_BASELINE_DECAY: Final = 1.02
_QUEUE_SHARE: Final = 0.25


class _Sums:
    """What came back in an epoch: work ``w`` and slot seconds ``s``, their sums and products."""

    __slots__ = ("ends", "first_s", "full", "s", "ss", "starts", "w", "ws", "ww")

    def __init__(self) -> None:
        self.ends = self.starts = self.full = 0
        self.w = self.s = self.ww = self.ss = self.ws = self.first_s = 0.0

    def error(self) -> float:
        """Return the relative standard error of ``w / s``."""
        w, s = self.w, self.s
        return math.sqrt(max(0.0, self.ww / (w * w) + self.ss / (s * s) - 2.0 * self.ws / (w * s)))


class Climb:
    """Ends in, limits out. It is begun anew whenever nothing else sets the limit."""

    __slots__ = ("_baseline_s", "_doubles", "_fails", "_known", "_most", "_rest", "_since_s",
                 "_sums", "_tells_tokens", "_untold", "_up", "limit")  # fmt: skip

    def __init__(self, limit: int, most: int, *, doubles: bool, now: float) -> None:
        self.limit = limit
        self._most = most
        self._doubles = doubles
        self._since_s = now
        self._sums = _Sums()
        self._known: tuple[int, float] | None = None  # a limit, and its throughput
        self._tells_tokens = False
        self._untold = 0
        self._up = True
        self._fails = 0
        self._rest = 0
        self._baseline_s = math.inf

    def dispatched(self, in_flight: int, now: float) -> None:
        """A request went, with which so many are in flight."""
        if now < self._since_s:
            return
        self._sums.starts += 1
        self._sums.full += in_flight >= self.limit

    def ended(self, ending: Ending, slot_s: float, now: float) -> bool:
        """Count an end; return whether the limit is another one now."""
        if slot_s <= 0 or now - slot_s < self._since_s:
            return False  # it ran at another limit, too
        if ending.cause != "complete" or not 200 <= ending.status < 300:
            return False
        if not self._is_comparable(ending):
            return False
        sums = self._sums
        work = 1.0
        if self._tells_tokens and ending.output_tokens is not None:
            work = ending.output_tokens + _PROMPT_WEIGHT * (ending.prompt_tokens or 0)
        sums.ends += 1
        sums.w += work
        sums.s += slot_s
        sums.ww += work * work
        sums.ss += slot_s * slot_s
        sums.ws += work * slot_s
        sums.first_s += ending.first_byte_s or 0.0
        return self._is_over() and self._end_epoch(now)

    def _is_comparable(self, ending: Ending) -> bool:
        """Tell whether its work is counted as that of the others.

        Tokens are, as soon as one response tells them; those that do not are left out, unless for
        long none has.
        """
        tells = ending.output_tokens is not None
        self._untold = 0 if tells else self._untold + 1
        if tells == self._tells_tokens:
            return True
        if not tells and self._untold < _UNTOLD_ENDS:
            return False
        self._tells_tokens = tells
        self._sums = _Sums()
        self._known = None
        return True

    def _is_over(self) -> bool:
        ends = self._sums.ends
        least = self.limit if self._doubles else 2 * self.limit
        if ends < max(_MIN_ENDS, least) or not self._sums.w:
            return False
        if ends >= _MIN_ENDS + _MAX_ENDS_PER_REQUEST * self.limit:
            return True
        return self._sums.error() <= (_ERROR_DOUBLING if self._doubles else _ERROR_TRYING)

    def _end_epoch(self, now: float) -> bool:
        sums, self._sums = self._sums, _Sums()
        before, self._since_s = self.limit, now
        throughput = before * sums.w / sums.s
        if 2 * sums.full >= sums.starts:
            waiting = self._waiting_share(sums)
            if self._known is None or self._known[0] == before:
                self._known = before, throughput
                self._try_another()
            else:
                self._compare(*self._known, before, throughput, waiting)
        self.limit = max(1, min(self._most, self.limit))
        if self.limit == before:
            return False
        # What goes first at the new limit meets the engine before it has found its balance again.
        self._since_s = now + sums.s / sums.ends
        return True

    def _waiting_share(self, sums: _Sums) -> float:
        """Return the share of the slot seconds that went by in the engine's queue."""
        mean_s = sums.first_s / sums.ends
        # Prompts may become longer for good: what was the lowest is forgotten, slowly.
        self._baseline_s = min(mean_s, self._baseline_s * _BASELINE_DECAY)
        return (mean_s - self._baseline_s) * sums.ends / sums.s

    def _try_another(self) -> None:
        if self._rest:
            self._rest -= 1
        elif self._doubles:
            self.limit *= 2
        elif self._up or self.limit == 1:
            self.limit = math.ceil(self.limit * _TRY_RATIO)
        else:
            self.limit = math.floor(self.limit / _TRY_RATIO)

    def _compare(
        self, known: int, known_throughput: float, tried: int, throughput: float, waiting: float
    ) -> None:
        if self._doubles and waiting > _QUEUE_SHARE:
            # Too many now, and too few before: what does not wait is about right.
            self._doubles = False
            self._known = None
            self.limit = max(known, math.ceil(tried * (1.0 - waiting)))
            return
        gained = math.log(throughput / known_throughput) / math.log(tried / known)
        keeps_tried = (gained >= _MIN_ELASTICITY) == (tried > known)
        if keeps_tried:
            self._fails = 0
            self._known = tried, throughput
            self._try_another()
            return
        if not self._doubles:
            self._up = not self._up
            self._fails += 1
            if self._fails % 2 == 0:
                self._rest = min(_MAX_REST, self._fails)
        self.limit = known
        self._doubles = False
