"""``kv-cache-utilization-scorer``: the emptier the engine's KV cache, the better."""

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import PluginDefinition

__all__ = ["KV_CACHE_SCORER", "KvCacheScorer"]


class KvCacheScorer:
    """``score = 1 - share of the KV cache in use``. Source: the llm-d router's
    ``kv-cache-utilization-scorer``, for which an endpoint that has told nothing is empty; here it
    is as full as the others are on average."""

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        scores: Column = 1.0 - candidates.kv_ratio
        return scores


KV_CACHE_SCORER = PluginDefinition(
    type="kv-cache-utilization-scorer",
    summary="Prefers endpoints whose KV cache has room.",
    make=lambda parameters, context: KvCacheScorer(),
)
