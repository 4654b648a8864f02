"""How fast the queue drains: the measure behind Retry-After and the rejection of hopeless waits."""

import math

__all__ = ["DrainRate"]

_MEMORY_S = 60.0
_TRUSTED_AFTER_S = 2.0
_TRUSTED_AFTER_DISPATCHES = 5
_STALE_AFTER_S = 60.0


class DrainRate:
    """What is dispatched per second of backlog, in cost, exponentially weighted over its last
    minute.

    The memory is that long because an inference can take as long: a pool that ends one request in
    two seconds must still have a rate that can be told.

    Only time in which somebody waited counts: the dispatches of an idle pool measure how much is
    asked of it and not how much it can do. Weighted sums ``c ← c·e^(-Δ/τ) + cost`` and ``t ←
    t·e^(-Δ/τ) + τ·(1 - e^(-Δ/τ))`` give the rate ``c/t``, unbiased from the first second on.
    """

    __slots__ = ("_backlogged", "_cost", "_count", "_since_s", "_weight_s")

    def __init__(self) -> None:
        self._cost = 0.0
        self._count = 0.0
        self._weight_s = 0.0
        self._since_s = 0.0
        self._backlogged = False

    def backlog(self, present: bool, now: float) -> None:
        """Tell whether requests are waiting for endpoints that are there, from ``now`` on."""
        if present == self._backlogged:
            return
        if self._backlogged:
            self._advance(now)
        else:
            self.flows(now)
        self._backlogged = present

    def flows(self, now: float) -> None:
        """Tell that there is traffic, but nobody has to wait: what was learned stays known."""
        if now - self._since_s > _STALE_AFTER_S:
            self._cost = self._count = self._weight_s = 0.0
        self._since_s = now

    def dispatched(self, cost: int, now: float) -> None:
        """Count the dispatch of a request that had waited."""
        self._advance(now)
        self._cost += cost
        self._count += 1.0

    def cost_per_s(self, now: float) -> float | None:
        """Return the rate in cost per second, or None while too little was seen to tell."""
        return self._cost / self._weight_s if self._is_known(now) else None

    def requests_per_s(self, now: float) -> float | None:
        """Return the rate in requests per second, or None while too little was seen to tell."""
        return self._count / self._weight_s if self._is_known(now) else None

    def _is_known(self, now: float) -> bool:
        self._advance(now)
        return self._weight_s >= _TRUSTED_AFTER_S and self._count >= _TRUSTED_AFTER_DISPATCHES

    def _advance(self, now: float) -> None:
        if not self._backlogged:
            return
        kept = math.exp(-(now - self._since_s) / _MEMORY_S)
        self._cost *= kept
        self._count *= kept
        self._weight_s = self._weight_s * kept + _MEMORY_S * (1.0 - kept)
        self._since_s = now
