"""Which request of a flow goes next: its rank, where less goes first and ties go by arrival."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from epp.core.flow.options import Ordering
from epp.core.request import Request

__all__ = ["ORDERINGS", "Rank"]

Rank: TypeAlias = Callable[[Request, float, float | None], float]
"""``(request, when it entered, the end of its budget or None) → rank``, all in seconds."""


def _fcfs(request: Request, entered_s: float, deadline_s: float | None) -> float:
    return 0.0


def _edf(request: Request, entered_s: float, deadline_s: float | None) -> float:
    return math.inf if deadline_s is None else deadline_s


def _slo_deadline(request: Request, entered_s: float, deadline_s: float | None) -> float:
    return math.inf if request.slo_ttft_s is None else entered_s + request.slo_ttft_s


ORDERINGS: Final[Mapping[Ordering, Rank]] = MappingProxyType(
    {"fcfs": _fcfs, "edf": _edf, "slo-deadline": _slo_deadline}
)
"""First come first served; earliest end of the wait's budget first; earliest arrival plus the
request's own goal for the time to first token first, those without one last."""
