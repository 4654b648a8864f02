"""What a connection tells its application, in the order in which it happened.

Several may come at once, so those that follow may be about a call that the application has just
ended because of the first.
"""

from typing import TypeAlias

import msgspec

from epp.proxy.http2.hpack_cache import Field

__all__ = [
    "CallReset",
    "CallStarted",
    "ConnectionTerminated",
    "Event",
    "HalfClosed",
    "Message",
    "PeerGoaway",
    "Writable",
]


class CallStarted(msgspec.Struct, frozen=True, gc=False):
    """A gRPC call of one of the served methods.

    ``headers`` are the request's fields but for the pseudo-header fields; ``timeout_s`` is the
    client's deadline in seconds from now, None where it has none.
    """

    stream_id: int
    path: str
    headers: tuple[Field, ...]
    timeout_s: float | None


class Message(msgspec.Struct, frozen=True, gc=False):
    """One whole message of a call, uncompressed."""

    stream_id: int
    payload: bytes


class HalfClosed(msgspec.Struct, frozen=True, gc=False):
    """The client has sent its last message; the call still waits for its end."""

    stream_id: int


class CallReset(msgspec.Struct, frozen=True, gc=False):
    """The call is over, and not by the application: whatever is still sent on it is dropped.

    ``error_code`` is the peer's where the peer has reset the stream, else the one it was told.
    """

    stream_id: int
    error_code: int
    reason: str


class Writable(msgspec.Struct, frozen=True, gc=False):
    """A call that was full has room again."""

    stream_id: int


class PeerGoaway(msgspec.Struct, frozen=True, gc=False):
    """The client is going to leave; its calls go on until they end."""

    last_stream_id: int
    error_code: int
    debug: bytes


class ConnectionTerminated(msgspec.Struct, frozen=True, gc=False):
    """The connection is at its end; its calls were reset. Send what is left, then close it."""

    error_code: int
    reason: str


Event: TypeAlias = (
    CallStarted | Message | HalfClosed | CallReset | Writable | PeerGoaway | ConnectionTerminated
)
