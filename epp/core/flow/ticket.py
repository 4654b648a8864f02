"""A request's place in the queue."""

from typing import TYPE_CHECKING

from epp.core.request import Request

if TYPE_CHECKING:
    from epp.core.flow.flows import Flow, LaneKey
    from epp.core.flow.waiter import Waiter
    from epp.core.timers import Timer

__all__ = ["Ticket"]


class Ticket:
    """A request that waits.

    ``sequence`` is its order of arrival, over all bands; ``rank`` its order within its flow, where
    less goes first; ``lane`` the lane in which it stands; ``cost`` what it is expected to cost its
    flow.
    """

    __slots__ = ("cost", "entered_s", "flow", "is_waiting", "lane", "rank", "request", "sequence",
                 "timer", "waiter")  # fmt: skip

    def __init__(
        self,
        request: Request,
        waiter: "Waiter",
        sequence: int,
        entered_s: float,
        flow: "Flow",
        cost: int,
    ) -> None:
        self.request = request
        self.flow = flow
        self.waiter = waiter
        self.sequence = sequence
        self.entered_s = entered_s
        self.cost = cost
        self.rank = 0.0
        self.lane: LaneKey = (request.subset, None)
        self.is_waiting = True
        self.timer: Timer | None = None

    @property
    def deadline_s(self) -> float | None:
        """When the wait is over at the latest, None where it has no end."""
        return None if self.timer is None else self.timer.deadline_s
