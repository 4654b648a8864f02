"""What the core counts of its workers."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from epp.workers.messages import Stats

if TYPE_CHECKING:
    from epp.core.request import Outcome

__all__ = ["Tally"]


class Tally:
    """Sums over all workers and all their lives, since this core has started.

    ``core_restarts`` is how often the core itself was restarted before. ``on_handshake_refused`` is
    called with the reason for each peer that a worker has refused before it could say anything,
    ``on_limit`` with how often peers of the workers have met a limit of the transport.
    """

    def __init__(
        self,
        core_restarts: int = 0,
        on_handshake_refused: Callable[[str], None] = lambda _reason: None,
        on_limit: Callable[[str, int], None] = lambda _limit, _count: None,
    ) -> None:
        self.core_restarts = core_restarts
        self._on_handshake_refused = on_handshake_refused
        self._on_limit = on_limit
        self.degraded_s = 0.0
        self.degraded_picks = 0
        self.degraded_refusals: Counter[Outcome] = Counter()
        self._restarts: dict[int, int] = {}

    @property
    def worker_restarts(self) -> int:
        """How often workers were restarted."""
        return sum(self._restarts.values())

    def restarted(self, worker: int, restarts: int) -> None:
        """Note how often the worker at this place was restarted so far."""
        self._restarts[worker] = restarts

    def add(self, stats: Stats) -> None:
        """Add what a worker has counted since its last report."""
        self.degraded_s += stats.degraded_s
        self.degraded_picks += stats.degraded_picks
        self.degraded_refusals.update(stats.degraded_refusals)
        for reason, count in stats.handshakes_refused.items():
            for _ in range(count):
                self._on_handshake_refused(reason)
        for limit, count in stats.limits_met.items():
            self._on_limit(limit, count)
