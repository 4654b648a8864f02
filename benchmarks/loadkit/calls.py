"""Requests as Envoy brings them to an EPP, without Envoy: ext_proc streams made beforehand.

Envoy itself uses twice the CPU time of the EPP for each request, so on a machine of few cores no
EPP is ever busy behind it. These calls cost a fraction of what they cost the EPP.

Each call says what Envoy says of a small request: headers and body of the request, then, when the
EPP has let it go, the headers of the response, chunks of the response if any were asked for, each
when the one before it has come back, and at last a reset, which is how Envoy ends a stream. A
closed loop: as many calls are open at any time as were asked for, spread over the connections.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, cast

import msgspec

from epp.proxy.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD,
    FRAME_HEAD_BYTES,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    frame,
    settings_frame,
    window_update_frame,
)
from epp.proxy.wire import ext_proc_pb2
from loadkit.measure import LoadFailedError
from loadkit.scenarios import ANSWERS, chat_request

__all__ = ["Calls", "CallsDone"]

_PLENTY_BYTES: Final = (1 << 31) - 1 - 65_535
_MARK: Final = 0x7EEDBEEF
_CANCEL: Final = (8).to_bytes(4, "big")
_PATIENCE_S: Final = 30.0
_PREFIX_BYTES: Final = 5
_CALL_HEADERS: Final = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
    (":authority", "ext_proc"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("x-envoy-internal", "true"),
)
_REQUEST_HEADERS: Final = (
    (":authority", "gateway"),
    (":path", "/v1/chat/completions"),
    (":method", "POST"),
    (":scheme", "http"),
    ("user-agent", "benchmark"),
    ("content-type", "application/json"),
    ("content-length", "200"),
    ("x-forwarded-proto", "http"),
    ("x-request-id", "4b3ec5a0-62ba-4a3a-9e4b-6a4f3f0f2d11"),
)
_RESPONSE_HEADERS: Final = (
    (":status", "200"),
    ("content-type", "application/json"),
    ("content-length", "200"),
    ("x-envoy-upstream-service-time", "1"),
)


class CallsDone(msgspec.Struct, frozen=True, kw_only=True):
    """So many calls were made from beginning to end in so many seconds."""

    calls: int
    elapsed_s: float

    @property
    def per_s(self) -> float:
        """Calls per second."""
        return self.calls / self.elapsed_s


class Calls:
    """Connections to an EPP, ready to call. Use it as an asynchronous context manager.

    ``calls`` are open at any time. Each has a request body of ``body_bytes``, and so many
    ``chunks`` of a response body go to the EPP.
    """

    def __init__(
        self, port: int, *, connections: int, calls: int, body_bytes: int, chunks: int = 0
    ) -> None:
        self._port = port
        self._count = connections
        self._calls = calls
        self._script = _Script(chat_request(body_bytes), chunks)
        self._connections: list[_Connection] = []
        self._all_done = asyncio.Event()
        self._error: Exception | None = None

    async def __aenter__(self) -> "Calls":
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, connection = await loop.create_connection(
                lambda: _Connection(self._script, self._ended), "127.0.0.1", self._port
            )
            self._connections.append(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    async def run(
        self, *, duration_s: float | None = None, requests: int | None = None
    ) -> CallsDone:
        """Call for so long, or (about) so often; return when the last call has ended.

        Raises LoadFailedError.
        """
        before = sum(connection.done for connection in self._connections)
        began_s = perf_counter()
        until_s = math.inf if duration_s is None else began_s + duration_s
        most = math.inf if requests is None else requests / self._count
        self._all_done.clear()
        for index, connection in enumerate(self._connections):
            share = (self._calls + self._count - 1 - index) // self._count
            connection.begin(share, until_s, most)
        try:
            await asyncio.wait_for(self._all_done.wait(), (duration_s or 0.0) + _PATIENCE_S)
        except TimeoutError:
            raise LoadFailedError("calls: the EPP does not answer any more") from None
        if self._error is not None:
            raise LoadFailedError(f"calls: {self._error}")
        done = sum(connection.done for connection in self._connections) - before
        return CallsDone(calls=done, elapsed_s=perf_counter() - began_s)

    def _ended(self, error: Exception | None) -> None:
        self._error = self._error or error
        if self._error is not None or not any(each.open for each in self._connections):
            self._all_done.set()


class _Script:
    """The bytes of a call, but for the number of its stream.

    The first of the ``steps`` opens it and has two replies, each of the others has one.
    """

    def __init__(self, body: bytes, chunks: int) -> None:
        message = ext_proc_pb2.ProcessingRequest
        request = message(
            request_headers={"headers": {"headers": _pairs(_REQUEST_HEADERS)}},
            protocol_config={
                "request_body_mode": "FULL_DUPLEX_STREAMED",
                "response_body_mode": "FULL_DUPLEX_STREAMED" if chunks else "NONE",
            },
        )
        content = message(request_body={"body": body, "end_of_stream": True})
        response = message(response_headers={"headers": {"headers": _pairs(_RESPONSE_HEADERS)}})
        head = b"".join(_literal(name, value) for name, value in _CALL_HEADERS)
        opening = [(HEADERS, END_HEADERS, head), (DATA, 0, _grpc(request))]
        chunk = message(response_body={"body": ANSWERS["events"].pieces[0]})
        self.steps = (
            _cut([*opening, (DATA, 0, _grpc(content))]),
            _cut([(DATA, 0, _grpc(response))]),
            *(_cut([(DATA, 0, _grpc(chunk))]) for _ in range(chunks)),
        )
        self.end = _cut([(RST_STREAM, 0, _CANCEL)])


def _cut(frames: Sequence[tuple[int, int, bytes]]) -> tuple[bytes, ...]:
    """Return the pieces of these frames between which the number of the stream belongs."""
    marked = b"".join(frame(kind, flags, _MARK, payload) for kind, flags, payload in frames)
    return tuple(marked.split(_MARK.to_bytes(4, "big")))


def _pairs(headers: Sequence[tuple[str, str]]) -> list[dict[str, object]]:
    return [{"key": name.encode(), "raw_value": value.encode()} for name, value in headers]


def _grpc(message: ext_proc_pb2.ProcessingRequest) -> bytes:
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def _literal(name: str, value: str) -> bytes:
    """Return a header field as HPACK has it without tables: RFC 7541, section 6.2.2."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _messages_in(payload: bytes) -> int:
    """Return how many messages there are in a DATA frame; none of them is cut."""
    position = count = 0
    while position < len(payload):
        position += _PREFIX_BYTES + int.from_bytes(payload[position + 1 : position + 5], "big")
        count += 1
    return count


