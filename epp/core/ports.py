"""What the core tells the outside: the seam towards metrics."""

from typing import Protocol

from epp.core.gate import Ending
from epp.core.request import Outcome, Request

__all__ = ["NullRecorder", "Recorder"]


class Recorder(Protocol):
    """Counts what happens. Called on the request path, so each method takes microseconds."""

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """A request that entered the queue left it, after ``waited_s`` seconds."""

    def adopted(self, request: Request) -> None:
        """A request runs that was dispatched, and counted, by somebody else."""

    def overridden(self, priority: int, rule: str) -> None:
        """A band was served out of turn, by ``min-share`` or ``max-wait``."""

    def settled(self, request: Request, charged: int, actual: int) -> None:
        """A request was charged so much while it ran, and has cost so much."""

    def evicted(self, request: Request) -> None:
        """A request that runs is ended for one of higher priority; its ending is yet to come."""

    def ended(self, request: Request, ending: Ending) -> None:
        """The exchange of a dispatched request is over; its capacity is free again."""

    def refused_early(self, reason: str) -> None:
        """An exchange was answered before it entered the queue, because of ``reason``."""

    def rewrite_skipped(self, reason: str) -> None:
        """A request went with its client's model where rules might have had another, or the
        response goes with the model's name that the rules have put, because of ``reason``."""


class NullRecorder:
    """A recorder that counts nothing."""

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """Ignore it."""

    def adopted(self, request: Request) -> None:
        """Ignore it."""

    def overridden(self, priority: int, rule: str) -> None:
        """Ignore it."""

    def settled(self, request: Request, charged: int, actual: int) -> None:
        """Ignore it."""

    def evicted(self, request: Request) -> None:
        """Ignore it."""

    def ended(self, request: Request, ending: Ending) -> None:
        """Ignore it."""

    def refused_early(self, reason: str) -> None:
        """Ignore it."""

    def rewrite_skipped(self, reason: str) -> None:
        """Ignore it."""
