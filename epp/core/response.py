"""What is seen of a response as it goes by: how soon, how long, how many tokens."""

from typing import Final

from epp.core.gate import Ending
from epp.core.headers import QUEUE_WAIT
from epp.core.parsing import UsageReader
from epp.core.replies import Header

__all__ = ["Response"]

_PROGRESS_EVENTS: Final = 64


class Response:
    """The response to a dispatched request, from the dispatch on, before which it waited
    ``waited_s`` seconds."""

    __slots__ = ("_body_bytes", "_dispatched_s", "_first_byte_s", "_next_progress", "_status",
                 "_usage", "_waited_s")  # fmt: skip

    def __init__(self, waited_s: float, dispatched_s: float) -> None:
        self._waited_s = waited_s
        self._dispatched_s = dispatched_s
        self._status = 0
        self._first_byte_s: float | None = None
        self._body_bytes: int | None = None
        self._usage: UsageReader | None = None
        self._next_progress = _PROGRESS_EVENTS

    def headers(self, status: int, body_follows: bool, now: float) -> tuple[Header, ...]:
        """The headers have come; ``body_follows`` where a body is to be seen as well. Return the
        headers to add."""
        self._status = status
        if not body_follows:
            self._first_byte_s = now - self._dispatched_s
        return ((QUEUE_WAIT, b"%d" % round(self._waited_s * 1000)),)

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
        usage = self._usage
        prompt_tokens, output_tokens = (None, None) if usage is None else usage.result()
        return Ending(
            status=self._status,
            cause=cause,
            duration_s=duration_s,
            response_bytes=self._body_bytes,
            first_byte_s=self._first_byte_s,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
        )
