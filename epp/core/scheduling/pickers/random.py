"""``random-picker``: any candidate, whatever the scores."""

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import PluginDefinition
from epp.core.scheduling.pickers.parameters import EXPLAINS, PickerParameters

__all__ = ["RANDOM_PICKER", "RandomPicker"]


class RandomPicker:
    """Picks ``max_endpoints`` candidates, each as likely as any other."""

    def __init__(self, max_endpoints: int = 1) -> None:
        self._max_endpoints = max_endpoints

    def pick(self, candidates: Candidates, scores: Column) -> list[int]:
        """Return the indices of some, in order."""
        count = len(scores)
        return candidates.rng.sample(range(count), min(self._max_endpoints, count))


RANDOM_PICKER = PluginDefinition(
    type="random-picker",
    summary="Picks an endpoint by chance, whatever the scores.",
    make=lambda parameters, context: RandomPicker(parameters.max_num_of_endpoints),
    parameters=PickerParameters,
    explains=EXPLAINS,
)
