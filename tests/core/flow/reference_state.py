"""What the naive reference knows of requests, flows and bands."""

import msgspec

from epp.core.flow import BandOptions
from epp.core.request import Outcome, Request

__all__ = ["Decision", "ReferenceBand", "ReferenceFlow", "Running", "Waiting"]


class Decision(msgspec.Struct, frozen=True):
    """What the flow control decided on the request of a number, and when."""

    number: int
    outcome: Outcome
    at_s: float
    destination: str = ""
    waited_s: float = 0.0
    retry_after_s: int = 0


class Waiting(msgspec.Struct):
    """A request that waits. Numbers are given in order of arrival."""

    number: int
    request: Request
    entered_s: float
    cost: int

    @property
    def priority(self) -> int:
        return self.request.flow.priority


class Running(msgspec.Struct):
    """A request that runs."""

    request: Request
    destination: str
    charged: int


class ReferenceFlow(msgspec.Struct):
    """What a flow was charged with, by weight, and its place in a round."""

    weight: float
    virtual_time: float = 0.0
    turn: int = 0


class ReferenceBand:
    """One priority: what its flows were served."""

    def __init__(self, options: BandOptions) -> None:
        self.options = options
        self.virtual_time = 0.0
        self.turns = 0
        self.share_credit = 0.0
        self.flows: dict[str, ReferenceFlow] = {}
