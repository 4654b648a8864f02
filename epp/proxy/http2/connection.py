"""The server's end of an HTTP/2 connection that carries gRPC calls: bytes in, events out; calls in,
bytes out. No sockets, no tasks, no clock.

A driver needs no more than this::

    events = connection.receive(data, now)           # or tick(now), or lost()
    while True:
        for event in events:                         # answer by send_message, end_call, reset
            ...
        data = connection.data_to_send()
        if not data:
            break
        transport.write(data)
        events = connection.take_events()
    if connection.is_finished:
        transport.close()

and ``pause_sending`` and ``resume_sending`` when the transport says so. All frames of a turn leave
in one write; a large backlog leaves in several, so that the transport can say stop.

The rules are those of RFC 9113, cited as "section", and of gRPC over HTTP/2. Server push and
priorities are not used.
"""

from collections.abc import Callable, MutableMapping
from typing import Final, TypeAlias

from epp.proxy.http2.blocks import FieldBlocks, Headers, without_padding
from epp.proxy.http2.calls import ConnectionCalls
from epp.proxy.http2.events import CallReset, CallStarted, Event, HalfClosed, Message
from epp.proxy.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    FRAME_HEAD,
    FRAME_HEAD_BYTES,
    GOAWAY,
    HEADERS,
    MAX_STREAM_ID,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
)
from epp.proxy.http2.grpc_framing import (
    PREFIX_BYTES,
    PREFIX_HEAD,
    Assembly,
    GrpcFault,
    GrpcStatus,
    check_length,
    unpack_payload,
)
from epp.proxy.http2.limits import ConnectionFault, ConnectionSettings, Limit, StreamFault
from epp.proxy.http2.requests import Malformed, Opening, Refusal, check_trailers, read_request
from epp.proxy.http2.responses import BAD_REQUEST_BLOCK
from epp.proxy.http2.streams import Stream

__all__ = ["ServerConnection"]

_TINY_BYTES: Final = 64
_SECTION_BYTES_PER_TOKEN: Final = 1_024
"""A section costs up to 0.3 ms per KB to decode; a proxy's own headers are smaller than that."""


