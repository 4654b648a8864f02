"""What a peer may ask of one connection, and how it is noticed that it asks too much.

Most of the frames that cost work without doing any are harmless one by one: a ping, a settings
frame, a reset, a long header list. They are paid for out of an :class:`Allowance`, which fills with
time and with the useful work that the peer gives, so a busy proxy never notices it and an idle
flood soon does.
"""

import enum
from typing import Final

import msgspec

from epp.proxy.http2.frames import (
    DEFAULT_MAX_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    MAX_FRAME_BYTES,
    MAX_WINDOW_BYTES,
    ErrorCode,
)

__all__ = ["Allowance", "ConnectionFault", "ConnectionSettings", "Limit", "StreamFault"]

_TOKENS_PER_USEFUL_MESSAGE: Final = 4


class Limit(enum.Enum):
    """Why a stream was refused or ended, or a connection closed, by this side."""

    CONCURRENT_STREAMS = "concurrent_streams"
    GOAWAY = "goaway"
    HEADER_LIST = "header_list"
    HEADER_BOMB = "header_bomb"
    HEADER_FLOOD = "header_flood"
    CONTINUATION_FLOOD = "continuation_flood"
    RAPID_RESET = "rapid_reset"
    SETTINGS_FLOOD = "settings_flood"
    PING_FLOOD = "ping_flood"
    WINDOW_UPDATE_FLOOD = "window_update_flood"
    TINY_FRAME_FLOOD = "tiny_frame_flood"
    USELESS_FRAME_FLOOD = "useless_frame_flood"
    MESSAGE_SIZE = "message_size"
    UNFINISHED_MESSAGES = "unfinished_messages"
    STALLED_STREAM = "stalled_stream"
    STALLED_CONNECTION = "stalled_connection"
    SETTINGS_TIMEOUT = "settings_timeout"
    PROTOCOL_ERROR = "protocol_error"


class ConnectionFault(Exception):
    """The peer has done what ends the connection (section 5.4.1)."""

    def __init__(self, code: ErrorCode, reason: str, limit: Limit = Limit.PROTOCOL_ERROR):
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.limit = limit


class StreamFault(Exception):
    """The peer has done what ends one stream (section 5.4.2)."""

    def __init__(
        self, stream_id: int, code: ErrorCode, reason: str, limit: Limit = Limit.PROTOCOL_ERROR
    ):
        super().__init__(reason)
        self.stream_id = stream_id
        self.code = code
        self.reason = reason
        self.limit = limit


class ConnectionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a connection; the same object serves all connections of a server.

    ``methods`` are the paths of the calls that are served. A peer is asked to keep to
    ``announced_streams`` open streams where that is less than ``max_concurrent_streams``, above
    which streams are refused: it may have opened more before it was asked. A peer may have up to
    ``stream_window_bytes`` on its way to each stream and ``connection_window_bytes`` altogether;
    ``max_unfinished_bytes`` bounds what incomplete messages hold. A stream whose peer takes too
    little is full at ``send_buffer_bytes``: it then gets no credit to send more either.
    ``stall_timeout_s`` is how long a peer may take nothing of what waits for it.
    ``reset_burst`` calls may be given up at once before they were answered, and
    ``reset_rate_per_s`` in the long run; the same goes for frames without use.
    """

    methods: frozenset[str]
    max_concurrent_streams: int = 10_000
    announced_streams: int | None = None
    stream_window_bytes: int = 1 << 20
    connection_window_bytes: int = 16 << 20
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    max_header_list_bytes: int = 32 << 10
    max_message_bytes: int = 4 << 20
    max_unfinished_bytes: int = 256 << 20
    send_buffer_bytes: int = 256 << 10
    stall_timeout_s: float = 30.0
    settings_timeout_s: float = 30.0
    drain_ping_timeout_s: float = 5.0
    rapid_reset_s: float = 1.0
    reset_burst: int = 2_000
    reset_rate_per_s: float = 200.0
    useless_burst: int = 1_000
    useless_rate_per_s: float = 100.0

    def __post_init__(self) -> None:
        """Raise ValueError for what the protocol does not allow."""
        windows = (self.stream_window_bytes, self.connection_window_bytes)
        if not all(DEFAULT_WINDOW_BYTES <= window <= MAX_WINDOW_BYTES for window in windows):
            raise ValueError(f"windows must be of {DEFAULT_WINDOW_BYTES} to {MAX_WINDOW_BYTES}")
        if not DEFAULT_MAX_FRAME_BYTES <= self.max_frame_bytes <= MAX_FRAME_BYTES:
            raise ValueError(
                f"max_frame_bytes must be of {DEFAULT_MAX_FRAME_BYTES} to {MAX_FRAME_BYTES}"
            )


class Allowance:
    """A supply of tokens: ``burst`` at first and at most, ``rate_per_s`` more per second, and some
    for each useful message of the connection.

    It is only looked after when it has run out, so spending costs one subtraction.
    """

    __slots__ = ("_burst", "_left", "_rate_per_s", "_seen_useful", "_since")

    def __init__(self, burst: int, rate_per_s: float, now: float):
        self._burst = burst
        self._left = float(burst)
        self._rate_per_s = rate_per_s
        self._since = now
        self._seen_useful = 0

    def spend(self, tokens: int, now: float, useful: int) -> bool:
        """Take tokens; return False when there are not enough, which means a flood.

        ``useful`` is how many useful messages there were up to now.
        """
        self._left -= tokens
        if self._left >= 0:
            return True
        earned = (now - self._since) * self._rate_per_s
        earned += (useful - self._seen_useful) * _TOKENS_PER_USEFUL_MESSAGE
        self._since = now
        self._seen_useful = useful
        self._left += min(earned, self._burst)
        return self._left >= 0
