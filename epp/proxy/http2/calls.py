"""The application's side of a connection: what it sends on its calls, and how they end.

The sending half of :class:`epp.proxy.http2.connection.ServerConnection`.
"""

from typing import Final

from epp.proxy.http2.control import ConnectionControl
from epp.proxy.http2.events import CallReset
from epp.proxy.http2.frames import DATA, END_HEADERS, END_STREAM, ErrorCode, frame, reset_frame
from epp.proxy.http2.grpc_framing import GrpcFault, GrpcStatus
from epp.proxy.http2.limits import Limit, StreamFault
from epp.proxy.http2.requests import Refusal
from epp.proxy.http2.responses import (
    RESPONSE_BLOCK,
    refusal_block,
    refusal_body,
    trailers_block,
    trailers_only_block,
)
from epp.proxy.http2.streams import Stream

__all__ = ["ConnectionCalls"]

_OVERSIZED_HEADERS_TOKENS: Final = 20


class ConnectionCalls(ConnectionControl):
    """The calls of a connection, by the numbers of their streams.

    What is sent on a call that is over is dropped silently: the application may not have seen its
    :class:`CallReset` yet.
    """

    def data_to_send(self) -> bytes:
        """Return what the transport is to write now, empty if there is nothing.

        There may be more after it: ask again until there is nothing.
        """
        if self._outbox.has_waiting:
            self._flush()
        return self._outbox.take()

    @property
    def has_more(self) -> bool:
        """Whether, after :meth:`data_to_send`, there are events to take or more data to send."""
        return bool(self._events) or self._outbox.has_waiting

    def pause_sending(self) -> None:
        """The transport's buffer is full: keep messages back until :meth:`resume_sending`."""
        self._outbox.pause()

    def resume_sending(self) -> None:
        """The transport has room again: ask for data to send."""
        self._outbox.resume()

    @property
    def open_streams(self) -> int:
        """How many streams are not closed."""
        return len(self._streams)

    def send_message(self, stream_id: int, payload: bytes) -> None:
        """Send a message on a call, as soon as the peer takes it."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_ended:
            return
        if not stream.has_headers:
            self._outbox.headers(stream, RESPONSE_BLOCK)
        self._outbox.message(stream, payload)

    def end_call(
        self, stream_id: int, status: GrpcStatus = GrpcStatus.OK, message: str = ""
    ) -> None:
        """End a call with a status once all its messages are sent; no event follows."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.is_ended:
            return
        make_block = trailers_block if stream.has_headers else trailers_only_block
        self._end(stream, make_block(status, message))

    def reset(self, stream_id: int, code: ErrorCode = ErrorCode.CANCEL) -> None:
        """Break a call off: what is not sent yet is dropped, and no event follows."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._outbox.control(reset_frame(stream_id, code))
            self._past.add_reset(stream_id)
            self._drop(stream)

    def is_writable(self, stream_id: int) -> bool:
        """Whether a call has room for messages; if not, :class:`Writable` will tell."""
        stream = self._streams.get(stream_id)
        return stream is not None and not stream.is_ended and not stream.is_full

    def buffered_bytes(self, stream_id: int) -> int:
        """Return how much of a call's messages waits for the peer's windows."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.queued_bytes

    def pause_reading(self, stream_id: int) -> None:
        """Give the client no credit for more on this call than it has now.

        What it may still send, a window at most, goes on to arrive. Without this a call's credit is
        renewed as its data comes, except while the call is full.
        """
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.is_reading_paused = True

    def resume_reading(self, stream_id: int) -> None:
        """Let the client send again."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.is_reading_paused:
            stream.is_reading_paused = False
            self._give_window(stream)

    # Ends

    def _flush(self) -> None:
        """Send what waits, as far as there is room, and see what has come to its end by that."""
        outbox = self._outbox
        outbox.flush()
        relieved, outbox.relieved = outbox.relieved, []
        for stream in relieved:
            self._relieve(stream)
        ended, outbox.ended = outbox.ended, []
        for stream in ended:
            self._finish(stream)

    def _check_admission(self, stream_id: int) -> None:
        """Refuse a stream that may be tried again elsewhere or later (sections 5.1.2 and 6.8)."""
        if len(self._streams) >= self._settings.max_concurrent_streams:
            limit = Limit.CONCURRENT_STREAMS
        elif stream_id > self._goaway_id:
            limit = Limit.GOAWAY
        else:
            return
        raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM, limit.value, limit)

    def _refuse(self, stream: Stream, refusal: Refusal) -> None:
        """Answer what is no call that is served here."""
        if refusal.http_status == 431:
            self._count(Limit.HEADER_LIST)
            self._spend(Limit.HEADER_LIST, _OVERSIZED_HEADERS_TOKENS)
        block = refusal_block(refusal)
        if refusal.grpc_status is not None:
            self._end(stream, block)
            return
        stream.lingers = True
        self._outbox.headers(stream, block)
        if refusal.has_content:
            self._outbox.enqueue(stream, refusal_body(refusal))
        if self._outbox.end(stream, frame(DATA, END_STREAM, stream.id)):
            self._finish(stream)

    def _fail(self, stream: Stream, fault: GrpcFault, limit: Limit | None = None) -> None:
        """End a call for what its messages are; the application is told."""
        if limit is None:
            is_size = fault.status is GrpcStatus.RESOURCE_EXHAUSTED
            limit = Limit.MESSAGE_SIZE if is_size else Limit.PROTOCOL_ERROR
        self._count(limit)
        self._drop_assembly(stream)
        self._events.append(CallReset(stream.id, ErrorCode.NO_ERROR, fault.message))
        self.end_call(stream.id, fault.status, fault.message)

    def _end(self, stream: Stream, block: bytes) -> None:
        """Send the last section of a stream once everything else is sent."""
        stream.has_headers = True
        flags = END_HEADERS | END_STREAM
        if self._outbox.end(stream, self._outbox.headers_frame(stream.id, flags, block)):
            self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """All is sent. The client need not send more, but one that does not know gRPC may not
        understand that, so a refused one is let go on for a while (section 8.1)."""
        if not stream.is_remote_open:
            self._drop(stream)
        elif not stream.lingers or stream.receive_window < self._stream_low:
            self.reset(stream.id, ErrorCode.NO_ERROR)
