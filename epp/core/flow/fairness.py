"""Which flow of a band goes next.

A policy ranks flows: the lowest rank goes first, ties go to the older head. It is told when a flow
begins to wait and when it is dispatched from; what it remembers, it keeps on the flow.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from epp.core.flow.flows import Flow
from epp.core.flow.options import Fairness
from epp.core.flow.ticket import Ticket

__all__ = ["FAIRNESS_POLICIES", "FairnessPolicy", "GlobalStrict", "RoundRobin", "WeightedFair"]


class FairnessPolicy(Protocol):
    """The order among the flows of one band."""

    @property
    def virtual_time(self) -> float:
        """The service that every flow is taken to have had: who had more, owes the rest."""

    def rank(self, flow: Flow, head: Ticket) -> float:
        """Return the flow's rank with this ticket at its head."""

    def began_to_wait(self, flow: Flow) -> None:
        """The flow has waiting requests, and had none."""

    def dispatched(self, flow: Flow, served_to: float) -> None:
        """A request of the flow was dispatched; its charge is still to come. ``served_to`` is the
        rank up to which the band was served with it."""

    def cost_ahead(self, flow: Flow, flow_cost: float, others: int, band_weight: float) -> float:
        """Return how much of the band's waiting work is likely to go before a newcomer of the flow.

        ``flow_cost`` is what waits of the flow, the newcomer counted as a typical request,
        ``others`` all that waits without it, ``band_weight`` the sum of the weights of the flows
        that wait.
        """

    def reset(self) -> None:
        """The band is idle: nothing of it waits or runs, and nothing is remembered."""


class WeightedFair:
    """Fair queueing by start tags with estimated, then settled costs.

    The rank is the flow's virtual time: the service it was charged with, divided by its weight.
    A flow that begins to wait starts at the band's virtual time ``V``, that of the flow dispatched
    last, so it banks no credit. Sources: start-time fair queueing (Goyal et al., SIGCOMM 1996) for
    the tags, the virtual token counter (Sheng et al., OSDI 2024) for the lift and the cost of an
    inference, Kubernetes' priority and fairness for estimating and settling.
    """

    def __init__(self) -> None:
        self.virtual_time = 0.0

    def rank(self, flow: Flow, head: Ticket) -> float:
        """Return the flow's virtual time."""
        return flow.virtual_time

    def began_to_wait(self, flow: Flow) -> None:
        """Lift the flow to the band's virtual time."""
        flow.virtual_time = max(flow.virtual_time, self.virtual_time)

    def dispatched(self, flow: Flow, served_to: float) -> None:
        """Advance the band's virtual time."""
        self.virtual_time = max(self.virtual_time, served_to)

    def cost_ahead(self, flow: Flow, flow_cost: float, others: int, band_weight: float) -> float:
        """Return what all flows together get until the flow has got as much, and not more than
        waits."""
        end = max(flow.virtual_time, self.virtual_time) + flow_cost / flow.weight
        return min(float(others), (end - self.virtual_time) * band_weight)

    def reset(self) -> None:
        """Begin at zero."""
        self.virtual_time = 0.0


class RoundRobin:
    """One request of each flow in turn, whatever it costs: nobody ever owes anything."""

    virtual_time: Final = math.inf

    def __init__(self) -> None:
        self._turn = 0

    def rank(self, flow: Flow, head: Ticket) -> float:
        """Return the flow's place in the round."""
        return flow.turn

    def began_to_wait(self, flow: Flow) -> None:
        """Put the flow at the end of the round."""
        self._to_the_end(flow)

    def dispatched(self, flow: Flow, served_to: float) -> None:
        """Put the flow at the end of the round."""
        self._to_the_end(flow)

    def cost_ahead(self, flow: Flow, flow_cost: float, others: int, band_weight: float) -> float:
        """Return as much from each flow as waits of this one, and not more than waits."""
        return min(float(others), flow_cost / flow.weight * band_weight)

    def reset(self) -> None:
        """Begin a new round."""
        self._turn = 0

    def _to_the_end(self, flow: Flow) -> None:
        self._turn += 1
        flow.turn = self._turn


class GlobalStrict:
    """No fairness: the first request of the whole band, in the order of its flows."""

    virtual_time: Final = math.inf

    def rank(self, flow: Flow, head: Ticket) -> float:
        """Return the rank of the flow's first request."""
        return head.rank

    def began_to_wait(self, flow: Flow) -> None:
        """Nothing changes."""

    def dispatched(self, flow: Flow, served_to: float) -> None:
        """Nothing changes."""

    def cost_ahead(self, flow: Flow, flow_cost: float, others: int, band_weight: float) -> float:
        """Return all that waits."""
        return float(others)

    def reset(self) -> None:
        """Nothing changes."""


FAIRNESS_POLICIES: Final[Mapping[Fairness, type[FairnessPolicy]]] = MappingProxyType(
    {"weighted-fair": WeightedFair, "round-robin": RoundRobin, "global-strict": GlobalStrict}
)
"""The policies by name."""
