"""``max-score-picker``: the highest score, ties by chance."""

import numpy as np

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.few import FEW, one_of
from epp.core.scheduling.pickers.parameters import EXPLAINS, PickerParameters

__all__ = ["MAX_SCORE_PICKER", "MaxScorePicker"]


class MaxScorePicker:
    """Picks the ``max_endpoints`` candidates with the highest scores, ties by chance."""

    def __init__(self, max_endpoints: int = 1) -> None:
        self.max_endpoints = max_endpoints

    def pick(self, candidates: Candidates, scores: Column) -> list[int]:
        """Return the indices of the best, in order."""
        if self.max_endpoints > 1:
            return self._pick_several(candidates, scores)
        if len(scores) > FEW:
            best: list[int] = (scores == scores.max()).nonzero()[0].tolist()
        else:
            values = scores.tolist()
            highest = max(values)
            best = [index for index, value in enumerate(values) if value == highest]
        return [one_of(best, candidates.rng)]

    def _pick_several(self, candidates: Candidates, scores: Column) -> list[int]:
        """Only those that are picked are put in order, which is few of many."""
        count = min(self.max_endpoints, len(scores))
        lowest = np.partition(scores, -count)[-count]
        picked: list[int] = (scores > lowest).nonzero()[0].tolist()
        ties: list[int] = (scores == lowest).nonzero()[0].tolist()
        picked += candidates.rng.sample(ties, count - len(picked))
        candidates.rng.shuffle(picked)
        picked.sort(key=scores.__getitem__, reverse=True)
        return picked


MAX_SCORE_PICKER = PluginDefinition(
    type="max-score-picker",
    summary="Picks the endpoint with the highest sum of scores, ties by chance.",
    make=lambda parameters, context: MaxScorePicker(parameters.max_num_of_endpoints),
    parameters=PickerParameters,
    explains=EXPLAINS,
)
