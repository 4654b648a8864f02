"""``endpoint-attribute-scorer``: endpoints by a number that their engines tell."""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
import numpy as np

from epp.core.pool import Column
from epp.core.scheduling.attributes import ATTRIBUTE_PRODUCER, check_attribute
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition

__all__ = ["ENDPOINT_ATTRIBUTE_SCORER", "EndpointAttributeScorer"]

_LOWER: Final = "linear_lower_is_better"


class EndpointAttributeScorer:
    """Scores an attribute linearly between two bounds, beyond them as at them.

    ``bounds`` are fixed; None stands for the least and the most of the candidates, and all score 1
    where these are equal. An endpoint that does not tell the attribute scores 0. Source: the llm-d
    router's ``endpoint-attribute-scorer``.
    """

    def __init__(
        self, name: str, *, lower_is_better: bool, bounds: tuple[float, float] | None = None
    ) -> None:
        self._name = name
        self._lower_is_better = lower_is_better
        self._bounds = bounds

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        values = candidates.attribute(self._name)
        is_told = np.isfinite(values)
        if not is_told.any():
            return np.zeros(len(values))
        low, high = self._bounds or (values[is_told].min(), values[is_told].max())
        if low == high:
            return is_told.astype(np.float64)
        worst, best = (high, low) if self._lower_is_better else (low, high)
        scores = np.clip((values - worst) / (best - worst), 0.0, 1.0)
        scores[~is_told] = 0.0
        return scores


_Number: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300, description="a number")]


class FixedRange(Parameters, frozen=True, kw_only=True):
    """Bounds that are the same for all requests."""

    min: _Number
    max: _Number


class AdaptiveRange(Parameters, frozen=True, kw_only=True):
    """Bounds that are those of the candidates."""


class Normalization(Parameters, frozen=True, kw_only=True):
    """Where the bounds come from: one of the two."""

    fixed_range: FixedRange | None = None
    adaptive_range: AdaptiveRange | None = None


class Algorithm(Parameters, frozen=True, kw_only=True):
    """How a number becomes a score."""

    type: Annotated[
        Literal["linear_lower_is_better", "linear_higher_is_better"],
        msgspec.Meta(description='"linear_lower_is_better" or "linear_higher_is_better"'),
    ]
    normalization: Normalization | None = None


class EndpointAttributeParameters(Parameters, frozen=True, kw_only=True):
    """Of ``endpoint-attribute-scorer``."""

    attribute_key: Annotated[str, msgspec.Meta(min_length=1, description="text that is not empty")]
    producer: str | None = None
    algorithm: Algorithm


def _make(
    parameters: EndpointAttributeParameters, context: PluginContext
) -> EndpointAttributeScorer:
    check_attribute(parameters.attribute_key, parameters.producer, parameter="attributeKey")
    algorithm = parameters.algorithm
    return EndpointAttributeScorer(
        parameters.attribute_key,
        lower_is_better=algorithm.type == _LOWER,
        bounds=_bounds(algorithm.normalization or Normalization()),
    )


def _bounds(normalization: Normalization) -> tuple[float, float] | None:
    fixed = normalization.fixed_range
    if fixed is None:
        return None
    if normalization.adaptive_range is not None:
        raise ValueError(
            "found fixedRange and adaptiveRange in algorithm.normalization; expected one of them"
        )
    if not fixed.min < fixed.max:
        raise ValueError(
            f"found min {fixed.min:g} and max {fixed.max:g} in algorithm.normalization.fixedRange;"
            " expected min below max"
        )
    return fixed.min, fixed.max


ENDPOINT_ATTRIBUTE_SCORER = PluginDefinition(
    type="endpoint-attribute-scorer",
    summary="Prefers endpoints by a number that their engines tell.",
    make=_make,
    parameters=EndpointAttributeParameters,
    explains={
        "attributeKey": "The number: WaitingQueueSize, RunningRequestsSize, KVCacheUsagePercent, or"
        " one of the customMetrics of core-metrics-extractor.",
        "producer": f"Who tells it: {ATTRIBUTE_PRODUCER}.",
        "algorithm": "What is better (type: linear_lower_is_better or linear_higher_is_better), and"
        " between which bounds (normalization: fixedRange with min and max, or adaptiveRange, which"
        " is the default).",
    },
)
