"""The waiting requests of one priority, and what its flows were served.

Requests with the same candidates (the gateway's subset hint, or all endpoints) that are of one kind
for the scheduler share a lane, since what one of them cannot use none of them can. In a lane each
flow stands once, with the first of its requests, in the order of the fairness policy. So a decision
looks at the top of each lane, however many requests and flows wait.
"""

import heapq
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping

from epp.core.flow.drain_rate import DrainRate
from epp.core.flow.fairness import FAIRNESS_POLICIES
from epp.core.flow.flows import Flow, FlowQueue, LaneKey
from epp.core.flow.options import BandOptions
from epp.core.flow.ordering import ORDERINGS
from epp.core.flow.ticket import Ticket
from epp.core.request import Request

__all__ = ["Band", "Lane"]

_REBUILD_ABOVE = 64
_LONG_S = 1.0


class Lane:
    """The flows that have waiting requests with the same candidates, the next one first.

    A flow whose rank has changed gets a new entry; the old one stays in the heap until it gets to
    its top, or the heap is more than half outdated.
    """

    __slots__ = ("_entries", "_heap", "arrivals", "queues")

    def __init__(self) -> None:
        self.queues: dict[str, FlowQueue] = {}
        self.arrivals: OrderedDict[int, Ticket] = OrderedDict()
        self._heap: list[tuple[float, int, int, FlowQueue]] = []
        self._entries = 0

    def put(self, queue: FlowQueue, rank: float) -> None:
        """Have a queue stand by this rank from now on."""
        self._entries += 1
        entry = (rank, queue.head().sequence, self._entries, queue)
        queue.entry = entry
        heap = self._heap
        heapq.heappush(heap, entry)
        if len(heap) > _REBUILD_ABOVE and len(heap) > 2 * len(self.queues):
            self._heap = [each for each in heap if each[3].entry is each]
            heapq.heapify(self._heap)

    def oldest(self) -> Ticket:
        """Return the ticket that has waited for longest."""
        return next(iter(self.arrivals.values()))

    def first(self) -> FlowQueue:
        """Return the queue that goes first."""
        heap = self._heap
        while heap[0][3].entry is not heap[0]:
            heapq.heappop(heap)
        return heap[0][3]

    def first_entry(self) -> tuple[float, int]:
        """Return rank and arrival of the request that goes first."""
        self.first()
        return self._heap[0][:2]

    def in_order(self, most: int) -> list[FlowQueue]:
        """Return the first queues, not more than ``most``, in order."""
        taken: list[tuple[float, int, int, FlowQueue]] = []
        heap = self._heap
        while heap and len(taken) < most:
            entry = heapq.heappop(heap)
            if entry[3].entry is entry:
                taken.append(entry)
        for entry in taken:
            heapq.heappush(heap, entry)
        return [entry[3] for entry in taken]


