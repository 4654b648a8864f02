"""What an exchange says to the proxy, free of the wire's encoding.

``epp.proxy.messages`` turns them into ext_proc messages. ``destination`` is the ``ip:port`` that
the proxy must use, None where the reply names none.
"""

import enum
from typing import Final, Protocol, TypeAlias

import msgspec

__all__ = [
    "MAX_BODY_REPLY_BYTES",
    "BodyContinue",
    "BodyMode",
    "BodyReply",
    "ExtendTimeout",
    "Header",
    "HeadersReply",
    "ImmediateReply",
    "Phase",
    "ProxyStream",
    "Reply",
    "TrailersReply",
    "body_replies",
]

Header: TypeAlias = tuple[bytes, bytes]

MAX_BODY_REPLY_BYTES: Final = 62_000
"""The most body bytes in one reply: Envoy asks for less than 64 KiB."""


class Phase(enum.Enum):
    """Which half of the HTTP exchange a reply is about."""

    REQUEST = "request"
    RESPONSE = "response"

    __hash__ = object.__hash__  # Enum's own is a function in Python


class BodyMode(enum.IntEnum):
    """How the proxy sends a body, with ext_proc's own numbers."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    GRPC = 5


class HeadersReply(msgspec.Struct, frozen=True):
    """Go on with the headers, without those that ``remove_headers`` names, and in the request phase
    without the control headers."""

    phase: Phase
    destination: str | None = None
    set_headers: tuple[Header, ...] = ()
    remove_headers: tuple[bytes, ...] = ()


class BodyReply(msgspec.Struct, frozen=True, gc=False):
    """A piece of a body in full duplex mode: these bytes go on to the other side."""

    phase: Phase
    body: bytes | memoryview
    end_of_stream: bool


class BodyContinue(msgspec.Struct, frozen=True, gc=False):
    """Go on with the body that the proxy holds, in the other modes, or with ``body`` in its place.

    Headers can be changed only while the proxy still holds them, as it does where it buffers.
    """

    phase: Phase
    destination: str | None = None
    body: bytes | None = None
    set_headers: tuple[Header, ...] = ()
    remove_headers: tuple[bytes, ...] = ()


class TrailersReply(msgspec.Struct, frozen=True, gc=False):
    """Go on with the trailers."""

    phase: Phase
    destination: str | None = None


class ImmediateReply(msgspec.Struct, frozen=True):
    """Answer the client with this; the request does not go to a model server."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class ExtendTimeout(msgspec.Struct, frozen=True, gc=False):
    """Ask the proxy to wait this many seconds longer for the reply that is due."""

    timeout_s: float


Reply: TypeAlias = (
    HeadersReply | BodyReply | BodyContinue | TrailersReply | ImmediateReply | ExtendTimeout
)


def body_replies(phase: Phase, body: bytes, *, end_of_stream: bool) -> list[BodyReply]:
    """Return the replies that carry a body on, each small enough for the proxy."""
    if len(body) <= MAX_BODY_REPLY_BYTES:
        return [BodyReply(phase, body, end_of_stream)]
    starts = range(0, len(body), MAX_BODY_REPLY_BYTES)
    view = memoryview(body)  # whose slices are no copies
    return [
        BodyReply(
            phase, view[start : start + MAX_BODY_REPLY_BYTES], end_of_stream and start == starts[-1]
        )
        for start in starts
    ]


class ProxyStream(Protocol):
    """The proxy's stream for one exchange, as a transport offers it.

    Neither method blocks, waits or raises: what cannot be delivered any more is dropped, and the
    transport tells the exchange in due course that its stream has closed.
    """

    def send(self, reply: Reply) -> None:
        """Queue a reply to be sent after those before it."""

    def end(self) -> None:
        """End the stream in good order once all replies are sent."""
