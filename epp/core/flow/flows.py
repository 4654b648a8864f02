"""A flow: all requests of one tenant at one priority, those that wait and those that run."""

import heapq
from collections.abc import Hashable
from typing import TypeAlias

from epp.core.flow.ticket import Ticket

__all__ = ["Flow", "FlowQueue", "LaneKey"]

LaneKey: TypeAlias = tuple[frozenset[str] | None, Hashable]
"""What tells requests with different candidates apart: the gateway's hint, None for all, and the
kind of request that it is for the scheduler."""

_REBUILD_ABOVE = 64


class FlowQueue:
    """The waiting requests of one flow that have the same candidates, in the order of their ranks.

    Those that leave from the middle stay in the heap, dead, until they get to its top or the heap
    is more than half dead. ``entry`` is this queue's valid entry in the heap of its lane.
    """

    __slots__ = ("_heap", "entry", "flow", "requests")

    def __init__(self, flow: "Flow") -> None:
        self.flow = flow
        self.requests = 0
        self.entry: tuple[float, int, int, FlowQueue] | None = None
        self._heap: list[tuple[float, int, Ticket]] = []

    def add(self, ticket: Ticket) -> bool:
        """Take a ticket in; return whether it is the head now."""
        heapq.heappush(self._heap, (ticket.rank, ticket.sequence, ticket))
        self.requests += 1
        return self._heap[0][2] is ticket

    def remove(self, ticket: Ticket) -> bool:
        """Let a ticket go that waits no more; return whether it was the head."""
        heap = self._heap
        self.requests -= 1
        if heap[0][2] is ticket:
            heapq.heappop(heap)
            while heap and not heap[0][2].is_waiting:
                heapq.heappop(heap)
            return True
        if len(heap) > _REBUILD_ABOVE and len(heap) > 2 * self.requests:
            self._heap = [entry for entry in heap if entry[2].is_waiting]
            heapq.heapify(self._heap)
        return False

    def reorder(self) -> None:
        """Put the tickets in order anew, since their ranks have changed."""
        self._heap = [
            (each.rank, each.sequence, each) for *_, each in self._heap if each.is_waiting
        ]
        heapq.heapify(self._heap)

    def head(self) -> Ticket:
        """Return the ticket that goes first."""
        return self._heap[0][2]


class Flow:
    """What is known of a flow.

    ``virtual_time`` is the service that it was charged with, by weight; ``turn`` its place in a
    round. ``cost`` is what waits, ``unsettled`` what was charged for requests that run, ``served``
    what those cost that have ended, all in the cost's units. It has waiting requests since
    ``backlogged_s``, when its virtual time was ``backlogged_at``.
    """

    __slots__ = ("backlogged_at", "backlogged_s", "bytes", "cost", "id", "queues", "requests",
                 "running", "served", "turn", "unsettled", "virtual_time", "weight")  # fmt: skip

    def __init__(self, flow_id: str, weight: float) -> None:
        self.id = flow_id
        self.weight = weight
        self.virtual_time = 0.0
        self.backlogged_at = 0.0
        self.backlogged_s = 0.0
        self.turn = 0
        self.requests = 0
        self.bytes = 0
        self.cost = 0
        self.running = 0
        self.unsettled = 0
        self.served = 0
        self.queues: dict[LaneKey, FlowQueue] = {}
