"""The streams of a connection: those that live, and what must still be known of the others."""

from collections import OrderedDict, deque
from typing import Final

import msgspec

from epp.proxy.http2.grpc_framing import IDENTITY, Assembly

__all__ = ["PastStreams", "Stream"]

_MAX_RESETS: Final = 1_000
_MAX_SKIPPED_RANGES: Final = 100


class Stream(msgspec.Struct, eq=False, gc=False):
    """One stream that is open or half-closed.

    ``receive_window`` is what the peer may still send, ``send_window`` what it still takes, both in
    bytes; the latter may be negative. ``queue`` holds what has no room in the windows yet.
    ``is_ended``: this side has nothing more to say; ``tail`` is the last frame, until it is sent.
    ``lingers``: a stream that has ended here goes on until the peer has ended it too.
    """

    id: int
    receive_window: int
    send_window: int
    opened_s: float
    encoding: bytes = IDENTITY
    content_left: int = -1
    is_remote_open: bool = True
    has_headers: bool = False
    is_ended: bool = False
    lingers: bool = False
    assembly: Assembly | None = None
    is_reading_paused: bool = False
    queue: deque[bytes | memoryview] | None = None
    queued_bytes: int = 0
    is_full: bool = False
    progress_s: float = 0.0
    tail: bytes | None = None


class PastStreams:
    """What is remembered of streams that are over, within bounds.

    A peer that reset a stream, or ended it, must not go on with it; but after a reset by this side
    its frames may still be on their way, and are no mistake. A number that was skipped can never be
    used (RFC 9113, section 5.1.1), which is another mistake than to use one twice.
    """

    __slots__ = ("_resets", "_skipped")

    def __init__(self) -> None:
        self._resets: OrderedDict[int, None] = OrderedDict()
        self._skipped: deque[range] = deque(maxlen=_MAX_SKIPPED_RANGES)

    def add_reset(self, stream_id: int) -> None:
        """Remember a stream that this side has reset while the peer could still send."""
        self._resets[stream_id] = None
        if len(self._resets) > _MAX_RESETS:
            self._resets.popitem(last=False)

    def was_reset(self, stream_id: int) -> bool:
        """Whether frames for this stream can have been sent in good faith."""
        return stream_id in self._resets

    def add_skipped(self, first: int, last: int) -> None:
        """Remember that the streams from ``first`` to ``last`` were never opened."""
        self._skipped.append(range(first, last + 1, 2))

    def was_skipped(self, stream_id: int) -> bool:
        """Whether this stream was never opened, as far as is still known."""
        return any(stream_id in skipped for skipped in self._skipped)
