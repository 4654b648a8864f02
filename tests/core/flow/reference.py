"""The flow control once more, written as naively as its rules read: a list that is sorted anew.

It takes the decisions of the real one as they come and says of each whether it is the one that the
rules allow.
"""

import math
from collections import deque

import msgspec

from epp.core.flow import FlowLimits
from epp.core.request import Outcome, Request

__all__ = ["Decision", "ReferenceQueue", "ReferenceRate", "Waiting"]


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

    @property
    def priority(self) -> int:
        return self.request.flow.priority


class ReferenceRate:
    """Dispatches per second of backlog, as sums over every dispatch that there was."""

    def __init__(self) -> None:
        self._backlog_s = 0.0
        self._since_s = 0.0
        self._is_backlogged = False
        self._dispatches_s: list[float] = []

    def backlog(self, present: bool, now: float) -> None:
        if present == self._is_backlogged:
            return
        if self._is_backlogged:
            self._backlog_s += now - self._since_s
        elif now - self._since_s > 60.0:
            self._backlog_s = 0.0
            self._dispatches_s.clear()
        self._is_backlogged = present
        self._since_s = now

    def dispatched(self, now: float) -> None:
        self._dispatches_s.append(self._seen_s(now))

    def per_s(self, now: float) -> float | None:
        count, weight_s = self._sums(now)
        return None if count < 5.0 or weight_s < 2.0 else count / weight_s

    def is_on_the_edge(self, now: float) -> bool:
        """Whether rounding decides if the rate is trusted."""
        count, weight_s = self._sums(now)
        return abs(count - 5.0) < 1e-6 or abs(weight_s - 2.0) < 1e-6

    def _seen_s(self, now: float) -> float:
        return self._backlog_s + (now - self._since_s if self._is_backlogged else 0.0)

    def _sums(self, now: float) -> tuple[float, float]:
        seen_s = self._seen_s(now)
        count = sum(math.exp(-(seen_s - at_s) / 60.0) for at_s in self._dispatches_s)
        return count, 60.0 * (1.0 - math.exp(-seen_s / 60.0))