class ServerConnection(ConnectionCalls):
    """One connection. ``now`` is in monotonic seconds; ``counters``, which may be shared, say how
    often each limit was met."""

    def __init__(
        self,
        settings: ConnectionSettings,
        now: float,
        counters: MutableMapping[Limit, int] | None = None,
    ):
        super().__init__(settings, now, {} if counters is None else counters)
        self._max_frame_bytes = settings.max_frame_bytes
        self._max_message_bytes = settings.max_message_bytes
        self._blocks = FieldBlocks(settings.max_header_list_bytes)
        self._rest = b""
        self._has_preface = False

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the transport; return what has happened."""
        self._now = self._outbox.now = now
        if self._is_terminated:
            return self.take_events()
        try:
            start = self._finish_frame(data) if self._rest else 0
            if start < len(data):
                self._rest = data[self._read_frames(data, start) :]
            if self._thirsty or self._receive_window < self._receive_low:
                self._give_windows()
            if self._outbox.has_waiting:
                self._flush()  # new room is for what waits first, then for what is new
        except ConnectionFault as fault:
            self._rest = b""
            self._terminate(fault)
        return self.take_events()

    def _finish_frame(self, data: bytes) -> int:
        """Handle the frame that was cut off at the end of the last read, if it is complete now;
        return where the next one starts. The rest of ``data``, which may be large, is not copied.
        """
        rest = self._rest
        missing = len(data)
        if self._has_preface and len(rest) >= FRAME_HEAD_BYTES:
            missing = FRAME_HEAD_BYTES + int.from_bytes(rest[:3], "big") - len(rest)
        together = rest + data[:missing]
        self._rest = b""
        self._rest = together[self._read_frames(together, 0) :]
        return min(missing, len(data))

    def _read_frames(self, data: bytes, position: int) -> int:
        """Handle all frames that are complete; return where the rest starts."""
        if not self._has_preface:
            position = self._read_preface(data)
            self._has_preface = position > 0
            if not position:
                return 0
        end = len(data)
        unpack = FRAME_HEAD.unpack_from
        blocks = self._blocks
        max_frame_bytes = self._max_frame_bytes
        while end - position >= FRAME_HEAD_BYTES:
            high, low, kind, flags, stream_id = unpack(data, position)
            length = high << 8 | low
            if length > max_frame_bytes:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            start = position + FRAME_HEAD_BYTES
            stop = start + length
            if stop > end:
                break
            position = stop
            stream_id &= MAX_STREAM_ID
            try:
                if kind == DATA and not blocks.open_id and self._has_settings:
                    self._on_data(flags, stream_id, data, start, stop)
                else:
                    self._on_frame(kind, flags, stream_id, data[start:stop])
            except StreamFault as fault:
                self._reset_by_fault(fault)
        return position

    def _read_preface(self, data: bytes) -> int:
        """Return where the first frame starts, 0 until the whole preface is here (section 3.4)."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            found = "TLS, which is not spoken here" if data[:1] == b"\x16" else "something else"
            reason = f"expected an HTTP/2 connection preface, found {found}"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
        return len(PREFACE) if len(data) >= len(PREFACE) else 0

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Handle any frame but DATA in its place."""
        open_id = self._blocks.open_id
        if open_id and (kind != CONTINUATION or stream_id != open_id):
            reason = "a field block that is interrupted by another frame"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
        if not self._has_settings and (kind != SETTINGS or flags & ACK):
            reason = "a connection preface without SETTINGS"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
        handler = _HANDLERS.get(kind)
        if handler is None:
            self._spend(Limit.USELESS_FRAME_FLOOD)  # section 5.5: ignored
        else:
            handler(self, flags, stream_id, payload)

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        headers = self._blocks.headers(flags, stream_id, payload)
        if headers is not None:
            self._on_section(headers)

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        headers = self._blocks.continuation(flags, stream_id, payload)
        if headers is not None:
            self._on_section(headers)

    def _on_section(self, headers: Headers) -> None:
        """A request, trailers, or a mistake (sections 5.1 and 8.1)."""
        tokens = headers.section.size_bytes // _SECTION_BYTES_PER_TOKEN
        if tokens:
            self._spend(Limit.HEADER_FLOOD, tokens)
        stream_id = headers.stream_id
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._on_trailers(stream, headers)
        elif stream_id > self._last_stream_id:
            self._on_request(headers)
        elif self._past.was_reset(stream_id):
            self._spend(Limit.USELESS_FRAME_FLOOD)
        elif self._past.was_skipped(stream_id):
            reason = f"stream {stream_id} after stream {self._last_stream_id}"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, reason)
        else:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS on closed stream {stream_id}")

    def _on_request(self, headers: Headers) -> None:
        """A stream opens (sections 5.1.1, 5.1.2 and 8.3)."""
        stream_id = headers.stream_id
        if stream_id > self._last_stream_id + 2:
            self._past.add_skipped(self._last_stream_id + 2, stream_id - 2)
        self._last_stream_id = stream_id
        if headers.depends_on_itself:
            reason = "a stream that depends on itself"
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, reason)
        self._check_admission(stream_id)
        reading, content_length = read_request(
            headers.section, self._settings.max_header_list_bytes
        )
        stream = Stream(
            stream_id,
            self._settings.stream_window_bytes,
            self._outbox.initial_window_bytes,
            self._now,
            content_left=content_length,
        )
        if isinstance(reading, Malformed) or (headers.has_end and content_length > 0):
            self._outbox.headers(stream, BAD_REQUEST_BLOCK)
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a malformed request")
        self._streams[stream_id] = stream
        if isinstance(reading, Opening):
            if reading.path in self._settings.methods:
                self._on_call(stream, reading, has_end=headers.has_end)
                return
            reading = Refusal(200, GrpcStatus.UNIMPLEMENTED, f"unknown method {reading.path}")
        stream.is_remote_open = not headers.has_end
        self._refuse(stream, reading)

    def _on_call(self, stream: Stream, opening: Opening, *, has_end: bool) -> None:
        """A call that is served here begins."""
        stream.encoding = opening.encoding
        self._events.append(
            CallStarted(stream.id, opening.path, opening.headers, opening.timeout_s)
        )
        if has_end:
            self._half_close(stream)

    def _on_trailers(self, stream: Stream, headers: Headers) -> None:
        """A second section on a stream (section 8.1)."""
        if not stream.is_remote_open:
            raise StreamFault(stream.id, ErrorCode.STREAM_CLOSED, "HEADERS after the end")
        mistake = check_trailers(headers.section)
        if mistake is None and not headers.has_end:
            mistake = "a trailer section that does not end its stream"
        if mistake is not None:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, mistake)
        self._half_close(stream)

    def _on_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.4."""
        self._require_stream(stream_id, len(payload), 4, "RST_STREAM")
        stream = self._streams.get(stream_id)
        if stream is None:
            if self._is_idle(stream_id):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            self._spend(Limit.USELESS_FRAME_FLOOD)
            return
        self._drop(stream)
        if not stream.is_ended:
            code = int.from_bytes(payload, "big")
            self._events.append(CallReset(stream_id, code, "reset by the peer"))
        self._spend_reset(stream)

    # Data

    def _on_data(self, flags: int, stream_id: int, data: bytes, start: int, stop: int) -> None:
        """Section 6.1. The payload is ``data[start:stop]``, of which nothing was copied."""
        length = stop - start
        self._receive_window -= length
        if self._receive_window < 0:
            reason = "more data than the connection's window allows"
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, reason)
        stream = self._streams.get(stream_id)
        if stream is None or not stream.is_remote_open:
            self._on_stray_data(stream_id)
            return
        stream.receive_window -= length
        if stream.receive_window < self._stream_low:
            self._mark_thirsty(stream)
        if flags & PADDED:
            start, stop = without_padding(data, start, stop)
        if stream.content_left >= 0:
            self._count_content(stream, stop - start)
        if stream.is_ended:
            self._discard(stream, length)
        else:
            try:
                if stream.assembly is None:
                    self._read_messages(stream, data, start, stop)
                else:
                    self._assemble(stream, data, start, stop)
            except GrpcFault as fault:
                self._fail(stream, fault)
        if flags & END_STREAM:
            self._half_close(stream)

    def _read_messages(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        """Take whole messages, and begin to assemble what is cut off at the end."""
        events = self._events
        had = len(events)
        max_message_bytes = self._max_message_bytes
        while stop - start >= PREFIX_BYTES:
            flag, size = PREFIX_HEAD.unpack_from(data, start)
            if size > max_message_bytes:
                check_length(data, start, max_message_bytes)
            body = start + PREFIX_BYTES
            end = body + size
            if end > stop:
                break
            payload = data[body:end]
            if flag:
                payload = unpack_payload(flag, payload, stream.encoding, max_message_bytes)
            events.append(Message(stream.id, payload))
            start = end
        count = len(events) - had
        self._received_messages += count
        if start < stop or not count:
            self._assemble(stream, data, start, stop)

    def _assemble(self, stream: Stream, data: bytes, start: int, stop: int) -> None:
        """Add to a message that comes in pieces."""
        if stop - start < _TINY_BYTES:
            self._spend(Limit.TINY_FRAME_FLOOD)
        if start == stop:
            return
        assembly = stream.assembly
        if assembly is None:
            assembly = stream.assembly = Assembly(self._max_message_bytes)
        had_bytes = assembly.buffered_bytes
        start = assembly.add(data, start, stop)
        self._unfinished_bytes += assembly.buffered_bytes - had_bytes
        if assembly.is_complete:
            self._drop_assembly(stream)
            self._events.append(Message(stream.id, assembly.payload(stream.encoding)))
            self._received_messages += 1
            if start < stop:
                self._read_messages(stream, data, start, stop)
        elif self._unfinished_bytes > self._settings.max_unfinished_bytes:
            message = "too many messages of this connection are incomplete"
            fault = GrpcFault(GrpcStatus.RESOURCE_EXHAUSTED, message)
            self._fail(stream, fault, Limit.UNFINISHED_MESSAGES)

    def _on_stray_data(self, stream_id: int) -> None:
        """DATA where none may come (section 5.1); it has been counted against the window."""
        if not stream_id or (stream_id not in self._streams and self._is_idle(stream_id)):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if not self._past.was_reset(stream_id):
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "DATA after the end")
        self._spend(Limit.USELESS_FRAME_FLOOD)

    def _count_content(self, stream: Stream, length: int) -> None:
        """Check the content against its declared length (section 8.1.1)."""
        stream.content_left -= length
        if stream.content_left < 0:
            reason = "more content than its content-length"
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, reason)

    def _discard(self, stream: Stream, length: int) -> None:
        """Data on a stream that has ended here: it gets no credit, and at last no time."""
        if length < _TINY_BYTES:
            self._spend(Limit.TINY_FRAME_FLOOD)
        if stream.receive_window < self._stream_low and stream.tail is None:
            self.reset(stream.id, ErrorCode.NO_ERROR)

    def _half_close(self, stream: Stream) -> None:
        """The client has ended its side."""
        if stream.content_left > 0:
            reason = "less content than its content-length"
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR, reason)
        stream.is_remote_open = False
        if stream.is_ended:
            if stream.tail is None:
                self._drop(stream)
        elif stream.assembly is not None:
            fault = GrpcFault(GrpcStatus.INTERNAL, "the last message is incomplete")
            self._fail(stream, fault)
        else:
            self._events.append(HalfClosed(stream.id))


_Handler: TypeAlias = Callable[[ServerConnection, int, int, bytes], None]

# Of the class, not of each connection: one that refers to itself would wait for the collector.
_HANDLERS: Final[dict[int, _Handler]] = {
    HEADERS: ServerConnection._on_headers,
    PRIORITY: ServerConnection._on_priority,
    RST_STREAM: ServerConnection._on_reset,
    SETTINGS: ServerConnection._on_settings,
    PUSH_PROMISE: ServerConnection._on_push_promise,
    PING: ServerConnection._on_ping,
    GOAWAY: ServerConnection._on_goaway,
    WINDOW_UPDATE: ServerConnection._on_window_update,
    CONTINUATION: ServerConnection._on_continuation,
}
