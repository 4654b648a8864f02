"""gRPC over HTTP/2, as far as it is a matter of bytes: messages, compression, timeouts, statuses.

The rules are those of gRPC's document "gRPC over HTTP2". Nothing here knows streams or windows.
"""

import enum
import re
import struct
import zlib
from typing import Final

__all__ = [
    "ACCEPTED_ENCODINGS",
    "GZIP",
    "IDENTITY",
    "PREFIX_BYTES",
    "PREFIX_HEAD",
    "Assembly",
    "GrpcFault",
    "GrpcStatus",
    "check_length",
    "parse_timeout",
    "percent_encode",
    "unpack_payload",
]

IDENTITY: Final = b"identity"
GZIP: Final = b"gzip"
ACCEPTED_ENCODINGS: Final = "identity,gzip"

PREFIX_HEAD: Final = struct.Struct(">BI")
"""The compressed flag and the length in front of each message."""

PREFIX_BYTES: Final = 5

_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_GZIP_WINDOW_BITS: Final = 31
# A space at either end would be no valid field value.
_UNPRINTABLE: Final = re.compile(rb"[^ -$&-~]|^ | $")


class GrpcStatus(enum.IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcFault(Exception):
    """What one call has done wrong: the status that ends it, and a text for whoever reads it."""

    def __init__(self, status: GrpcStatus, message: str):
        super().__init__(message)
        self.status = status
        self.message = message


class Assembly:
    """A message that has come in part. ``buffered_bytes`` is how much of it, prefix included, is
    here.

    ``max_message_bytes`` is the longest message as it is sent. The pieces are kept as they come, so
    it holds no more memory than has arrived, whatever length the prefix announces, and each byte is
    copied once into its place.
    """

    __slots__ = (
        "_max_message_bytes",
        "_missing_bytes",
        "_parts",
        "_prefix",
        "buffered_bytes",
        "is_complete",
    )

    def __init__(self, max_message_bytes: int):
        self._prefix = b""
        self._parts: list[bytes] = []
        self._missing_bytes = 0
        self._max_message_bytes = max_message_bytes
        self.buffered_bytes = 0
        self.is_complete = False

    def add(self, data: bytes, start: int, stop: int) -> int:
        """Take what belongs to this message from ``data[start:stop]``; return where the rest
        starts. Raises GrpcFault for a message that is too long."""
        had = start
        if len(self._prefix) < PREFIX_BYTES:
            end = min(start + PREFIX_BYTES - len(self._prefix), stop)
            self._prefix += data[start:end]
            start = end
            if len(self._prefix) == PREFIX_BYTES:
                self._missing_bytes = check_length(self._prefix, 0, self._max_message_bytes)
        if len(self._prefix) == PREFIX_BYTES:
            end = min(start + self._missing_bytes, stop)
            self._parts.append(data[start:end])
            self._missing_bytes -= end - start
            self.is_complete = not self._missing_bytes
            start = end
        self.buffered_bytes += start - had
        return start

    def payload(self, encoding: bytes) -> bytes:
        """Return the complete message. Raises GrpcFault as :func:`unpack_payload` does."""
        body = b"".join(self._parts)
        flag = self._prefix[0]
        return unpack_payload(flag, body, encoding, self._max_message_bytes) if flag else body


def check_length(data: bytes, position: int, max_message_bytes: int) -> int:
    """Return the length in the prefix at ``position``. Raises GrpcFault if it is too large."""
    length: int = PREFIX_HEAD.unpack_from(data, position)[1]
    if length > max_message_bytes:
        raise GrpcFault(
            GrpcStatus.RESOURCE_EXHAUSTED,
            f"a message of {length} bytes, longer than the {max_message_bytes} that are allowed",
        )
    return length


def unpack_payload(flag: int, body: bytes, encoding: bytes, max_message_bytes: int) -> bytes:
    """Return the message of a frame whose compressed flag is not 0.

    Raises GrpcFault for a flag that has no meaning, for a compressed message where none was
    announced, and for one that is broken or that would become longer than ``max_message_bytes``.
    """
    if flag != 1:
        raise GrpcFault(GrpcStatus.INTERNAL, f"{flag} is no valid compressed flag of a message")
    if encoding != GZIP:
        raise GrpcFault(GrpcStatus.INTERNAL, "a compressed message, but no grpc-encoding says how")
    inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
    try:
        message = inflater.decompress(body, max_message_bytes + 1)
    except zlib.error as error:
        raise GrpcFault(GrpcStatus.INTERNAL, f"a broken gzip message: {error}") from error
    if len(message) > max_message_bytes:
        raise GrpcFault(
            GrpcStatus.RESOURCE_EXHAUSTED,
            f"a gzip message that is longer than the {max_message_bytes} bytes that are allowed",
        )
    if not inflater.eof or inflater.unused_data:
        raise GrpcFault(GrpcStatus.INTERNAL, "a broken gzip message: not exactly one whole member")
    return message


def parse_timeout(value: bytes) -> float:
    """Return the seconds that a `grpc-timeout` names. Raises GrpcFault where it names none."""
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        text = value[:32].decode("latin-1")
        raise GrpcFault(GrpcStatus.INTERNAL, f"{text!r} is no valid grpc-timeout")
    return int(match[1]) * _UNIT_S[match[2]]


def percent_encode(message: str) -> str:
    """Return a text as `grpc-message` carries it: printable ASCII without the percent sign."""
    encoded = message.encode("utf-8", "replace")
    return _UNPRINTABLE.sub(lambda match: b"%%%02X" % match[0][0], encoded).decode("ascii")
