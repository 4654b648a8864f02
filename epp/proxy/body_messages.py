"""The two messages that carry bodies, read and written as bytes.

A streamed response is made of nothing else, and a large body is copied several times less without a
protobuf object in between. Both messages are a few bytes of tags and lengths around the body; what
has any other form, however valid, is left to protobuf.
"""

from typing import Final

from epp.core.replies import Phase

__all__ = ["body_message", "read_body"]

# Tags of fields of type "length-delimited", as protobuf writes them, and the one flag that is set.
_REQUEST_BODY: Final = 0x22
_RESPONSE_BODY: Final = 0x2A
_METADATA: Final = 0x42
_BODY: Final = 0x0A
_END_OF_STREAM: Final = b"\x10\x01"
_PHASES: Final = {_REQUEST_BODY: Phase.REQUEST, _RESPONSE_BODY: Phase.RESPONSE}

# Those of a reply, from the outside in; the outermost depends on the phase.
_REPLY: Final = {Phase.REQUEST: b"\x1a", Phase.RESPONSE: b"\x22"}
_RESPONSE: Final = b"\x0a"
_BODY_MUTATION: Final = b"\x1a"
_STREAMED_RESPONSE: Final = b"\x1a"

_REMEMBERED_BYTES: Final = 4096
_prefixes: Final[dict[Phase, dict[int, bytes]]] = {phase: {} for phase in Phase}
"""What comes before a body of up to so many bytes that is not the last, by its length."""


def read_body(message: bytes) -> tuple[Phase, bytes, bool] | None:
    """Return phase, body and `end_of_stream` of a ProcessingRequest that is about a body, None for
    any other message, valid or not.

    Metadata may follow, as Envoy sends it with each message; it is not looked into.
    """
    try:
        phase = _PHASES.get(message[0])
        if phase is None:
            return None
        length, start = message[1], 2
        if length > 0x7F:
            length, start = _length(message, 1)
        stop = start + length
        end = start
        if length and message[start] == _BODY:
            length, start = message[start + 1], start + 2
            if length > 0x7F:
                length, start = _length(message, start - 1)
            end = start + length
        if stop != len(message):
            if message[stop] != _METADATA:
                return None
            length, after = _length(message, stop + 1)
            if after + length != len(message):
                return None
    except IndexError:
        return None
    if end == stop:
        return phase, message[start:end], False
    if message[end:stop] == _END_OF_STREAM:
        return phase, message[start:end], True
    return None


def _length(message: bytes, position: int) -> tuple[int, int]:
    """Return the length at this position and where it ends. Raises IndexError where it has none, or
    one of more than 4 bytes."""
    length = message[position]
    if length < 0x80:
        return length, position + 1
    weight = 0x80
    while weight < 1 << 28:
        position += 1
        byte = message[position]
        length += (byte - 1) * weight  # without the bit by which the byte before said "more"
        if byte < 0x80:
            return length, position + 1
        weight *= 0x80
    raise IndexError("a length of more than 4 bytes")


def body_message(phase: Phase, body: bytes | memoryview, *, end_of_stream: bool) -> bytes:
    """Return the ProcessingResponse that lets a piece of a body go on."""
    size = len(body)
    if end_of_stream:
        return b"".join((_prefix(phase, size, len(_END_OF_STREAM)), body, _END_OF_STREAM))
    prefixes = _prefixes[phase]
    prefix = prefixes.get(size)
    if prefix is None:
        prefix = _prefix(phase, size, 0)
        if size <= _REMEMBERED_BYTES:
            prefixes[size] = prefix
    return b"".join((prefix, body))


def _prefix(phase: Phase, body_bytes: int, flag_bytes: int) -> bytes:
    """Return what comes before a body, made from the inside out."""
    prefix = bytes((_BODY,)) + _varint(body_bytes) if body_bytes else b""
    inner_bytes = body_bytes + flag_bytes
    for tag in (_STREAMED_RESPONSE, _BODY_MUTATION, _RESPONSE, _REPLY[phase]):
        prefix = tag + _varint(len(prefix) + inner_bytes) + prefix
    return prefix


def _varint(value: int) -> bytes:
    """Return a length as protobuf writes it."""
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
