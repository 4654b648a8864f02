"""The two messages that carry bodies, read and written as bytes.

A streamed response is made of nothing else, and a large body is copied several times less without a
protobuf object in between. Both messages are a few bytes of tags and lengths around the body; what
has any other form, however valid, is left to protobuf.
"""

from functools import lru_cache
from typing import Final

from epp.core.replies import Phase

__all__ = ["body_message", "read_body"]

# Tags of fields of type "length-delimited", but for the flags, as protobuf writes them.
_REQUEST_BODY: Final = b"\x22"
_RESPONSE_BODY: Final = b"\x2a"
_BODY: Final = 0x0A
_END_OF_STREAM: Final = b"\x10\x01"
_NO_METADATA: Final = b"\x42\x00"
"""Envoy's empty `metadata_context`, which it adds to every message where there is none to tell."""

_PHASES: Final = {_REQUEST_BODY[0]: Phase.REQUEST, _RESPONSE_BODY[0]: Phase.RESPONSE}
_REPLY_TAGS: Final = {Phase.REQUEST: b"\x1a", Phase.RESPONSE: b"\x22"}
_RESPONSE: Final = b"\x0a"
_BODY_MUTATION: Final = b"\x1a"
_STREAMED_RESPONSE: Final = b"\x1a"


def read_body(message: bytes) -> tuple[Phase, bytes, bool] | None:
    """Return phase, body and `end_of_stream` of a ProcessingRequest that is about a body and says
    nothing else, None for any other message, valid or not."""
    try:
        phase = _PHASES.get(message[0])
        if phase is None:
            return None
        length, start = message[1], 2
        if length > 0x7F:
            length, start = _varint(message, 1)
        stop = start + length
        end = start
        if length and message[start] == _BODY:
            length, start = message[start + 1], start + 2
            if length > 0x7F:
                length, start = _varint(message, start - 1)
            end = start + length
    except IndexError:
        return None
    if stop != len(message) and message[stop:] != _NO_METADATA:
        return None
    if end == stop:
        return phase, message[start:end], False
    if message[end:stop] == _END_OF_STREAM:
        return phase, message[start:end], True
    return None


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the length at this position and where it ends. Raises IndexError where it has none, or
    one of more than 4 bytes."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError("a length of more than 4 bytes")


def body_message(phase: Phase, body: bytes | memoryview, *, end_of_stream: bool) -> bytes:
    """Return the ProcessingResponse that lets this piece of a body go on."""
    prefix = _prefix(phase, len(body), end_of_stream)
    return b"".join((prefix, body, _END_OF_STREAM)) if end_of_stream else b"".join((prefix, body))


@lru_cache(maxsize=4096)
def _prefix(phase: Phase, body_bytes: int, end_of_stream: bool) -> bytes:
    """Return what comes before the body, from the inside out."""
    prefix = bytes((_BODY,)) + _length(body_bytes) if body_bytes else b""
    inner_bytes = body_bytes + len(_END_OF_STREAM) * end_of_stream
    for tag in (_STREAMED_RESPONSE, _BODY_MUTATION, _RESPONSE, _REPLY_TAGS[phase]):
        prefix = tag + _length(len(prefix) + inner_bytes) + prefix
    return prefix


def _length(value: int) -> bytes:
    """Return a length as protobuf writes it."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