class _Connection(asyncio.Protocol):
    """One connection; ``open`` calls are under way, ``done`` have ended since the beginning."""

    def __init__(self, script: _Script, on_ended: Callable[[Exception | None], None]) -> None:
        self._script = script
        self._on_ended = on_ended
        self._transport = cast("asyncio.Transport", None)
        self._rest = b""
        self._last_id = -1
        self._until_s = 0.0
        self._most = 0.0
        self._replies: dict[int, int] = {}
        self.open = 0
        self.done = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(PREFACE + settings_frame(()) + window_update_frame(0, _PLENTY_BYTES))

    def begin(self, calls: int, until_s: float, most: float) -> None:
        self._until_s = until_s
        self._most = self.done + most - calls
        self.open += calls
        self._transport.write(b"".join(self._open_one() for _ in range(calls)))

    def close(self) -> None:
        self._on_ended = lambda error: None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        answers: list[bytes] = []
        position = 0
        while len(data) - position >= FRAME_HEAD_BYTES:
            high, low, kind, flags, stream_id = FRAME_HEAD.unpack_from(data, position)
            end = position + FRAME_HEAD_BYTES + (high << 8 | low)
            if end > len(data):
                break
            if kind == DATA:
                answers += self._replied(stream_id, data[position + FRAME_HEAD_BYTES : end])
            elif kind in (RST_STREAM, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
                self._on_ended(LoadFailedError("the EPP has ended a call"))
            position = end
        self._rest = data[position:]
        if answers:
            self._transport.write(b"".join(answers))
        if not self.open:
            self._on_ended(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._on_ended(error or LoadFailedError("the EPP has closed a connection"))

    def _replied(self, stream_id: int, payload: bytes) -> list[bytes]:
        """Take replies; return what is to be said now."""
        count = self._replies[stream_id] + _messages_in(payload)
        self._replies[stream_id] = count
        if count == 1:
            return []
        if count <= len(self._script.steps):
            return [stream_id.to_bytes(4, "big").join(self._script.steps[count - 1])]
        del self._replies[stream_id]
        self.done += 1
        end = stream_id.to_bytes(4, "big").join(self._script.end)
        if self.done <= self._most and perf_counter() < self._until_s:
            return [end, self._open_one()]
        self.open -= 1
        return [end]

    def _open_one(self) -> bytes:
        self._last_id += 2
        self._replies[self._last_id] = 0
        return self._last_id.to_bytes(4, "big").join(self._script.steps[0])
