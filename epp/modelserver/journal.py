"""What the server remembers of the requests it got, for tests and for the curious.

Everything here is bounded: the last ``_MAX_REQUESTS`` requests, the head of each long header value.
"""

from collections import deque
from collections.abc import Iterable
from typing import Literal

import msgspec

__all__ = ["Journal", "RequestRecord", "ServerState"]

Outcome = Literal["finished", "failed", "aborted"]

_MAX_REQUESTS = 1000
_MAX_VALUE_BYTES = 4096


class RequestRecord(msgspec.Struct, kw_only=True, eq=False):
    """One request as it arrived, and how it ended (``None`` while it is in flight).

    ``request_id`` is its ``x-request-id``, empty if it had none; bytes of header values that are
    not ASCII appear as Latin-1. ``failed`` is an error answer or an injected fault, ``aborted`` a
    client that went away.
    """

    request_id: str
    method: str
    path: str
    headers: list[tuple[str, str]]
    outcome: Outcome | None = None


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the server; ``GET /debug/state`` returns it as JSON.

    ``running`` and ``waiting`` are requests in the engine, ``in_flight`` requests whose HTTP
    exchange is not over (health checks, metrics and the rest of ``/debug`` are not recorded,
    ``/debug/echo`` is); peaks are since the start. Of ``prefix_queried_tokens``, the prompts of the
    requests that got a slot, ``prefix_hit_tokens`` were in the prefix cache; ``adapter_loads`` is
    how often an adapter had to be loaded. ``requests`` are in order of arrival, ``started_ids`` in
    the order in which they got a slot, ``finished_ids`` in the order in which their answers ended,
    both by ``x-request-id``.
    """

    name: str
    running: int
    waiting: int
    peak_running: int
    in_flight: int
    peak_in_flight: int
    finished: int
    failed: int
    aborted: int
    prefix_queried_tokens: int
    prefix_hit_tokens: int
    adapter_loads: int
    started_ids: list[str]
    finished_ids: list[str]
    requests: list[RequestRecord]


class Journal:
    """Counts requests and keeps the last ones."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.peak_in_flight = 0
        self.counts: dict[Outcome, int] = {"finished": 0, "failed": 0, "aborted": 0}
        self.requests: deque[RequestRecord] = deque(maxlen=_MAX_REQUESTS)
        self.started_ids: deque[str] = deque(maxlen=_MAX_REQUESTS)
        self.finished_ids: deque[str] = deque(maxlen=_MAX_REQUESTS)

    def arrived(
        self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> RequestRecord:
        """Note a request whose headers have come."""
        readable = [
            (name.decode("latin-1").lower(), value[:_MAX_VALUE_BYTES].decode("latin-1"))
            for name, value in headers
        ]
        record = RequestRecord(
            request_id=dict(readable).get("x-request-id", ""),
            method=method,
            path=path,
            headers=readable,
        )
        self.requests.append(record)
        self.in_flight += 1
        return record

    def note_peak(self) -> None:
        """Compare the requests now in flight with the peak.

        Apart from :meth:`arrived`, so that the caller can let the end of one request, that has
        happened but is not handled yet, come before the arrival of the next.
        """
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def started(self, record: RequestRecord) -> None:
        """Note that a request got its slot."""
        self.started_ids.append(record.request_id)

    def ended(self, record: RequestRecord, outcome: Outcome) -> None:
        """Note how a request ended; what comes first counts."""
        if record.outcome is None:
            record.outcome = outcome
            self.counts[outcome] += 1
            self.in_flight -= 1
            if outcome == "finished":
                self.finished_ids.append(record.request_id)