class Band:
    """All flows of one priority.

    ``requests``, ``bytes`` and ``cost`` are what waits, ``running`` what runs. At most
    ``max_flows`` flows are told apart; more share ``shared_flows`` by a hash of their ids, but for
    those that have a weight of their own.
    """

    def __init__(
        self,
        priority: int,
        options: BandOptions,
        *,
        weights: Mapping[str, float],
        max_flows: int,
        shared_flows: int,
    ) -> None:
        self.priority = priority
        self.options = options
        self.requests = 0
        self.bytes = 0
        self.cost = 0
        self.running = 0
        self.share_credit = 0.0
        self.drain_rate = DrainRate()
        self.lanes: dict[LaneKey, Lane] = {}
        self.flows: dict[str, Flow] = {}
        self.arrivals: OrderedDict[int, Ticket] = OrderedDict()
        self.policy = FAIRNESS_POLICIES[options.fairness]()
        self._weight = 0.0
        self._indebted: list[tuple[float, str]] = []
        self.reconfigure(options, weights=weights, max_flows=max_flows, shared_flows=shared_flows)

    def reconfigure(
        self,
        options: BandOptions,
        *,
        weights: Mapping[str, float],
        max_flows: int,
        shared_flows: int,
    ) -> None:
        """Go by other options from now on. With another fairness policy all flows begin anew: none
        owes anything. To be followed by :meth:`deadlines_changed`."""
        policy = FAIRNESS_POLICIES[options.fairness]
        self.options = options
        self._rank_in_flow = ORDERINGS[options.ordering]
        self._weights = weights
        self._max_flows = max_flows
        self._shared_flows = shared_flows
        for flow in self.flows.values():
            flow.weight = weights.get(flow.id, 1.0)
        self._weight = sum(flow.weight for flow in self.flows.values() if flow.requests)
        if not isinstance(self.policy, policy):
            self.policy = policy()
            self._indebted.clear()
            for flow in self.flows.values():
                flow.virtual_time = 0.0
                flow.backlogged_at = 0.0
            for flow in dict.fromkeys(ticket.flow for ticket in self):
                self.policy.began_to_wait(flow)

    def __iter__(self) -> Iterator[Ticket]:
        """Yield the waiting tickets in order of arrival."""
        return iter(self.arrivals.values())

    def oldest(self) -> Ticket:
        """Return the ticket that has waited for longest."""
        return next(iter(self.arrivals.values()))

    def youngest(self) -> Iterator[Ticket]:
        """Yield the tickets, the youngest first."""
        return reversed(self.arrivals.values())

    def flow(self, fairness_id: str) -> Flow:
        """Return the flow that accounts for this id."""
        flow = self.flows.get(fairness_id)
        if flow is None:
            flow_id = fairness_id
            if len(self.flows) >= self._max_flows and fairness_id not in self._weights:
                flow_id = f"shared-{zlib.crc32(fairness_id.encode()) % self._shared_flows}"
                flow = self.flows.get(flow_id)
                if flow is not None:
                    return flow
            flow = self.flows[flow_id] = Flow(flow_id, self._weights.get(flow_id, 1.0))
        return flow

    def cost_ahead(self, ticket: Ticket) -> float:
        """Return how much waiting work of the band is likely to go before a newcomer, the last of
        its flow."""
        # One request of each other flow may go in the newcomer's own turn. Its length says nothing
        # of theirs: where it is longer, it counts as one of them.
        others = self.cost - ticket.cost
        typical = min(ticket.cost, others / max(1, self.requests - 1))
        flow_cost = ticket.flow.cost - ticket.cost + typical
        return self.policy.cost_ahead(ticket.flow, flow_cost, others, self._weight)

    def fairness(self, now: float) -> float | None:
        """Return Jain's index ``(Σx)² / (n·Σx²)`` over the flows that have waited for a second or
        longer without a break, ``x`` being the service that each got per second since, by weight.

        1 where all got the same, ``1/n`` where one got all, None where nobody waits for so long.
        """
        rates = [
            (flow.virtual_time - flow.backlogged_at) / (now - flow.backlogged_s)
            for flow in self.flows.values()
            if flow.requests and now - flow.backlogged_s >= _LONG_S
        ]
        squares = sum(rate * rate for rate in rates)
        return sum(rates) ** 2 / (len(rates) * squares) if squares else None

    # The queue

    def add(self, ticket: Ticket, deadline_s: float | None, since_s: float | None = None) -> None:
        """Let a ticket wait; ``deadline_s`` is the end of its budget, ``since_s`` when it began to
        wait in this band, if not when it entered the queue."""
        request, flow = ticket.request, ticket.flow
        ticket.rank = self._rank_in_flow(request, ticket.entered_s, deadline_s)
        if not flow.requests:
            self.policy.began_to_wait(flow)
            flow.backlogged_at = flow.virtual_time
            flow.backlogged_s = ticket.entered_s if since_s is None else since_s
            self._weight += flow.weight
        self._count(ticket, flow, 1)
        self.arrivals[ticket.sequence] = ticket
        self._line_up(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out, wherever it stands; it must have been marked as not waiting."""
        flow = self._take_out(ticket)
        self.forget_if_idle(flow)

    def sort_into_lanes(self, lane_of: Callable[[Request], LaneKey]) -> None:
        """Have all that waits stand in the lanes that are theirs by now."""
        lanes = [lane_of(ticket.request) for ticket in self]
        if all(ticket.lane == lane for ticket, lane in zip(self, lanes, strict=True)):
            return
        self.lanes.clear()
        for ticket, lane in zip(self, lanes, strict=True):
            ticket.lane = lane
            ticket.flow.queues.clear()
        for ticket in self:
            self._line_up(ticket)

    def sort_by_arrival(self) -> None:
        """Put those in order who have come from another band, where they had arrived before."""
        for arrivals in (self.arrivals, *[lane.arrivals for lane in self.lanes.values()]):
            order = sorted(arrivals)
            if order != list(arrivals):
                for sequence in order:
                    arrivals.move_to_end(sequence)

    def deadlines_changed(self) -> None:
        """Put all that waits in order anew, since the ends of the budgets are others now."""
        for ticket in self:
            ticket.rank = self._rank_in_flow(ticket.request, ticket.entered_s, ticket.deadline_s)
        for lane in self.lanes.values():
            for queue in lane.queues.values():
                queue.reorder()
                lane.put(queue, self.policy.rank(queue.flow, queue.head()))

    def dispatch(self, ticket: Ticket, charge: int, *, in_turn: bool) -> None:
        """Take a ticket out that runs from now on, and charge its flow. ``in_turn`` is whether it
        was the first by the fairness policy of those that could go."""
        flow = ticket.flow
        self._begin(flow, charge, flow.virtual_time if in_turn else self._served_to(flow))
        self._take_out(ticket)
        self._renew(flow)

    def admit(self, flow: Flow, charge: int) -> None:
        """Charge a flow for a request that runs from now on and has not waited."""
        if not flow.requests:
            self.policy.began_to_wait(flow)
        self._begin(flow, charge, self._served_to(flow))
        self._renew(flow)

    def raise_charge(self, flow: Flow, more: int) -> None:
        """Charge a flow for what a running request has already used beyond its charge."""
        self._charge(flow, more)
        self._renew(flow)

    def settle(self, flow: Flow, charged: int, actual: int) -> None:
        """Let a running request end that was charged so much and has cost so much."""
        flow.virtual_time += (actual - charged) / flow.weight
        flow.unsettled -= charged
        flow.served += actual
        flow.running -= 1
        self.running -= 1
        self._renew(flow)
        self.forget_if_idle(flow)

    # Bookkeeping

    def _line_up(self, ticket: Ticket) -> None:
        flow, key = ticket.flow, ticket.lane
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane()
        lane.arrivals[ticket.sequence] = ticket
        queue = lane.queues.get(flow.id)
        if queue is None:
            queue = lane.queues[flow.id] = flow.queues[key] = FlowQueue(flow)
        if queue.add(ticket):
            lane.put(queue, self.policy.rank(flow, ticket))

    def _served_to(self, flow: Flow) -> float:
        """Return the lowest rank of all flows that wait, and of this one: what goes out of turn
        does not make others owe what its flow owes."""
        ranks = [lane.first_entry()[0] for lane in self.lanes.values()]
        return min([flow.virtual_time, *ranks])

    def _begin(self, flow: Flow, charge: int, served_to: float) -> None:
        """Let a request of a flow run, with which the band is served up to this rank."""
        self.policy.dispatched(flow, served_to)
        self._charge(flow, charge)
        flow.running += 1
        self.running += 1

    def _charge(self, flow: Flow, cost: int) -> None:
        flow.virtual_time += cost / flow.weight
        flow.unsettled += cost

    def _count(self, ticket: Ticket, flow: Flow, sign: int) -> None:
        volume = sign * ticket.request.body_bytes
        cost = sign * ticket.cost
        for each in (self, flow):
            each.requests += sign
            each.bytes += volume
            each.cost += cost

    def _take_out(self, ticket: Ticket) -> Flow:
        flow = ticket.flow
        self._count(ticket, flow, -1)
        del self.arrivals[ticket.sequence]
        key = ticket.lane
        lane = self.lanes[key]
        del lane.arrivals[ticket.sequence]
        queue = lane.queues[flow.id]
        was_head = queue.remove(ticket)
        if not queue.requests:
            queue.entry = None
            del lane.queues[flow.id], flow.queues[key]
            if not lane.queues:
                del self.lanes[key]
        elif was_head:
            lane.put(queue, self.policy.rank(flow, queue.head()))
        if not flow.requests:
            self._weight = self._weight - flow.weight if self.requests else 0.0
        return flow

    def _renew(self, flow: Flow) -> None:
        """Have the flow stand by its present rank in all its lanes."""
        for key, queue in flow.queues.items():
            rank = self.policy.rank(flow, queue.head())
            if queue.entry is None or queue.entry[0] != rank:
                self.lanes[key].put(queue, rank)

    def forget_if_idle(self, flow: Flow) -> None:
        """Forget a flow that has nothing left, unless it was served beyond the others' measure:
        what it owes is remembered until they have caught up, or nobody waits or runs any more."""
        if not self.requests and not self.running:
            self.flows.clear()
            self._indebted.clear()
            self.policy.reset()
            return
        indebted = self._indebted
        if not flow.requests and not flow.running:
            heapq.heappush(indebted, (flow.virtual_time, flow.id))
            if len(indebted) > _REBUILD_ABOVE and len(indebted) > 2 * len(self.flows):
                idle = (each for each in self.flows.values() if not each.requests)
                self._indebted = indebted = [(each.virtual_time, each.id) for each in idle]
                heapq.heapify(indebted)
        while indebted and indebted[0][0] <= self.policy.virtual_time:
            known = self.flows.get(heapq.heappop(indebted)[1])
            if known is None or known.requests or known.running:
                continue
            if known.virtual_time <= self.policy.virtual_time:
                del self.flows[known.id]