class ReferenceQueue:
    """Rules R1, R4 to R10, R14 and R15, with requests served in order of arrival in a band."""

    def __init__(self, limits: FlowLimits, max_concurrency: int) -> None:
        self.limits = limits
        self.max_concurrency = max_concurrency
        self.members: set[str] = set()
        self.in_flight: dict[str, int] = {}
        self.waiting: list[Waiting] = []
        self.decisions: deque[Decision] = deque()
        self.is_draining = False
        self._rate = ReferenceRate()
        self._regime_since_s = -math.inf

    # What happens

    def offer(self, number: int, request: Request, now: float, since_s: float) -> None:
        newcomer = Waiting(number, request, since_s)
        if self.is_draining:
            self._expect(newcomer, Outcome.SHUTTING_DOWN, now)
        elif request.subset is not None and not request.subset & self.members:
            self._expect(newcomer, Outcome.REJECTED_NO_ENDPOINTS, now)
        else:
            self.waiting.append(newcomer)
            self._rate.backlog(True, now)
            self.pump(now)
            if newcomer in self.waiting:
                self._let_wait_or_refuse(newcomer, now)

    def cancel(self, number: int, now: float) -> None:
        self._leave(next(entry for entry in self.waiting if entry.number == number), now)

    def pump(self, now: float) -> None:
        while placeable := [entry for entry in self.waiting if self.with_room(entry.request)]:
            first = min(placeable, key=lambda entry: (-entry.priority, entry.number))
            room = self.with_room(first.request)
            decision = self._expect(first, Outcome.DISPATCHED, now)
            assert decision.destination in room
            least = min(self.in_flight.get(where, 0) for where in room)
            assert self.in_flight.get(decision.destination, 0) == least
            assert decision.waited_s == now - first.entered_s
            self.in_flight[decision.destination] = least + 1
            if now > first.entered_s:
                self._rate.dispatched(now)
            self._leave(first, now)

    def release(self, where: str, now: float) -> None:
        self.in_flight[where] -= 1
        self.pump(now)

    def move(self, where: str, target: str, now: float) -> None:
        if target in self.members or self.in_flight.get(target):
            self.in_flight[target] = self.in_flight.get(target, 0) + 1
            self.release(where, now)

    def set_members(self, members: set[str], now: float) -> None:
        if bool(members) != bool(self.members) and self.waiting:
            self._regime_since_s = now
        self.members = members
        stranded = [
            entry
            for entry in self.waiting
            if entry.request.subset is not None and not entry.request.subset & members
        ]
        self._expect_in_any_order(stranded, Outcome.REJECTED_NO_ENDPOINTS, now)
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
            and self.in_flight.get(where, 0) < self.max_concurrency
        }

    def deadline_s(self, entry: Waiting) -> float:
        return max(entry.entered_s, self._regime_since_s) + self._budget_s(entry.request)

    def _budget_s(self, request: Request) -> float:
        limits = self.limits
        general_s = limits.wait_limit_s if self.members else limits.no_endpoint_wait_limit_s
        own_s = request.wait_limit_s
        return min(math.inf if limit is None else limit for limit in (general_s, own_s))

    # The limits

    def _let_wait_or_refuse(self, newcomer: Waiting, now: float) -> None:
        if self._is_hopeless(newcomer, now):
            self._expect(newcomer, Outcome.REJECTED_WAIT, now)
            self._leave(newcomer, now)
            return
        victims = self._victims(newcomer)
        if victims is None:
            empty = not self.members
            outcome = Outcome.REJECTED_NO_ENDPOINTS if empty else Outcome.REJECTED_CAPACITY
            self._expect(newcomer, outcome, now)
            self._leave(newcomer, now)
            return
        self._expect_in_any_order(victims, Outcome.DISPLACED, now)

    def _is_hopeless(self, newcomer: Waiting, now: float) -> bool:
        rate_per_s = self._rate.per_s(now)
        if self._rate.is_on_the_edge(now):
            return self.decisions[0].outcome is Outcome.REJECTED_WAIT if self.decisions else False
        if rate_per_s is None or newcomer.request.subset is not None or not self.members:
            return False
        ahead = sum(entry.priority >= newcomer.priority for entry in self.waiting) - 1
        return self.limits.reject_hopeless and ahead > rate_per_s * self._budget_s(newcomer.request)

    def _victims(self, newcomer: Waiting) -> list[Waiting] | None:
        limits, band = self.limits, [e for e in self.waiting if e.priority == newcomer.priority]
        if len(band) > limits.band_max_requests or _bytes(band) > limits.band_max_bytes:
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
            left = len(self.waiting) - (entry in self.waiting)
            assert self._advises(decision.retry_after_s, left, now)
        return decision

    def _advises(self, retry_after_s: int, left: int, now: float) -> bool:
        """Whether this is when those who are left will be gone, give or take a fifth."""
        rate_per_s = self._rate.per_s(now)
        if self._rate.is_on_the_edge(now):
            return 1 <= retry_after_s <= 60
        if rate_per_s is None:
            return 1 <= retry_after_s <= 5
        wait_s = (left + 1) / rate_per_s
        earliest_s, latest_s = math.ceil(0.799 * wait_s), math.ceil(1.201 * wait_s)
        return min(60, earliest_s) <= retry_after_s <= min(60, max(1, latest_s))

    def _expect_in_any_order(self, entries: list[Waiting], outcome: Outcome, now: float) -> None:
        by_number = {entry.number: entry for entry in entries}
        while by_number:
            assert self.decisions, f"no decision on {sorted(by_number)}, which should be {outcome}"
            entry = by_number.pop(self.decisions[0].number)
            self._expect(entry, outcome, now)
            self._leave(entry, now)

    def _leave(self, entry: Waiting, now: float) -> None:
        self.waiting.remove(entry)
        if not self.waiting:
            self._rate.backlog(False, now)


def _bytes(entries: list[Waiting]) -> int:
    return sum(entry.request.body_bytes for entry in entries)
