"""The policies that a scenario can be run under, by name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from epp.core.flow import BandOptions, CostOptions, FlowOptions
from epp.core.flow.cost import CostModel
from epp.core.request import Request
from epp.simulation.scenario import PolicyName, Scenario

if TYPE_CHECKING:
    from epp.core.flow.options import Fairness

__all__ = ["KnownLengths", "flow_options"]


class KnownLengths(CostModel):
    """A cost model that need not estimate: it knows the lengths of all outputs.

    ``output_tokens`` has them by the number that is the request's id.
    """

    def __init__(self, options: CostOptions, output_tokens: Sequence[int]) -> None:
        super().__init__(options)
        self._known = output_tokens

    def output_tokens(self, request: Request) -> float:
        """Return how many output tokens the request will have."""
        return self._known[int(request.id)]


def flow_options(scenario: Scenario, policy: PolicyName) -> FlowOptions:
    """Return the scenario's flow options under a policy."""
    flow = msgspec.structs.replace(scenario.flow, weights=scenario.weights)
    if policy == "configured":
        return flow
    fairness: Fairness = "weighted-fair" if policy == "oracle" else policy

    def under(band: BandOptions) -> BandOptions:
        return msgspec.structs.replace(band, fairness=fairness)

    return msgspec.structs.replace(
        flow,
        band=under(flow.band),
        negative_band=None if flow.negative_band is None else under(flow.negative_band),
        bands={priority: under(band) for priority, band in flow.bands.items()},
    )
