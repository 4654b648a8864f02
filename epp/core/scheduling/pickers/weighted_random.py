"""``weighted-random-picker``: by chance, the better the likelier."""

import math
import random
from heapq import nlargest

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.pickers.parameters import EXPLAINS, PickerParameters

__all__ = ["WEIGHTED_RANDOM_PICKER", "WeightedRandomPicker"]


class WeightedRandomPicker:
    """Picks ``max_endpoints`` candidates, the first with probability ``score / sum(scores)``, each
    further one likewise among those that are left.

    Who has no score above 0 comes after all who have; among those all are equally likely. Source:
    A-Res of Efraimidis and Spirakis (2006), which takes the highest ``U ** (1 / score)``. Here it
    is their logarithm, ``log(U) / score``, which orders alike: the power is 0 for many small scores
    at once.
    """

    def __init__(self, max_endpoints: int = 1) -> None:
        self._max_endpoints = max_endpoints

    def pick(self, candidates: Candidates, scores: Column) -> list[int]:
        """Return the indices of some, in order."""
        rng = candidates.rng
        keys = [_key(score, rng) for score in scores.tolist()]
        return nlargest(self._max_endpoints, range(len(keys)), key=keys.__getitem__)


def _key(score: float, rng: random.Random) -> tuple[bool, float]:
    drawn = 1.0 - rng.random()  # above 0
    return (True, math.log(drawn) / score) if score > 0 else (False, drawn)


WEIGHTED_RANDOM_PICKER = PluginDefinition(
    type="weighted-random-picker",
    summary="Picks an endpoint by chance, with probabilities in proportion to the sums of scores.",
    make=lambda parameters, context: WeightedRandomPicker(parameters.max_num_of_endpoints),
    parameters=PickerParameters,
    explains=EXPLAINS,
)
