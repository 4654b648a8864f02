"""``endpoint-attribute-filter``: endpoints for whose engines a number is in bounds."""

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from epp.core.pool import Mask
from epp.core.scheduling.attributes import ATTRIBUTE_PRODUCER, check_attribute
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition

__all__ = ["ENDPOINT_ATTRIBUTE_FILTER", "EndpointAttributeFilter"]

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = MappingProxyType(
    {
        "LessThan": operator.lt,
        "LessThanOrEqual": operator.le,
        "GreaterThan": operator.gt,
        "GreaterThanOrEqual": operator.ge,
        "Equal": operator.eq,
        "NotEqual": operator.ne,
    }
)
_Operator: TypeAlias = Annotated[
    Literal[
        "LessThan", "LessThanOrEqual", "GreaterThan", "GreaterThanOrEqual", "Equal", "NotEqual"
    ],
    msgspec.Meta(description=", ".join(f'"{name}"' for name in _OPERATORS)),
]


class Threshold(Parameters, frozen=True, kw_only=True):
    """What the number of an endpoint that is kept is in relation to ``value``."""

    operator: _Operator
    value: Annotated[float, msgspec.Meta(ge=-1e300, le=1e300, description="a number")] = 0.0


class EndpointAttributeFilter:
    """Keeps the endpoints whose attribute is on the right side of a threshold.

    Those that do not tell it are kept where ``keeps_missing``. With ``falls_back``, all are where
    none would be. Source: the llm-d router's ``endpoint-attribute-filter``.
    """

    def __init__(
        self, name: str, threshold: Threshold, *, keeps_missing: bool = True, falls_back: bool
    ) -> None:
        self._name = name
        self._compare = _OPERATORS[threshold.operator]
        self._value = threshold.value
        self._keeps_missing = keeps_missing
        self._falls_back = falls_back

    def filter(self, candidates: Candidates) -> Mask:
        """Return the mask of those kept."""
        values = candidates.attribute(self._name)
        kept: Mask = np.where(
            np.isnan(values), self._keeps_missing, self._compare(values, self._value)
        )
        return np.ones_like(kept) if self._falls_back and not kept.any() else kept


class FilterAlgorithm(Parameters, frozen=True, kw_only=True):
    """How it is decided who is kept."""

    type: Annotated[Literal["threshold"], msgspec.Meta(description='"threshold"')]
    threshold: Threshold


class EndpointAttributeFilterParameters(Parameters, frozen=True, kw_only=True):
    """Of ``endpoint-attribute-filter``."""

    attribute: Annotated[str, msgspec.Meta(min_length=1, description="text that is not empty")]
    producer: str | None = None
    on_missing: Annotated[Literal["Pass", "Fail"], msgspec.Meta(description='"Pass" or "Fail"')] = (
        "Pass"
    )
    fallback_on_empty: Annotated[bool, msgspec.Meta(description="true or false")] = False
    algorithm: FilterAlgorithm


def _make(
    parameters: EndpointAttributeFilterParameters, context: PluginContext
) -> EndpointAttributeFilter:
    check_attribute(parameters.attribute, parameters.producer, parameter="attribute")
    return EndpointAttributeFilter(
        parameters.attribute,
        parameters.algorithm.threshold,
        keeps_missing=parameters.on_missing == "Pass",
        falls_back=parameters.fallback_on_empty,
    )


ENDPOINT_ATTRIBUTE_FILTER = PluginDefinition(
    type="endpoint-attribute-filter",
    summary="Keeps the endpoints for whose engines a number that they tell is in bounds.",
    make=_make,
    parameters=EndpointAttributeFilterParameters,
    explains={
        "attribute": "The number: WaitingQueueSize, RunningRequestsSize, KVCacheUsagePercent, or"
        " one of the customMetrics of core-metrics-extractor.",
        "producer": f"Who tells it: {ATTRIBUTE_PRODUCER}.",
        "onMissing": "Whether endpoints that do not tell it are kept (Pass) or not (Fail).",
        "fallbackOnEmpty": "Whether all are kept where none would be; otherwise the request waits"
        " until one is.",
        "algorithm": f"The bound: type threshold, and threshold with operator"
        f" ({', '.join(_OPERATORS)}) and value.",
    },
)
