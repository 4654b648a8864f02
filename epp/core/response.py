"""What is seen of a response as it goes by: how soon, how long, how many tokens."""

from typing import TYPE_CHECKING, Final

from epp.core.gate import Ending, Route
from epp.core.headers import QUEUE_WAIT
from epp.core.parsing import TokenUsage, UsageReader
from epp.core.replies import Header

if TYPE_CHECKING:
    from epp.core.parsing.model_name import ModelNameRestorer

__all__ = ["Response"]

_PROGRESS_EVENTS: Final = 64
_SERVER_ERROR: Final = 500


class Response:
    """The response to a request that was dispatched on this route, from the dispatch on, before
    which it waited ``waited_s`` seconds. ``restorer`` puts the client's model name into its body,
    where the request went with another."""

    __slots__ = ("_body_bytes", "_dispatched_s", "_first_byte_s", "_next_progress", "_route",
                 "_status", "_usage", "_waited_s", "restorer")  # fmt: skip

    def __init__(self, route: Route, waited_s: float, dispatched_s: float) -> None:
        self._route = route
        self._waited_s = waited_s
        self._dispatched_s = dispatched_s
        self._status = 0
        self._first_byte_s: float | None = None
        self._body_bytes: int | None = None
        self._usage: UsageReader | None = None
        self._next_progress = _PROGRESS_EVENTS
        self.restorer: ModelNameRestorer | None = None

    def headers(
        self, status: int, served_by: str | None, body_follows: bool, now: float
    ) -> tuple[Header, ...]:
        """The headers have come; ``body_follows`` where a body is to be seen as well. Return the
        headers to add.

        Those of the route are about its endpoint: where that has not served the request, because it
        could not or another (``served_by``) has, the client is not told of it.
        """
        self._status = status
        if not body_follows:
            self._first_byte_s = now - self._dispatched_s
        queue_wait = (QUEUE_WAIT, b"%d" % round(self._waited_s * 1000))
        route = self._route
        if status >= _SERVER_ERROR or served_by not in (None, route.endpoint):
            return (queue_wait,)
        return (queue_wait, *route.response_headers)

    def body(self, chunk: bytes, now: float) -> int | None:
        """A piece of the body has come. Return how many tokens have, about, when it is time to
        tell: each 64 events of a stream."""
        usage = self._usage
        if usage is None:
            usage = self._usage = UsageReader()
            self._body_bytes = 0
        if chunk:
            if not self._body_bytes:
                self._first_byte_s = now - self._dispatched_s
            usage.feed(chunk)
        self._body_bytes = (self._body_bytes or 0) + len(chunk)
        if usage.events < self._next_progress:
            return None
        self._next_progress = usage.events + _PROGRESS_EVENTS
        return usage.events

    def ending(self, cause: str, duration_s: float) -> Ending:
        """Return what is to be told of the response when it has ended."""
        usage = TokenUsage() if self._usage is None else self._usage.result()
        return Ending(
            status=self._status,
            cause=cause,
            duration_s=duration_s,
            response_bytes=self._body_bytes,
            first_byte_s=self._first_byte_s,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
        )
