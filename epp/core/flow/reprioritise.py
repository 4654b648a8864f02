"""Moving what waits to other bands, because its objective has another priority by now.

A request that moves stands in its new band as though it had come with that priority: it keeps its
time of arrival, hence its place among the others of its flow, and its budget is the one of the new
band, from its arrival on. Nobody is turned away for it: a band that is full takes in those who
come from another all the same, and is over its bound until it has drained. What its flow owes in
the band that it leaves, it owes there; in the other one it begins to wait, if nothing of it did.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from msgspec import structs

from epp.core.flow.band import Band
from epp.core.flow.bands import Bands
from epp.core.flow.deadlines import Deadlines
from epp.core.flow.flows import FlowQueue, LaneKey
from epp.core.flow.ticket import Ticket
from epp.core.flow.usage_limits import UsageLimits
from epp.core.request import Request

__all__ = ["reprioritise"]


def reprioritise(
    bands: Bands,
    deadlines: Deadlines,
    usage: UsageLimits,
    lane_of: Callable[[Request], LaneKey],
    priorities: Mapping[str, int],
    now: float,
) -> None:
    """Have all that waits and names one of these objectives wait with the priority given for it.

    Costs time in proportion to what waits at all, and ``n·log n`` in what moves.
    """
    if not priorities:
        return
    leaving = _leaving(bands, priorities)
    moving = sorted((each for every in leaving.values() for each in every), key=_arrival)
    # All leave before any arrives: two objectives may have exchanged their priorities.
    for band, tickets in leaving.items():
        _let_go(band, tickets)
        usage.left(band, now)
    entered = {}
    for ticket in moving:
        request = ticket.request
        flow_key = request.flow._replace(priority=priorities[request.objective])
        ticket.request = structs.replace(request, flow=flow_key)
        band = entered[flow_key.priority] = bands[flow_key.priority]
        ticket.flow = band.flow(flow_key.fairness_id)
        ticket.lane = lane_of(ticket.request)
        deadlines.set(ticket)
        band.add(ticket, ticket.deadline_s, now)
    for band in entered.values():
        band.sort_by_arrival()
        usage.arrived(band)
    bands.backlog(not deadlines.pool_is_empty, now)


def _leaving(bands: Bands, priorities: Mapping[str, int]) -> dict[Band, list[Ticket]]:
    """Return who is to leave which band, in the order of arrival."""
    leaving: dict[Band, list[Ticket]] = defaultdict(list)
    for band in bands.descending:
        for ticket in band:
            if priorities.get(ticket.request.objective, band.priority) != band.priority:
                leaving[band].append(ticket)
    return leaving


def _let_go(band: Band, tickets: Sequence[Ticket]) -> None:
    """Take tickets out of a band that wait on elsewhere."""
    queues: set[FlowQueue] = set()
    for ticket in tickets:
        queues.add(ticket.flow.queues[ticket.lane])
        ticket.is_waiting = False
        band.remove(ticket)
    for queue in queues:
        queue.reorder()  # so that none is left in it whose ticket is about to wait again
    for ticket in tickets:
        ticket.is_waiting = True


def _arrival(ticket: Ticket) -> int:
    return ticket.sequence
