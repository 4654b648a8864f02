"""Finds samples again, in the next page of the same engine.

From one page to the next numbers change and little else. So each sample is looked for near where it
stood last, by all that is in its line before the value. This takes a fifth of the time of a search
of the whole page, and says so where something is not as it was.
"""

import math
import re
from collections.abc import Sequence
from typing import Final

from epp.engines.samples import VALUE, Sample, number_in

__all__ = ["Places"]

_LEAST_BYTES: Final = 16_384
_MOST_PAGES: Final = 31
_match_value: Final = re.compile(rb"[ \t]+" + VALUE).match


class Places:
    """Where the samples stood that were found in a page, in its order."""

    def __init__(self, page: bytes, samples: Sequence[Sample]) -> None:
        self._page_bytes = len(page)
        self._ending = _ending(page)
        self._pages = _MOST_PAGES if len(page) >= _LEAST_BYTES else 0
        self._lines = [(page[each.begin : each.end], each.begin) for each in samples]
        # Another series of these metrics would make a page longer by more than that, and no two of
        # them stand nearer to each other.
        self._slack_bytes = min((len(line) for line, _ in self._lines), default=0)

    def values(self, page: bytes) -> list[float] | None:
        """Return the values of the samples in another page; None where the whole page is to be
        searched.

        So it is where a line is not there, or its value is none; where what is between two lines,
        or behind the last, is longer or shorter by as much as another sample would make it; where
        the page ends with another line; with every thirty-second page, for what all that may miss,
        as a line that is replaced by such a sample; and with small pages, where there is nothing to
        be saved.
        """
        if not self._pages or _ending(page) != self._ending:
            return None
        self._pages -= 1
        slack_bytes = self._slack_bytes
        values = []
        drift_bytes = 0
        for number, (line, place) in enumerate(self._lines):
            begin = place + drift_bytes
            if not page.startswith(line, begin):
                first = max(0, begin - slack_bytes)
                begin = page.find(line, first, begin + slack_bytes + len(line))
            found = _match_value(page, begin + len(line)) if begin >= 0 else None
            if found is None:
                return None
            value = number_in(found[1])
            if math.isnan(value):
                return None
            values.append(value)
            drift_bytes = begin - place
            if drift_bytes:
                self._lines[number] = line, begin
        if abs(len(page) - self._page_bytes - drift_bytes) > slack_bytes:
            return None
        self._page_bytes = len(page)
        return values


def _ending(page: bytes) -> bytes:
    """Return the last line without its value."""
    begin = page.rfind(b"\n", 0, len(page) - 1)
    return page[begin : page.rfind(b" ", begin)]
