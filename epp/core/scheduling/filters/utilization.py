"""``utilization-filter``: no endpoint that is loaded beyond some bounds."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
import numpy as np

from epp.core.pool import Column, Mask
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition

__all__ = ["UTILIZATION_FILTER", "UtilizationCondition", "UtilizationFilter"]

_KV_CACHE: Final = "kv-cache-utilization"
_Metric: TypeAlias = Annotated[
    Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"],
    msgspec.Meta(
        description='"active-requests", "running-requests", "waiting-queue" or'
        ' "kv-cache-utilization"'
    ),
]

_METRICS: Final[Mapping[str, Callable[[Candidates], Column]]] = MappingProxyType(
    {
        "active-requests": lambda candidates: candidates.in_flight,
        "running-requests": lambda candidates: candidates.running,
        "waiting-queue": lambda candidates: candidates.waiting,
        _KV_CACHE: lambda candidates: candidates.kv_ratio,
    }
)


class UtilizationCondition(Parameters, frozen=True, kw_only=True):
    """A metric, and the most of it that an endpoint may have: requests, or a share of 0 to 1."""

    metric: _Metric
    max_value: Annotated[float, msgspec.Meta(ge=0, description="a number of at least 0")]


class UtilizationFilter:
    """Keeps the endpoints that meet all ``conditions``.

    With ``falls_back`` it keeps all where none does. Source: the llm-d router's
    ``utilization-filter``, which looks at the last scrape; here the load is the effective one, so
    an endpoint that was not heard of for long is neither free nor full.
    """

    def __init__(self, conditions: Sequence[UtilizationCondition], *, falls_back: bool) -> None:
        self._conditions = tuple(conditions)
        self._falls_back = falls_back

    def filter(self, candidates: Candidates) -> Mask:
        """Return the mask of those kept."""
        kept: Mask = np.ones(len(candidates), dtype=np.bool_)
        for each in self._conditions:
            kept &= _METRICS[each.metric](candidates) <= each.max_value
        return np.ones_like(kept) if self._falls_back and not kept.any() else kept


class UtilizationFilterParameters(Parameters, frozen=True, kw_only=True):
    """Of ``utilization-filter``."""

    conditions: Annotated[
        tuple[UtilizationCondition, ...],
        msgspec.Meta(min_length=1, description="a list of at least one condition"),
    ]
    fallback_on_empty: Annotated[bool, msgspec.Meta(description="true or false")] = False
    # Who counts what is in flight: here that is always the pool itself.
    in_flight_load_producer_name: Annotated[str, msgspec.Meta(description="text")] = ""


def _make(parameters: UtilizationFilterParameters, context: PluginContext) -> UtilizationFilter:
    for index, each in enumerate(parameters.conditions):
        if each.metric == _KV_CACHE and each.max_value > 1:
            raise ValueError(
                f"found conditions[{index}].maxValue {each.max_value:g} for {_KV_CACHE};"
                " expected a share from 0 to 1"
            )
    return UtilizationFilter(parameters.conditions, falls_back=parameters.fallback_on_empty)


UTILIZATION_FILTER = PluginDefinition(
    type="utilization-filter",
    summary="Keeps the endpoints whose load is within all the given bounds.",
    make=_make,
    parameters=UtilizationFilterParameters,
    explains={
        "conditions": "The bounds: a metric (active-requests, running-requests, waiting-queue,"
        " kv-cache-utilization) and the most that it may be, maxValue.",
        "fallbackOnEmpty": "Whether all are kept where none is within the bounds; otherwise the"
        " request waits until one is.",
        "inFlightLoadProducerName": "Has no effect: the pool counts what is in flight.",
    },
)
