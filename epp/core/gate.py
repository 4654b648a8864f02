"""The seam between exchanges and decisions.

An exchange asks a gate whether its request may go and where, and hears the answer as a waiter, at
once or later. In one process the gate is :class:`epp.core.pools.Pools`, which hands each request to
the :class:`epp.core.router.Router` of its pool; where exchanges live in worker processes it is a
stand-in that asks over a socket. An exchange cannot tell.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import msgspec

from epp.core.claims import RequestClaims
from epp.core.pool.load import EngineLoad
from epp.core.replies import Header
from epp.core.request import Outcome

__all__ = ["Admission", "AskGate", "Ending", "Gate", "GateWaiter", "Route"]


class Route(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a request goes, and what is to be done to it.

    ``destination`` is the ``ip:port`` of its endpoint, then, with commas, of those that the proxy
    may turn to by itself. ``model`` is the model to ask for in place of the client's, empty where
    the client's stays. ``response_headers`` are to be added to those of the response.
    """

    destination: str
    model: str = ""
    response_headers: tuple[Header, ...] = ()

    @property
    def endpoint(self) -> str:
        """The ``ip:port`` where the request runs until something else is told."""
        return self.destination.partition(",")[0]


class Ending(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """How the exchange of a dispatched request ended.

    ``status`` is that of the model server's response, 0 where none was seen. ``cause`` is
    ``complete`` where the response ended by itself, as far as can be seen, ``evicted`` where the
    EPP ended it, else ``aborted``: the client or the proxy cut it, or it never began.
    ``response_bytes`` is None where the response body does not pass through the EPP; so are
    ``prompt_tokens``, ``output_tokens`` and ``cached_tokens``, those of the prompt that the model
    server had in its cache, and where it does not tell them (a stream that does not tell its output
    counts for its events). ``first_byte_s`` is from the dispatch to the first byte
    of the response's body, or to its headers where its body does not pass or it has none; None
    where that has not come.
    """

    status: int
    cause: str
    duration_s: float
    response_bytes: int | None
    first_byte_s: float | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class Admission(Protocol):
    """A request's standing at a gate, from admission until :meth:`Gate.finish`."""

    @property
    def is_waiting(self) -> bool:
        """Whether the waiter has not been called yet."""

    @property
    def deadline_s(self) -> float | None:
        """When the wait is over at the latest, None where it has no end."""


class GateWaiter(Protocol):
    """Who waits for a gate's answer: exactly one of the first three is called, once."""

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        """The request goes this way and holds capacity at its endpoint until it is finished."""

    def passed(self, destination: str, now: float) -> None:
        """The request, which is no inference, goes to this ``ip:port`` and holds nothing."""

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """The request does not go; ``retry_after_s`` is the advice for the client, whole
        seconds."""

    def evicted(self, retry_after_s: int, now: float) -> None:
        """The request was dispatched and is to end now, for one that matters more.

        It holds its capacity until :meth:`Gate.finish`. It may be told so again, by another gate
        that has taken its place.
        """


class Gate(Protocol):
    """What decides on requests. The waiter may be called before :meth:`admit` returns."""

    def admit(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> Admission:
        """Let an inference request wait for its turn."""

    def pass_by(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> Admission | None:
        """Let a request go that is no inference; None where the waiter was called at once."""

    def withdraw(self, admission: Admission, now: float) -> None:
        """Nobody waits for this request any more."""

    def served_by(self, admission: Admission, destination: str, now: float) -> None:
        """The proxy says that this ``ip:port`` really serves the dispatched request."""

    def reported(self, admission: Admission, load: EngineLoad, now: float) -> None:
        """The engine that serves the dispatched request tells its load with the response."""

    def progress(self, admission: Admission, output_tokens: int, now: float) -> None:
        """The response of a dispatched request has brought so many tokens by now."""

    def finish(self, admission: Admission, ending: Ending, now: float) -> None:
        """The response of a dispatched request has ended, whichever way."""

    def refused_early(self, reason: str) -> None:
        """The exchange has answered a request itself, before it asked the gate."""

    def rewrite_skipped(self, reason: str) -> None:
        """The exchange could not put another model's name into a request, or could not put the
        client's back into the response."""


AskGate: TypeAlias = Callable[[RequestClaims, GateWaiter, float], Admission | None]
"""Gate.admit or Gate.pass_by."""
