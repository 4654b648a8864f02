"""Who waits for the flow control's decision, and what it is given when its request goes."""

from typing import Protocol

from epp.core.flow.band import Band
from epp.core.flow.flows import Flow
from epp.core.pool import Lease
from epp.core.request import Outcome

__all__ = ["Charge", "Waiter"]


class Charge:
    """What a running request was charged, to be settled when it ends."""

    __slots__ = ("band", "cost", "flow", "since_s")

    def __init__(self, band: Band, flow: Flow, cost: int, since_s: float) -> None:
        self.band = band
        self.flow = flow
        self.cost = cost
        self.since_s = since_s


class Waiter(Protocol):
    """Who waits for the decision on a request: exactly one of the first two is called, once."""

    def dispatched(self, lease: Lease, charge: Charge, waited_s: float, now: float) -> None:
        """The request goes to ``lease.endpoint``; the waiter now owns lease and charge."""

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """The request does not go; ``retry_after_s`` is the advice for the client, whole
        seconds."""

    def evicted(self, retry_after_s: int, now: float) -> None:
        """The request was dispatched and is to end now, for one that matters more. The waiter
        still owns lease and charge, until it has ended."""
