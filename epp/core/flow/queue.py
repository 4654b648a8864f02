"""The waiting requests of one priority, in order of arrival.

Requests with the same candidates (the gateway's subset hint, or all endpoints) share a lane, since
when the head of a lane cannot be placed nobody behind it can. So a decision looks at one head per
lane, however many requests wait, and a head that cannot go anywhere blocks only those that could
not either.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from epp.core.request import Request

if TYPE_CHECKING:
    from epp.core.flow.controller import Waiter
    from epp.core.timers import Timer

__all__ = ["Band", "Lane", "Ticket"]

LaneKey: TypeAlias = frozenset[str] | None


class Ticket:
    """A request's place in the queue. ``sequence`` is its order of arrival, over all bands."""

    __slots__ = ("entered_s", "is_waiting", "request", "sequence", "timer", "waiter")

    def __init__(self, request: Request, waiter: "Waiter", sequence: int, entered_s: float):
        self.request = request
        self.waiter = waiter
        self.sequence = sequence
        self.entered_s = entered_s
        self.is_waiting = True
        self.timer: Timer | None = None

    @property
    def deadline_s(self) -> float | None:
        """When the wait is over at the latest, None where it has no end."""
        return None if self.timer is None else self.timer.deadline_s


Lane: TypeAlias = OrderedDict[int, Ticket]


class Band:
    """All waiting requests of one priority; first come, first served."""

    __slots__ = ("_lanes", "bytes", "priority", "requests")

    def __init__(self, priority: int):
        self.priority = priority
        self.requests = 0
        self.bytes = 0
        self._lanes: dict[LaneKey, Lane] = {}

    def __iter__(self) -> Iterator[Ticket]:
        """Yield the waiting tickets, lane by lane."""
        for lane in self._lanes.values():
            yield from lane.values()

    def add(self, ticket: Ticket) -> None:
        """Put a ticket at the end of its lane."""
        lane = self._lanes.setdefault(ticket.request.subset, OrderedDict())
        lane[ticket.sequence] = ticket
        self.requests += 1
        self.bytes += ticket.request.body_bytes

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands, in constant time."""
        key = ticket.request.subset
        lane = self._lanes[key]
        del lane[ticket.sequence]
        if not lane:
            del self._lanes[key]
        self.requests -= 1
        self.bytes -= ticket.request.body_bytes

    def heads(self) -> list[Ticket]:
        """Return the oldest ticket of each lane, oldest first."""
        heads = [next(iter(lane.values())) for lane in self._lanes.values()]
        if len(heads) > 1:
            heads.sort(key=_arrival)
        return heads

    def youngest(self) -> Iterator[Ticket]:
        """Yield the tickets, the youngest of the band first."""
        if len(self._lanes) == 1:
            (lane,) = self._lanes.values()
            yield from reversed(lane.values())
        else:
            yield from sorted(self, key=_arrival, reverse=True)


def _arrival(ticket: Ticket) -> int:
    return ticket.sequence
