"""``cheap-zone-scorer``: prefers endpoints in a zone that costs less."""

from typing import Annotated

import msgspec
import numpy as np

from epp.core.pool import Column
from epp.core.scheduling import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition

__all__ = ["CHEAP_ZONE_SCORER", "CheapZoneScorer"]


class CheapZoneParameters(Parameters, frozen=True, kw_only=True):
    """Of ``cheap-zone-scorer``."""

    zones: dict[str, Annotated[float, msgspec.Meta(ge=0, description="a price of at least 0")]]
    label: str = "topology.kubernetes.io/zone"


class CheapZoneScorer:
    """``score = least price / price``; 0 in zones without a price."""

    def __init__(self, prices: dict[str, float], label: str) -> None:
        self._prices = prices
        self._label = label

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        zones = [endpoint.labels.get(self._label, "") for endpoint in candidates.endpoints()]
        prices = np.array([self._prices.get(zone, np.inf) for zone in zones])
        scores: Column = min(self._prices.values()) / prices
        return scores


def _make(parameters: CheapZoneParameters, context: PluginContext) -> CheapZoneScorer:
    if not parameters.zones:
        raise ValueError("found no zones; expected one at least")
    return CheapZoneScorer(parameters.zones, parameters.label)


CHEAP_ZONE_SCORER = PluginDefinition(
    type="cheap-zone-scorer",
    summary="Prefers endpoints in a zone that costs less.",
    make=_make,
    parameters=CheapZoneParameters,
    explains={
        "zones": "The price of each zone.",
        "label": "The endpoints' label with their zone.",
    },
)
