"""What a worker has done without a core, for the core to count when it is there again."""

from collections import Counter

from epp.core.ports import NullRecorder
from epp.core.request import Outcome, Request
from epp.workers.messages import Stats

__all__ = ["WorkerCounts"]


class WorkerCounts(NullRecorder):
    """What a worker counts, also as the recorder of the router that it has for the gap."""

    def __init__(self) -> None:
        self._picks = 0
        self._refusals: Counter[Outcome] = Counter()
        self._refused_early: Counter[str] = Counter()
        self._rewrites_skipped: Counter[str] = Counter()
        self._handshakes_refused: Counter[str] = Counter()
        self._limits_met: Counter[str] = Counter()
        self._gap_s = 0.0
        self._gap_since_s: float | None = None

    # epp.core.ports.Recorder

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """Count the end of a wait, unless the request is only handed to the core."""
        if outcome is Outcome.DISPATCHED:
            self._picks += 1
        elif outcome is not Outcome.CANCELLED:
            self.refused(outcome)

    def refused_early(self, reason: str) -> None:
        """Count an answer given before the queue."""
        self._refused_early[reason] += 1

    def rewrite_skipped(self, reason: str) -> None:
        """Count what could not be rewritten."""
        self._rewrites_skipped[reason] += 1

    # What the worker says

    def refused(self, outcome: Outcome) -> None:
        """Count a request that was refused without a core."""
        self._refusals[outcome] += 1

    def handshake_refused(self, reason: str) -> None:
        """Count a peer that was refused before it could say anything."""
        self._handshakes_refused[reason] += 1

    def limit_met(self, limit: str, count: int) -> None:
        """Count what peers did beyond a limit of the transport."""
        self._limits_met[limit] += count

    def gap(self, begins: bool, now: float) -> None:
        """Note that there is no core from now on, or that there is one again."""
        if self._gap_since_s is not None:
            self._gap_s += now - self._gap_since_s
        self._gap_since_s = now if begins else None

    def take(self, open_streams: int) -> Stats:
        """Return what was counted since the last call, to be sent while there is a core."""
        stats = Stats(
            open_streams=open_streams,
            refused_early=dict(self._refused_early),
            handshakes_refused=dict(self._handshakes_refused),
            limits_met=dict(self._limits_met),
            degraded_s=self._gap_s,
            degraded_picks=self._picks,
            degraded_refusals=dict(self._refusals),
            rewrites_skipped=dict(self._rewrites_skipped),
        )
        self._picks = 0
        self._gap_s = 0.0
        counters: tuple[Counter[Outcome] | Counter[str], ...]
        counters = (
            self._refusals,
            self._refused_early,
            self._rewrites_skipped,
            self._handshakes_refused,
            self._limits_met,
        )
        for counter in counters:
            counter.clear()
        return stats
