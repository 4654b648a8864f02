"""What the core tells the outside: the seam towards metrics."""

from typing import Protocol

import msgspec

from epp.core.request import Outcome, Request

__all__ = ["Ending", "NullRecorder", "Recorder"]


class Ending(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How the exchange of a dispatched request ended.

    ``status`` is that of the model server's response, 0 where none was seen. ``cause`` is
    ``complete`` where the response ended by itself, else who or what cut it: ``client`` (before a
    response began, or before its end where the end is visible) or ``drain``. ``response_bytes`` is
    None where the response body does not pass through the EPP.
    """

    request: Request
    status: int
    cause: str
    duration_s: float
    response_bytes: int | None


class Recorder(Protocol):
    """Counts what happens. Called on the request path, so each method takes microseconds."""

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """A request that entered the queue left it, after ``waited_s`` seconds."""

    def ended(self, ending: Ending) -> None:
        """The exchange of a dispatched request is over; its capacity is free again."""

    def refused_early(self, reason: str) -> None:
        """An exchange was answered before it entered the queue, because of ``reason``."""


class NullRecorder:
    """A recorder that counts nothing."""

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        """Ignore it."""

    def ended(self, ending: Ending) -> None:
        """Ignore it."""

    def refused_early(self, reason: str) -> None:
        """Ignore it."""
