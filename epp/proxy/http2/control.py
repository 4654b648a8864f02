"""A connection as a whole: its limits, its end, and the frames that are about it.

The half of :class:`epp.proxy.http2.connection.ServerConnection` that knows nothing of requests:
settings, pings, windows, resets, the graceful end and the sudden one, and what is to be done when
time passes.
"""

import struct
from collections.abc import MutableMapping
from typing import Final

from epp.proxy.http2.events import (
    CallReset,
    ConnectionTerminated,
    Event,
    PeerGoaway,
    Writable,
)
from epp.proxy.http2.frames import (
    ACK,
    DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    MAX_FRAME_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW_BYTES,
    PING,
    SETTINGS,
    ErrorCode,
    SettingId,
    frame,
    goaway_frame,
    reset_frame,
    settings_frame,
    window_update_frame,
)
from epp.proxy.http2.limits import (
    Allowance,
    ConnectionFault,
    ConnectionSettings,
    Limit,
    StreamFault,
)
from epp.proxy.http2.outbox import Outbox
from epp.proxy.http2.streams import PastStreams, Stream

__all__ = ["ConnectionControl"]

_DRAIN_PING: Final = b"epp-away"
_LONG: Final = struct.Struct(">I")
_LONGS: Final = struct.Struct(">II")
_SETTING: Final = struct.Struct(">HI")
_STREAMS_PER_TOKEN: Final = 64
_MAX_DEBUG_BYTES: Final = 200


