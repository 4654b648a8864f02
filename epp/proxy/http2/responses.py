"""The field blocks of responses, encoded once each."""

from functools import lru_cache
from typing import Final

from epp.proxy.http2.grpc_framing import GrpcStatus, percent_encode
from epp.proxy.http2.hpack_cache import encode_block
from epp.proxy.http2.requests import Refusal

__all__ = [
    "BAD_REQUEST_BLOCK",
    "RESPONSE_BLOCK",
    "refusal_block",
    "refusal_body",
    "trailers_block",
    "trailers_only_block",
]

_OPENING: Final = ((":status", "200"), ("content-type", "application/grpc"))
# With this many characters a block fits any peer's frames.
_MAX_MESSAGE_LENGTH: Final = 1_000

RESPONSE_BLOCK: Final = encode_block(_OPENING)
"""The header section of every call that is answered with messages."""

BAD_REQUEST_BLOCK: Final = encode_block([(":status", "400")])
"""The header section of the response to a malformed request."""


@lru_cache(maxsize=256)
def trailers_block(status: GrpcStatus, message: str) -> bytes:
    """Return the trailer section that ends a call after its messages."""
    return encode_block(_status_fields(status, message))


@lru_cache(maxsize=256)
def trailers_only_block(status: GrpcStatus, message: str) -> bytes:
    """Return the one section of a call that ends without messages."""
    return encode_block([*_OPENING, *_status_fields(status, message)])


def refusal_block(refusal: Refusal) -> bytes:
    """Return the header section that refuses a request: the only one if it is gRPC's."""
    fields = [(":status", str(refusal.http_status))]
    if refusal.grpc_status is not None:
        fields.append(("content-type", "application/grpc"))
        fields += _status_fields(refusal.grpc_status, refusal.message)
    else:
        fields.append(("content-type", "text/plain; charset=utf-8"))
        fields.append(("content-length", str(len(refusal_body(refusal)))))
    return encode_block([*fields, *refusal.extra])


def refusal_body(refusal: Refusal) -> bytes:
    """Return the content of a plain response."""
    return f"{refusal.message}\n".encode()


def _status_fields(status: GrpcStatus, message: str) -> list[tuple[str, str]]:
    fields = [("grpc-status", str(int(status)))]
    if message:
        fields.append(("grpc-message", percent_encode(message[:_MAX_MESSAGE_LENGTH])))
    return fields
