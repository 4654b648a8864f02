"""``load-aware-scorer``: the shorter the engine's own queue, the better, whatever the others'
are."""

from typing import Annotated, Final

import msgspec
import numpy as np

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition

__all__ = ["LOAD_AWARE_SCORER", "LoadAwareScorer"]

_DEFAULT_THRESHOLD: Final = 128


class LoadAwareScorer:
    """``score = 0.5 * (1 - min(waiting, threshold) / threshold)``: 0.5 for an empty queue, 0 from
    ``threshold`` requests on. Source: the llm-d router's ``load-aware-scorer``, which takes the
    queue of the last scrape; here it is the effective one."""

    def __init__(self, threshold: int = _DEFAULT_THRESHOLD) -> None:
        self._threshold = float(threshold)

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        waiting = np.minimum(candidates.waiting, self._threshold)
        scores: Column = 0.5 - waiting * (0.5 / self._threshold)
        return scores


class LoadAwareParameters(Parameters, frozen=True, kw_only=True):
    """Of ``load-aware-scorer``."""

    threshold: Annotated[int, msgspec.Meta(le=10**9, description="a whole number up to 10^9")] = (
        _DEFAULT_THRESHOLD
    )


def _make(parameters: LoadAwareParameters, context: PluginContext) -> LoadAwareScorer:
    threshold = parameters.threshold
    return LoadAwareScorer(threshold if threshold > 0 else _DEFAULT_THRESHOLD)


LOAD_AWARE_SCORER = PluginDefinition(
    type="load-aware-scorer",
    summary="Prefers endpoints with few requests in the engine's own queue, by absolute numbers.",
    make=_make,
    parameters=LoadAwareParameters,
    explains={
        "threshold": "The queue, in requests, from which on an endpoint scores 0; 0 or less stands"
        f" for {_DEFAULT_THRESHOLD}."
    },
)