class ConnectionControl:
    """Connection-level state of a server, and the handlers of the frames that change it."""

    def __init__(
        self, settings: ConnectionSettings, now: float, counters: MutableMapping[Limit, int]
    ):
        self._settings = settings
        self._counters = counters
        self._now = now
        self._opened_s = now
        self._events: list[Event] = []
        self._streams: dict[int, Stream] = {}
        self._past = PastStreams()
        self._outbox = Outbox(settings.send_buffer_bytes, now)
        self._last_stream_id = -1
        self._receive_window = settings.connection_window_bytes
        self._receive_low = self._receive_window // 2
        self._stream_low = settings.stream_window_bytes // 2
        self._received_messages = 0
        self._unfinished_bytes = 0
        self._thirsty: dict[int, Stream] = {}
        self._resets = Allowance(settings.reset_burst, settings.reset_rate_per_s, now)
        self._useless = Allowance(settings.useless_burst, settings.useless_rate_per_s, now)
        self._has_settings = False
        self._was_acknowledged = False
        self._is_terminated = False
        self._draining_since: float | None = None
        self._goaway_id = MAX_STREAM_ID
        self._send_preface()

    def _send_preface(self) -> None:
        settings = self._settings
        values = {
            SettingId.MAX_CONCURRENT_STREAMS: (
                settings.announced_streams or settings.max_concurrent_streams
            ),
            SettingId.INITIAL_WINDOW_SIZE: settings.stream_window_bytes,
            SettingId.MAX_FRAME_SIZE: settings.max_frame_bytes,
            SettingId.MAX_HEADER_LIST_SIZE: settings.max_header_list_bytes,
        }
        self._outbox.control(settings_frame(values.items()))
        increment = settings.connection_window_bytes - DEFAULT_WINDOW_BYTES
        if increment:
            self._outbox.control(window_update_frame(0, increment))

    # The end

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do but to send what is left and to close."""
        is_drained = self._goaway_id != MAX_STREAM_ID and not self._streams
        return self._is_terminated or is_drained

    def begin_goaway(self) -> None:
        """Ask the client to go elsewhere with new calls; those that are open go on.

        In two steps, so that no call is lost that is on its way: the first names no last stream
        and asks for an answer; the second follows when the answer, or :meth:`tick`, says that the
        client knows. :attr:`is_finished` turns true with the end of the last call.
        """
        if not self._is_terminated and self._draining_since is None:
            self._draining_since = self._now
            self._outbox.control(goaway_frame(MAX_STREAM_ID, ErrorCode.NO_ERROR))
            self._outbox.control(frame(PING, 0, 0, _DRAIN_PING))

    def _finish_goaway(self) -> None:
        if self._goaway_id == MAX_STREAM_ID and not self._is_terminated:
            self._goaway_id = max(self._last_stream_id, 0)
            self._outbox.control(goaway_frame(self._goaway_id, ErrorCode.NO_ERROR))

    def _terminate(self, fault: ConnectionFault) -> None:
        """Tell both sides that the connection is over."""
        self._count(fault.limit)
        last = min(max(self._last_stream_id, 0), self._goaway_id)
        debug = fault.reason.encode()[:_MAX_DEBUG_BYTES]
        self._outbox.control(goaway_frame(last, fault.code, debug))
        self._reset_all(fault.code, fault.reason)

    def _reset_all(self, code: ErrorCode, reason: str) -> None:
        self._is_terminated = True
        for stream in self._streams.values():
            if not stream.is_ended:
                self._events.append(CallReset(stream.id, code, reason))
            self._outbox.forget(stream)
        self._streams.clear()
        self._events.append(ConnectionTerminated(code, reason))

    def lost(self) -> list[Event]:
        """The transport is gone: return what that means to the calls. Nothing follows it."""
        if not self._is_terminated:
            self._reset_all(ErrorCode.NO_ERROR, "the connection was lost")
        return self.take_events()

    # Time, limits and faults

    def tick(self, now: float) -> list[Event]:
        """Do what is due by now; to be called about once a second."""
        self._now = self._outbox.now = now
        if self._is_terminated:
            return self.take_events()
        try:
            self._check_settings_timeout()
            self._check_stalls()
        except ConnectionFault as fault:
            self._terminate(fault)
        since = self._draining_since
        if since is not None and now - since >= self._settings.drain_ping_timeout_s:
            self._finish_goaway()
        return self.take_events()

    def _check_settings_timeout(self) -> None:
        if self._was_acknowledged:
            return
        if self._now - self._opened_s >= self._settings.settings_timeout_s:
            reason = "the settings were not acknowledged in time"
            raise ConnectionFault(ErrorCode.SETTINGS_TIMEOUT, reason, Limit.SETTINGS_TIMEOUT)

    def _check_stalls(self) -> None:
        """Give up on a peer, or a stream of it, that takes nothing of what waits for it."""
        outbox = self._outbox
        oldest = self._now - self._settings.stall_timeout_s
        reason = "nothing of what waits was taken"
        if outbox.is_stalled and outbox.progress_s <= oldest:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason, Limit.STALLED_CONNECTION)
        stalled = [
            stream.id
            for stream in self._streams.values()
            if stream.queued_bytes and stream.send_window <= 0 and stream.progress_s <= oldest
        ]
        for stream_id in stalled:
            code = ErrorCode.ENHANCE_YOUR_CALM
            self._reset_by_fault(StreamFault(stream_id, code, reason, Limit.STALLED_STREAM))

    def _spend(self, limit: Limit, tokens: int = 1) -> None:
        """Pay for a frame that has no use of its own; raise ConnectionFault for a flood."""
        useful = self._outbox.useful_frames + self._received_messages
        if not self._useless.spend(tokens, self._now, useful):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, limit.value, limit)

    def _spend_reset(self, stream: Stream) -> None:
        """Pay for a call that was given up soon and unanswered; raise ConnectionFault likewise."""
        is_young = self._now - stream.opened_s < self._settings.rapid_reset_s
        if stream.has_headers or not is_young:
            return
        if not self._resets.spend(1, self._now, self._outbox.useful_frames):
            reason = "too many calls that were opened to be reset"
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, reason, Limit.RAPID_RESET)

    def _count(self, limit: Limit) -> None:
        self._counters[limit] = self._counters.get(limit, 0) + 1

    def _reset_by_fault(self, fault: StreamFault) -> None:
        """Reset a stream, alive or not, for what the peer did. Raises ConnectionFault where it
        does so too often."""
        self._count(fault.limit)
        self._outbox.control(reset_frame(fault.stream_id, fault.code))
        self._past.add_reset(fault.stream_id)
        stream = self._streams.get(fault.stream_id)
        if stream is not None:
            self._drop(stream)
            if not stream.is_ended:
                self._events.append(CallReset(stream.id, fault.code, fault.reason))
            self._spend_reset(stream)
        self._spend(Limit.USELESS_FRAME_FLOOD)

    def _drop(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        self._streams.pop(stream.id, None)
        self._drop_assembly(stream)
        self._outbox.forget(stream)

    def _drop_assembly(self, stream: Stream) -> None:
        """Forget the message that a stream has sent in part, or take it away complete."""
        if stream.assembly is not None:
            self._unfinished_bytes -= stream.assembly.buffered_bytes
            stream.assembly = None

    def take_events(self) -> list[Event]:
        """Return what has happened since it was last asked for."""
        events, self._events = self._events, []
        return events

    # Windows

    def _mark_thirsty(self, stream: Stream) -> None:
        """Note that little is left of a stream's window, or fault the peer if it took too much."""
        if stream.receive_window < 0:
            reason = "more data than the stream's window allows"
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR, reason)
        self._thirsty[stream.id] = stream

    def _give_windows(self) -> None:
        """Let the peer send more, for all that has come in this turn.

        Not at once, so that what the peer may send is what it can have been told.
        """
        if self._receive_window < self._receive_low:
            increment = self._settings.connection_window_bytes - self._receive_window
            self._receive_window += increment
            self._outbox.control(window_update_frame(0, increment))
        if self._thirsty:
            for stream in self._thirsty.values():
                self._give_window(stream)
            self._thirsty.clear()

    def _give_window(self, stream: Stream) -> None:
        """Let the peer send more on a stream, unless it is held back."""
        is_held_back = stream.is_reading_paused or stream.is_full
        if is_held_back or stream.is_ended or not stream.is_remote_open:
            return
        if stream.receive_window < self._stream_low and stream.id in self._streams:
            increment = self._settings.stream_window_bytes - stream.receive_window
            stream.receive_window += increment
            self._outbox.control(window_update_frame(stream.id, increment))

    def _relieve(self, stream: Stream) -> None:
        """Let a stream that was held back go on."""
        self._give_window(stream)
        if not stream.is_ended:
            self._events.append(Writable(stream.id))

    # Frames about the connection

    def _is_idle(self, stream_id: int) -> bool:
        """Whether a stream was never opened; those of a server never are."""
        return stream_id > self._last_stream_id or not stream_id & 1

    def _stream_fault(
        self, stream_id: int, code: ErrorCode, reason: str
    ) -> StreamFault | ConnectionFault:
        """Return the error of a stream; one that cannot be reset takes the connection with it."""
        if stream_id in self._streams:
            return StreamFault(stream_id, code, reason)
        return ConnectionFault(code, reason)

    def _require_stream(self, stream_id: int, length: int, wanted: int, what: str) -> None:
        """Raise unless the frame is on some stream and of the one length that it can have."""
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream 0")
        if length != wanted:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"{what} of {length} bytes")

    def _require_connection(self, stream_id: int, what: str) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} on stream {stream_id}")

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.5."""
        self._require_connection(stream_id, "SETTINGS")
        length = len(payload)
        if length % 6 or (flags & ACK and length):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {length} bytes")
        if self._has_settings:
            self._spend(Limit.SETTINGS_FLOOD, 1 + len(self._streams) // _STREAMS_PER_TOKEN)
        if flags & ACK:
            self._was_acknowledged = True
            return
        self._has_settings = True
        values = dict(_SETTING.iter_unpack(payload))
        push = values.get(SettingId.ENABLE_PUSH, 0)
        if push > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"SETTINGS_ENABLE_PUSH {push}")
        frame_bytes = values.get(SettingId.MAX_FRAME_SIZE, self._outbox.max_frame_bytes)
        if not DEFAULT_MAX_FRAME_BYTES <= frame_bytes <= MAX_FRAME_BYTES:
            raise ConnectionFault(
                ErrorCode.PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE {frame_bytes}"
            )
        self._outbox.max_frame_bytes = frame_bytes
        window = values.get(SettingId.INITIAL_WINDOW_SIZE, self._outbox.initial_window_bytes)
        if window > MAX_WINDOW_BYTES or not self._outbox.change_initial_window(
            window, self._streams.values()
        ):
            reason = f"SETTINGS_INITIAL_WINDOW_SIZE {window} makes a window too large"
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, reason)
        self._outbox.control(frame(SETTINGS, ACK, 0))

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.7."""
        self._require_connection(stream_id, "PING")
        if len(payload) != len(_DRAIN_PING):
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        self._spend(Limit.PING_FLOOD)
        if not flags & ACK:
            self._outbox.control(frame(PING, ACK, 0, payload))
        elif payload == _DRAIN_PING and self._draining_since is not None:
            self._finish_goaway()

    def _on_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.8."""
        self._require_connection(stream_id, "GOAWAY")
        if len(payload) < _LONGS.size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self._spend(Limit.USELESS_FRAME_FLOOD)
        last, code = _LONGS.unpack_from(payload)
        self._events.append(PeerGoaway(last & MAX_STREAM_ID, code, payload[_LONGS.size :]))

    def _on_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.9."""
        if len(payload) != _LONG.size:
            reason = f"WINDOW_UPDATE of {len(payload)} bytes"
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, reason)
        self._spend(Limit.WINDOW_UPDATE_FLOOD)
        increment = _LONG.unpack(payload)[0] & MAX_WINDOW_BYTES
        if not stream_id:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            if not self._outbox.widen(increment):
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window of more than 2^31-1")
            return
        stream = self._streams.get(stream_id)
        if stream is None and self._is_idle(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
        if not increment:
            raise self._stream_fault(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        if stream is not None and not self._outbox.widen_stream(stream, increment):
            raise StreamFault(
                stream_id, ErrorCode.FLOW_CONTROL_ERROR, "a window of more than 2^31-1"
            )

    def _on_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        """Section 6.3. Priorities are not used; a stream that depends on itself is the one mistake
        that RFC 7540, section 5.3.1, made an error."""
        if not stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._spend(Limit.USELESS_FRAME_FLOOD)
        code = None
        if len(payload) != 5:
            code = ErrorCode.FRAME_SIZE_ERROR
        elif _LONG.unpack_from(payload)[0] & MAX_STREAM_ID == stream_id:
            code = ErrorCode.PROTOCOL_ERROR
        if code is not None:
            raise self._stream_fault(stream_id, code, "a PRIORITY frame that is not valid")

    def _on_push_promise(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        """Section 8.4: a client cannot push."""
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
