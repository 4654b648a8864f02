"""The sending half of a connection: frames out, within the windows that the peer gives.

A message that fits goes straight to the frames of this turn. One that does not waits in its
stream's queue, and the streams that have something to send form a ring: each in turn sends one
frame, so that a large message never holds up the small ones of other streams. A turn has an end
too, after which the next piece is for the transport to ask for.
"""

import struct
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from epp.proxy.http2.frames import (
    DATA,
    DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    END_HEADERS,
    FRAME_HEAD,
    HEADERS,
    MAX_WINDOW_BYTES,
    frame,
)
from epp.proxy.http2.grpc_framing import PREFIX_BYTES, PREFIX_HEAD
from epp.proxy.http2.hpack_cache import TABLE_SIZE_ZERO
from epp.proxy.http2.streams import Stream

__all__ = ["Outbox"]

_TURN_BYTES: Final = 256 << 10
_USEFUL_BYTES: Final = 1_024
_MESSAGE_HEAD: Final = struct.Struct(">HBBBIBI")
"""The head of a DATA frame and the prefix of the one message in it."""


class Outbox:
    """What goes out on one connection.

    ``window_bytes`` is what the peer takes on the connection as a whole, ``initial_window_bytes``
    on a new stream. A stream is full at ``buffer_bytes`` in its queue, and has room again at half
    of that. ``useful_frames`` counts the messages and large frames that were sent.
    """

    __slots__ = (
        "_block_prefix",
        "_buffer_bytes",
        "_frames",
        "_is_paused",
        "_ring",
        "_turn_left",
        "ended",
        "initial_window_bytes",
        "max_frame_bytes",
        "now",
        "progress_s",
        "relieved",
        "useful_frames",
        "window_bytes",
    )

    def __init__(self, buffer_bytes: int, now: float):
        self._frames: list[bytes | memoryview] = []
        self._ring: OrderedDict[int, Stream] = OrderedDict()
        self._turn_left = _TURN_BYTES
        self._is_paused = False
        self._block_prefix = TABLE_SIZE_ZERO
        self._buffer_bytes = buffer_bytes
        self.window_bytes = DEFAULT_WINDOW_BYTES
        self.initial_window_bytes = DEFAULT_WINDOW_BYTES
        self.max_frame_bytes = DEFAULT_MAX_FRAME_BYTES
        self.useful_frames = 0
        self.now = now
        self.progress_s = now
        self.ended: list[Stream] = []
        """Streams whose last frame was sent by :meth:`flush`, for the connection to take away."""
        self.relieved: list[Stream] = []
        """Streams that were full and have room again, likewise."""

    # What is sent at once

    def control(self, frame_bytes: bytes) -> None:
        """Send a frame that no window holds back."""
        self._frames.append(frame_bytes)

    def headers(self, stream: Stream, block: bytes) -> None:
        """Send the header section of a response."""
        stream.has_headers = True
        self._frames.append(self.headers_frame(stream.id, END_HEADERS, block))

    def headers_frame(self, stream_id: int, flags: int, block: bytes) -> bytes:
        """Return a HEADERS frame. It must be sent before any that is made later."""
        prefix, self._block_prefix = self._block_prefix, b""
        return frame(HEADERS, flags, stream_id, prefix + block)

    def message(self, stream: Stream, payload: bytes) -> None:
        """Send one gRPC message, or as much of it as may go, and keep the rest."""
        size = len(payload) + PREFIX_BYTES
        self.useful_frames += 1
        if (
            size <= stream.send_window
            and size <= self.max_frame_bytes
            and size <= self._turn_left
            and size <= self.window_bytes
            and not stream.queued_bytes
        ):
            stream.send_window -= size
            self.window_bytes -= size
            self._turn_left -= size
            frames = self._frames
            frames.append(
                _MESSAGE_HEAD.pack(size >> 8, size & 0xFF, DATA, 0, stream.id, 0, len(payload))
            )
            frames.append(payload)
        else:
            self.enqueue(stream, PREFIX_HEAD.pack(0, len(payload)), payload)

    def end(self, stream: Stream, tail: bytes) -> bool:
        """Send the stream's last frame after all that waits; return whether that was at once."""
        stream.is_ended = True
        if stream.queued_bytes:
            stream.tail = tail
            return False
        self._frames.append(tail)
        return True

    # What has to wait

    def enqueue(self, stream: Stream, *parts: bytes) -> None:
        """Keep bytes of DATA frames until there is room for them."""
        if not self._ring:
            self.progress_s = self.now
        if stream.queue is None:
            stream.queue = deque()
        if not stream.queued_bytes:
            stream.progress_s = self.now
        stream.queue.extend(part for part in parts if part)
        stream.queued_bytes += sum(map(len, parts))
        if stream.queued_bytes > self._buffer_bytes:
            stream.is_full = True
        self._ring[stream.id] = stream

    def forget(self, stream: Stream) -> None:
        """Drop what waits on a stream that is over."""
        self._ring.pop(stream.id, None)
        stream.queue = None
        stream.queued_bytes = 0
        stream.tail = None

    @property
    def has_waiting(self) -> bool:
        """Whether some stream may have something to send."""
        return bool(self._ring)

    @property
    def is_stalled(self) -> bool:
        """Whether the connection as a whole takes nothing of what waits, since ``progress_s``."""
        return self._is_paused or (bool(self._ring) and self.window_bytes <= 0)

    def pause(self) -> None:
        """The transport takes no more: keep what can be kept."""
        if not self._is_paused:
            self._is_paused = True
            self._turn_left = 0
            self.progress_s = self.now

    def resume(self) -> None:
        """The transport takes bytes again."""
        self._is_paused = False
        self._turn_left = _TURN_BYTES

    def flush(self) -> None:
        """Send what waits, one frame per stream in turn, as far as everything allows."""
        ring = self._ring
        while ring and self._turn_left > 0 and self.window_bytes > 0:
            _, stream = ring.popitem(last=False)
            if stream.send_window <= 0:
                continue  # joins again with its next window
            self._send_frame(stream)
            if stream.is_full and stream.queued_bytes <= self._buffer_bytes // 2:
                stream.is_full = False
                self.relieved.append(stream)
            if stream.queued_bytes:
                ring[stream.id] = stream
            elif stream.tail is not None:
                self._frames.append(stream.tail)
                stream.tail = None
                self.ended.append(stream)

    def take(self) -> bytes:
        """Return the frames of this turn as one piece, and begin the next turn."""
        frames = self._frames
        if not frames:
            return b""
        self._frames = []
        if not self._is_paused:
            self._turn_left = _TURN_BYTES
        return b"".join(frames) if len(frames) > 1 else bytes(frames[0])

    def _send_frame(self, stream: Stream) -> None:
        """Send one DATA frame of what waits, across the borders of messages."""
        queue = stream.queue
        assert queue is not None
        room = min(self.max_frame_bytes, stream.send_window, self.window_bytes)
        size = min(room, stream.queued_bytes)
        frames = self._frames
        frames.append(FRAME_HEAD.pack(size >> 8, size & 0xFF, DATA, 0, stream.id))
        left = size
        while left:
            part = queue.popleft()
            if len(part) > left:
                view = memoryview(part)
                queue.appendleft(view[left:])
                part = view[:left]
            frames.append(part)
            left -= len(part)
        stream.queued_bytes -= size
        stream.send_window -= size
        self.window_bytes -= size
        self._turn_left -= size
        stream.progress_s = self.progress_s = self.now
        if size >= _USEFUL_BYTES:
            self.useful_frames += 1

    # What the peer allows

    def widen(self, increment: int) -> bool:
        """Add to the connection's window; return False if it gets too large (section 6.9.1)."""
        self.window_bytes += increment
        return self.window_bytes <= MAX_WINDOW_BYTES

    def widen_stream(self, stream: Stream, increment: int) -> bool:
        """Add to a stream's window, likewise."""
        stream.send_window += increment
        if stream.queued_bytes:
            self._ring[stream.id] = stream
        return stream.send_window <= MAX_WINDOW_BYTES

    def change_initial_window(self, window_bytes: int, streams: Iterable[Stream]) -> bool:
        """Adjust the windows of all streams to a new setting, likewise (section 6.9.2)."""
        change = window_bytes - self.initial_window_bytes
        self.initial_window_bytes = window_bytes
        return all([self.widen_stream(stream, change) for stream in streams])
