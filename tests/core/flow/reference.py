"""The flow control once more, written as naively as its rules read: a list that is sorted anew.

It takes the decisions of the real one as they come and says of each whether it is the one that the
rules allow. What a request costs is not its business: it is told.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping

from msgspec import structs

from epp.core.flow import FlowOptions
from epp.core.request import FlowKey, Outcome, Request

from .reference_rate import ReferenceRate
from .reference_state import Decision, ReferenceBand, ReferenceFlow, Running, Waiting

__all__ = ["ReferenceQueue"]


class ReferenceQueue:
    """Rules R1 to R10, R14 and R15."""

    def __init__(
        self, options: FlowOptions, max_concurrency: int, cost_of: Callable[[Request], int]
    ) -> None:
        self.options = options
        self.limits = options.limits
        self.max_concurrency = max_concurrency
        self.members: set[str] = set()
        self.endpoint_limits: dict[str, int] = {}
        self.in_flight: dict[str, int] = {}
        self.waiting: list[Waiting] = []
        self.running: dict[int, Running] = {}
        self.decisions: deque[Decision] = deque()
        self.overrides: list[tuple[int, str]] = []
        self.is_draining = False
        self._cost_of = cost_of
        self._bands: dict[int, ReferenceBand] = {}
        self._rate = ReferenceRate()
        self._regime_since_s = -math.inf
        self._goes_at_once = False

    # What happens

    def offer(self, number: int, request: Request, now: float, since_s: float | None) -> None:
        entered_s = now if since_s is None else since_s
        newcomer = Waiting(number, request, entered_s, self._cost_of(request))
        if self.is_draining:
            self._expect(newcomer, Outcome.SHUTTING_DOWN, now)
        elif request.subset is not None and not request.subset & self.members:
            self._expect(newcomer, Outcome.REJECTED_NO_ENDPOINTS, now)
        else:
            is_first = not self.waiting and since_s is None
            self._goes_at_once = is_first and bool(self.with_room(request))
            if self._goes_at_once:
                self._rate.flows(now)
            else:
                self._rate.backlog(bool(self.members), now)
            self._begin_to_wait(newcomer)
            self.pump(now)
            if newcomer in self.waiting:
                self._let_wait_or_refuse(newcomer, now)

    def cancel(self, number: int, now: float) -> None:
        self._leave(next(entry for entry in self.waiting if entry.number == number), now)

    def pump(self, now: float) -> None:
        while (found := self._next(now)) is not None:
            first, rule = found
            room = self.with_room(first.request)
            decision = self._expect(first, Outcome.DISPATCHED, now)
            assert decision.destination in room
            least = min(self._load(where) for where in room)
            assert self._load(decision.destination) == least
            assert decision.waited_s == now - first.entered_s
            if rule is not None and any(
                e.priority > first.priority and self.with_room(e.request) for e in self.waiting
            ):
                self.overrides.append((first.priority, rule))
            self._dispatch(first, rule, decision.destination, now)

    def release(self, number: int, actual: int, now: float) -> None:
        ended = self.running.pop(number)
        self.in_flight[ended.destination] -= 1
        self._forget_endpoint(ended.destination)
        _, flow = self._flow(ended.request.flow)
        flow.virtual_time += (actual - ended.charged) / flow.weight
        self._reset_if_idle(ended.request.flow.priority)
        self.pump(now)

    def progress(self, number: int, accrued: int) -> None:
        running = self.running[number]
        more = max(0, accrued - running.charged)
        running.charged += more
        _, flow = self._flow(running.request.flow)
        flow.virtual_time += more / flow.weight

    def move(self, number: int, target: str, now: float) -> None:
        running = self.running[number]
        if target in self.members or self.in_flight.get(target):
            self.in_flight[target] = self.in_flight.get(target, 0) + 1
            self.in_flight[running.destination] -= 1
            self._forget_endpoint(running.destination)
            running.destination = target
            self.pump(now)

    def set_limit(self, where: str, limit: int, now: float) -> None:
        self.endpoint_limits[where] = limit
        self.pump(now)

    def set_members(self, members: set[str], now: float) -> None:
        if bool(members) != bool(self.members) and self.waiting:
            self._regime_since_s = now
        gone, self.members = self.members - members, members
        self._rate.backlog(bool(self.waiting and members), now)
        for where in gone:
            self._forget_endpoint(where)
        stranded = [
            entry
            for entry in self.waiting
            if entry.request.subset is not None and not entry.request.subset & members
        ]
        self._expect_in_any_order(stranded, Outcome.REJECTED_NO_ENDPOINTS, now)
        self.pump(now)

    def reprioritise(self, priorities: Mapping[str, int], now: float) -> None:
        new = priorities.get
        moving = [e for e in self.waiting if new(e.request.objective, e.priority) != e.priority]
        self.waiting = [entry for entry in self.waiting if entry not in moving]
        for entry in moving:
            self._reset_if_idle(entry.priority)
        for entry in moving:
            flow = entry.request.flow._replace(priority=priorities[entry.request.objective])
            entry.request = structs.replace(entry.request, flow=flow)
            self._begin_to_wait(entry)
        self.waiting.sort(key=lambda entry: entry.number)
        self.pump(now)

    def end_drain(self, now: float) -> None:
        self._expect_in_any_order(list(self.waiting), Outcome.SHUTTING_DOWN, now)

    def time_passed(self, start_s: float, now: float) -> None:
        """Whoever was due was told so, at the very deadline, or at once if that was over before."""
        outcome = Outcome.EXPIRED if self.members else Outcome.EXPIRED_NO_ENDPOINTS
        while (deadline_s := min(map(self.deadline_s, self.waiting), default=math.inf)) <= now:
            due = [entry for entry in self.waiting if self.deadline_s(entry) == deadline_s]
            self._expect_in_any_order(due, outcome, max(start_s, deadline_s))

    # What is

    def with_room(self, request: Request) -> set[str]:
        return {
            where
            for where in self.members
            if (request.subset is None or where in request.subset)
            and self.in_flight.get(where, 0) < self.limit_of(where)
        }

    def limit_of(self, where: str) -> int:
        return self.endpoint_limits.get(where, self.max_concurrency)

    def deadline_s(self, entry: Waiting) -> float:
        return max(entry.entered_s, self._regime_since_s) + self._budget_s(entry.request)

    def virtual_time(self, key: FlowKey) -> float:
        return self._flow(key)[1].virtual_time

    def _load(self, where: str) -> float:
        return self.in_flight.get(where, 0) / self.limit_of(where)

    def _budget_s(self, request: Request) -> float:
        general_s = self.limits.no_endpoint_wait_limit_s
        if self.members:
            of_band_s = self.options.band_of(request.flow.priority).wait_limit_s
            general_s = self.limits.wait_limit_s if of_band_s is None else of_band_s
        return min(
            math.inf if limit is None else limit for limit in (general_s, request.wait_limit_s)
        )

    def band(self, priority: int) -> ReferenceBand:
        if priority not in self._bands:
            self._bands[priority] = ReferenceBand(self.options.band_of(priority))
        return self._bands[priority]

    def _flow(self, key: FlowKey) -> tuple[ReferenceBand, ReferenceFlow]:
        band = self.band(key.priority)
        if key.fairness_id not in band.flows:
            weight = self.options.weights.get(key.fairness_id, 1.0)
            band.flows[key.fairness_id] = ReferenceFlow(weight)
        return band, band.flows[key.fairness_id]

    def _of_band(self, priority: int) -> list[Waiting]:
        return [entry for entry in self.waiting if entry.priority == priority]

    # Whose turn it is

    def _next(self, now: float) -> tuple[Waiting, str | None] | None:
        priorities = sorted({entry.priority for entry in self.waiting}, reverse=True)
        for priority in priorities:
            max_wait_s = self.options.band_of(priority).max_wait_s
            oldest = min(self._of_band(priority), key=lambda entry: entry.number)
            is_old = max_wait_s is not None and now - oldest.entered_s >= max_wait_s
            if is_old and self.with_room(oldest.request):
                return oldest, "max-wait"
        for priority in priorities:
            band = self.band(priority)
            is_due = band.share_credit + band.options.min_share >= 1.0
            if band.options.min_share and is_due and self._first(priority):
                return self._first(priority), "min-share"
        for priority in priorities:
            if self._first(priority):
                return self._first(priority), None
        return None

    def _first(self, priority: int) -> Waiting | None:
        """Return who of a band goes first: of the heads of each flow's lanes that can go."""
        waiting = self._of_band(priority)
        lanes = {(entry.request.flow, entry.request.subset) for entry in waiting}
        heads = [
            min(
                (e for e in waiting if (e.request.flow, e.request.subset) == lane),
                key=lambda entry: (self.rank_in_flow(entry), entry.number),
            )
            for lane in lanes
        ]
        heads = [entry for entry in heads if self.with_room(entry.request)]
        return min(heads, key=lambda e: (self._rank_of_flow(e), e.number), default=None)

    def rank_in_flow(self, entry: Waiting) -> float:
        match self.options.band_of(entry.priority).ordering:
            case "edf":
                return self.deadline_s(entry)
            case "slo-deadline":
                slo_s = entry.request.slo_ttft_s
                return math.inf if slo_s is None else entry.entered_s + slo_s
        return 0.0

    def _rank_of_flow(self, head: Waiting) -> float:
        band, flow = self._flow(head.request.flow)
        match band.options.fairness:
            case "weighted-fair":
                return flow.virtual_time
            case "round-robin":
                return flow.turn
        return self.rank_in_flow(head)

    def _begin_to_wait(self, newcomer: Waiting) -> None:
        band, flow = self._flow(newcomer.request.flow)
        if not any(entry.request.flow == newcomer.request.flow for entry in self.waiting):
            flow.virtual_time = max(flow.virtual_time, band.virtual_time)
            band.turns += 1
            flow.turn = band.turns
        self.waiting.append(newcomer)

    def _dispatch(self, entry: Waiting, rule: str | None, where: str, now: float) -> None:
        band, flow = self._flow(entry.request.flow)
        cost = self._cost_of(entry.request)
        served_to = flow.virtual_time
        if rule == "max-wait":
            flows = {other.request.flow for other in self._of_band(entry.priority)}
            served_to = min(self.virtual_time(key) for key in flows)
        band.virtual_time = max(band.virtual_time, served_to)
        band.turns += 1
        flow.turn = band.turns
        flow.virtual_time += cost / flow.weight
        self.running[entry.number] = Running(entry.request, where, cost)
        self.in_flight[where] = self.in_flight.get(where, 0) + 1
        if now > entry.entered_s:
            self._rate.dispatched(cost, now)
        self._leave(entry, now)
        if not self._goes_at_once:
            self._count_shares(band)
        self._goes_at_once = False

    def _count_shares(self, dispatched: ReferenceBand) -> None:
        for priority, each in self._bands.items():
            if each is dispatched:
                each.share_credit = max(0.0, each.share_credit + each.options.min_share - 1.0)
            elif self._of_band(priority):
                each.share_credit = min(1.0, each.share_credit + each.options.min_share)

    # The limits

    def _let_wait_or_refuse(self, newcomer: Waiting, now: float) -> None:
        if self._is_hopeless(newcomer, now):
            self._refuse(newcomer, Outcome.REJECTED_WAIT, now)
            return
        victims = self._victims(newcomer)
        if victims is None:
            empty = not self.members
            outcome = Outcome.REJECTED_NO_ENDPOINTS if empty else Outcome.REJECTED_CAPACITY
            self._refuse(newcomer, outcome, now)
            return
        self._expect_in_any_order(victims, Outcome.DISPLACED, now)

    def _is_hopeless(self, newcomer: Waiting, now: float) -> bool:
        per_s = self._rate.cost_per_s(now)
        if newcomer.request.subset is not None or not self.members:
            return False
        if not self.limits.reject_hopeless or self._budget_s(newcomer.request) == math.inf:
            return False
        higher = sum(e.cost for e in self.waiting if e.priority > newcomer.priority)
        ahead = higher + self._cost_ahead(newcomer)
        served = 0.0 if per_s is None else per_s * self._budget_s(newcomer.request)
        if self._rate.is_on_the_edge(now) or math.isclose(ahead, served, rel_tol=1e-9):
            return bool(self.decisions) and self.decisions[0].outcome is Outcome.REJECTED_WAIT
        return per_s is not None and ahead > served

    def _cost_ahead(self, newcomer: Waiting) -> float:
        """Return how much of the band's waiting work goes before the newcomer, if all flows go on
        as they are, with requests as long as those that wait."""
        band, flow = self._flow(newcomer.request.flow)
        waiting = self._of_band(newcomer.priority)
        weight = sum(self._flow(key)[1].weight for key in {entry.request.flow for entry in waiting})
        of_flow = sum(e.cost for e in waiting if e.request.flow == newcomer.request.flow)
        in_band = sum(entry.cost for entry in waiting)
        others = float(in_band - newcomer.cost)
        of_flow += min(newcomer.cost, others / max(1, len(waiting) - 1)) - newcomer.cost
        match band.options.fairness:
            case "weighted-fair":
                start = max(flow.virtual_time, band.virtual_time) + of_flow / flow.weight
                return min(others, (start - band.virtual_time) * weight)
            case "round-robin":
                return min(others, of_flow / flow.weight * weight)
        return others

    def _victims(self, newcomer: Waiting) -> list[Waiting] | None:
        limits, band = self.limits, self._of_band(newcomer.priority)
        own = self.options.band_of(newcomer.priority)
        if len(band) > own.max_requests or _bytes(band) > own.max_bytes:
            return None
        victims: list[Waiting] = []
        lower = [entry for entry in self.waiting if entry.priority < newcomer.priority]
        for entry in sorted(lower, key=lambda entry: (entry.priority, -entry.number)):
            left = [entry for entry in self.waiting if entry not in victims]
            if len(left) > limits.max_requests or (
                _bytes(left) > limits.max_bytes and entry.request.body_bytes
            ):
                victims.append(entry)
        left = [entry for entry in self.waiting if entry not in victims]
        fits = len(left) <= limits.max_requests and _bytes(left) <= limits.max_bytes
        return victims if fits else None

    # The decisions

    def _expect(self, entry: Waiting, outcome: Outcome, now: float) -> Decision:
        assert self.decisions, f"no decision on {entry.number}, which should be {outcome}"
        decision = self.decisions.popleft()
        assert (decision.number, decision.outcome) == (entry.number, outcome)
        assert decision.at_s == now
        if outcome is not Outcome.DISPATCHED:
            left = sum(other.cost for other in self.waiting if other is not entry)
            assert self._advises(decision.retry_after_s, left, now)
        return decision

    def _advises(self, retry_after_s: int, left: int, now: float) -> bool:
        """Whether those who are left may have gone by then, at the measured rate."""
        per_s = self._rate.cost_per_s(now)
        most_s = self.limits.max_retry_after_s
        if self._rate.is_on_the_edge(now):
            return 1 <= retry_after_s <= most_s
        if per_s is None:
            return 1 <= retry_after_s <= 5
        return min(most_s, math.ceil(left / per_s - 1e-6)) <= retry_after_s <= most_s

    def _refuse(self, entry: Waiting, outcome: Outcome, now: float) -> None:
        self._rate.backlog(len(self.waiting) > 1 and bool(self.members), now)
        self._expect(entry, outcome, now)
        self._leave(entry, now)

    def _expect_in_any_order(self, entries: list[Waiting], outcome: Outcome, now: float) -> None:
        by_number = {entry.number: entry for entry in entries}
        while by_number:
            assert self.decisions, f"no decision on {sorted(by_number)}, which should be {outcome}"
            self._refuse(by_number.pop(self.decisions[0].number), outcome, now)

    def _leave(self, entry: Waiting, now: float) -> None:
        self.waiting.remove(entry)
        if not self.waiting:
            self._rate.backlog(False, now)
        self._reset_if_idle(entry.priority)

    def _reset_if_idle(self, priority: int) -> None:
        runs = any(each.request.flow.priority == priority for each in self.running.values())
        if not runs and not self._of_band(priority):
            band = self.band(priority)
            band.flows.clear()
            band.virtual_time = 0.0
            band.turns = 0

    def _forget_endpoint(self, where: str) -> None:
        if where not in self.members and not self.in_flight.get(where):
            self.endpoint_limits.pop(where, None)


def _bytes(entries: list[Waiting]) -> int:
    return sum(entry.request.body_bytes for entry in entries)
