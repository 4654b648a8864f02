"""``prefix-cache-scorer``: the more of the prompt an endpoint has in its cache, the better."""

from typing import Annotated, Final

import msgspec
import numpy as np

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates, Producer
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.prefix_cache import PrefixHits

__all__ = ["PREFIX_CACHE_SCORER", "PrefixCacheScorer"]

_PRODUCER: Final = "approx-prefix-cache-producer"


class PrefixCacheScorer:
    """``score = (1 - w) * cached blocks / all blocks + w * min(1, cached tokens / scale)**2`` with
    ``w = length_weight`` and ``scale = scale_tokens``: what share of the prompt is cached, and how
    much that is. 0 for a prompt without a full block. Source: the llm-d router's
    ``prefix-cache-scorer``."""

    def __init__(
        self,
        producer: Producer[PrefixHits],
        length_weight: float = 0.0,
        scale_tokens: int = 8192,
    ) -> None:
        self._producer = producer
        self._length_weight = length_weight
        self._scale_tokens = float(scale_tokens)

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        hits, slots = candidates.produced(self._producer), candidates.slots
        shares: Column = hits.ratio[slots]
        if not self._length_weight:
            return shares
        lengths = np.minimum(hits.tokens[slots] / self._scale_tokens, 1.0) ** 2
        scores: Column = self._length_weight * lengths + (1.0 - self._length_weight) * shares
        return scores


class PrefixCacheScorerParameters(Parameters, frozen=True, kw_only=True):
    """Of ``prefix-cache-scorer``."""

    prefix_match_info_producer_name: Annotated[str, msgspec.Meta(description="text")] = ""
    match_length_weight: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="a number from 0 to 1")
    ] = 0.0
    match_length_scale_tokens: Annotated[
        int, msgspec.Meta(ge=1, le=10**9, description="a whole number from 1 to 10^9")
    ] = 8192


def _make(parameters: PrefixCacheScorerParameters, context: PluginContext) -> PrefixCacheScorer:
    return PrefixCacheScorer(
        context.plugin(parameters.prefix_match_info_producer_name, default_type=_PRODUCER),
        parameters.match_length_weight,
        parameters.match_length_scale_tokens,
    )


PREFIX_CACHE_SCORER = PluginDefinition(
    type="prefix-cache-scorer",
    summary="Prefers endpoints that have much of the prompt in their prefix cache.",
    make=_make,
    parameters=PrefixCacheScorerParameters,
    explains={
        "prefixMatchInfoProducerName": "The producer that knows the prefix caches, by default"
        f" {_PRODUCER}.",
        "matchLengthWeight": "How much the length of what is cached counts, from 0 to 1; the rest"
        " is its share of the prompt.",
        "matchLengthScaleTokens": "The length, in tokens, from which on more of it counts no more.",
    },
)
