"""``lora-affinity-scorer``: endpoints that have the LoRA adapter loaded, or room to load it."""

from typing import Final

import numpy as np

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.scorers.adapters import AdapterPlaces

__all__ = ["LORA_AFFINITY_SCORER", "LoraAffinityScorer"]

_LOADED: Final = 1.0
_HAS_ROOM: Final = 0.8
_WAITS: Final = 0.6


class LoraAffinityScorer(AdapterPlaces):
    """``score = 1`` where the model's adapter is loaded, else 0.8 where another one could be, else
    0.6 where requests wait for it already, else 0. Another one could be where fewer are in use or
    waited for than there are places.

    Source: the llm-d router's ``lora-affinity-scorer``, which goes by what the engine told last, so
    by the adapters of the requests that ran then. Here, what was dispatched since counts too, and
    what was used last and still has its place. So the requests of a burst do not each load their
    adapter somewhere else, nor all theirs at the same endpoint.
    """

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        model = candidates.request.model
        scores = np.where(self.has_room(len(candidates.pool.active)), _HAS_ROOM, 0.0)
        waiting, loaded = self.waiting_at(model), self.loaded_at(model)
        if waiting:
            scores[waiting] = np.maximum(scores[waiting], _WAITS)
        if loaded:
            scores[loaded] = _LOADED
        chosen: Column = scores[candidates.slots]
        return chosen


LORA_AFFINITY_SCORER = PluginDefinition(
    type="lora-affinity-scorer",
    summary="Prefers endpoints that have the request's LoRA adapter loaded, or room to load it.",
    make=lambda parameters, context: LoraAffinityScorer(),
)
