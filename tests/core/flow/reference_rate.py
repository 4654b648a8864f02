"""The measured drain rate, as sums over all that happened."""

import math

__all__ = ["ReferenceRate"]


class ReferenceRate:
    """Dispatches per second of backlog, as sums over every dispatch that there was."""

    def __init__(self) -> None:
        self._backlog_s = 0.0
        self._since_s = 0.0
        self._is_backlogged = False
        self._dispatches: list[tuple[float, int]] = []

    def backlog(self, present: bool, now: float) -> None:
        if present == self._is_backlogged:
            return
        if self._is_backlogged:
            self._backlog_s += now - self._since_s
        else:
            self.flows(now)
        self._is_backlogged = present
        self._since_s = now

    def flows(self, now: float) -> None:
        if now - self._since_s > 60.0:
            self._backlog_s = 0.0
            self._dispatches.clear()
        self._since_s = now

    def dispatched(self, cost: int, now: float) -> None:
        self._dispatches.append((self._seen_s(now), cost))

    def cost_per_s(self, now: float) -> float | None:
        cost, count, weight_s = self._sums(now)
        return None if count < 5.0 or weight_s < 2.0 else cost / weight_s

    def requests_per_s(self, now: float) -> float | None:
        _, count, weight_s = self._sums(now)
        return None if count < 5.0 or weight_s < 2.0 else count / weight_s

    def is_on_the_edge(self, now: float) -> bool:
        """Whether rounding decides if the rate is trusted."""
        _, count, weight_s = self._sums(now)
        return abs(count - 5.0) < 1e-6 or abs(weight_s - 2.0) < 1e-6

    def _seen_s(self, now: float) -> float:
        return self._backlog_s + (now - self._since_s if self._is_backlogged else 0.0)

    def _sums(self, now: float) -> tuple[float, float, float]:
        seen_s = self._seen_s(now)
        weights = [(math.exp(-(seen_s - at_s) / 60.0), cost) for at_s, cost in self._dispatches]
        count = sum(weight for weight, _ in weights)
        cost = sum(weight * cost for weight, cost in weights)
        return cost, count, 60.0 * (1.0 - math.exp(-seen_s / 60.0))
