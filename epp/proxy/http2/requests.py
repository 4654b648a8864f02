"""What a field section asks for: the rules of RFC 9113, section 8, then those of gRPC.

A section is read once and its reading kept with it, so a repeated block costs nothing here.
"""

import re
from typing import Final, TypeAlias

import msgspec

from epp.proxy.http2.grpc_framing import (
    ACCEPTED_ENCODINGS,
    GZIP,
    IDENTITY,
    GrpcFault,
    GrpcStatus,
    parse_timeout,
)
from epp.proxy.http2.hpack_cache import Field, FieldSection

__all__ = ["Malformed", "Opening", "Reading", "Refusal", "check_trailers", "read_request"]

_NAME: Final = rb"[!#$%&'*+\-.^_`|~0-9a-z]+"
_NAMES: Final = re.compile(_NAME + rb"(?:\n" + _NAME + rb")*")
_BAD_IN_VALUES: Final = re.compile(rb"[\x00\r]|(?:\A|\n)[ \t]|[ \t](?:\n|\Z)")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*")
_PATH: Final = re.compile(rb"/[!-~\x80-\xff]*")
_AUTHORITY: Final = re.compile(rb"[!-?A-~\x80-\xff]*")  # no user information
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(\+proto)?[ \t]*(;.*)?", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_PSEUDO: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)


class Malformed(msgspec.Struct, frozen=True):
    """The section is no valid HTTP message (section 8.1.1)."""

    reason: str


class Refusal(msgspec.Struct, frozen=True):
    """A valid request that is not for this server, and what it is answered with.

    Without ``grpc_status`` ``message`` is the content of a plain response, where the method allows
    for any.
    """

    http_status: int
    grpc_status: GrpcStatus | None
    message: str
    extra: tuple[tuple[str, str], ...] = ()
    has_content: bool = True


class Opening(msgspec.Struct, frozen=True):
    """A gRPC call: ``headers`` are the fields but for the pseudo-header fields.

    ``timeout_s`` is the client's own deadline in seconds from now, None where it has none;
    ``encoding`` is how those of its messages are compressed that are.
    """

    path: str
    headers: tuple[Field, ...]
    timeout_s: float | None
    encoding: bytes


Reading: TypeAlias = Opening | Refusal | Malformed


class _MalformedError(Exception):
    pass


def read_request(section: FieldSection, max_section_bytes: int) -> tuple[Reading, int]:
    """Return what a request's section means, and its declared content length, -1 for none."""
    if section.meaning is None:
        try:
            section.meaning = _read_request(section, max_section_bytes)
        except _MalformedError as error:
            section.meaning = Malformed(str(error)), -1
    meaning: tuple[Reading, int] = section.meaning
    return meaning


def check_trailers(section: FieldSection) -> str | None:
    """Return what makes a trailer section malformed, None if nothing does (section 8.1)."""
    try:
        _check_names(section.fields)
        _check_values(section.fields)
    except _MalformedError as error:
        return str(error)
    return None


def _read_request(section: FieldSection, max_section_bytes: int) -> tuple[Reading, int]:
    control, headers = _split(section.fields)
    known = dict(reversed(headers))  # the first value of each name
    _check_control(control, known.get(b"host"))
    content_length = _content_length(headers) if b"content-length" in known else -1
    method = control[b":method"]
    has_content = method != b"HEAD"
    refusal: Refusal | None = None
    if section.size_bytes > max_section_bytes:
        message = f"more than {max_section_bytes} bytes of headers"
        refusal = Refusal(431, GrpcStatus.RESOURCE_EXHAUSTED, message)
    elif not _CONTENT_TYPE.fullmatch(known.get(b"content-type", b"")):
        message = "this server speaks gRPC only: its content-type is application/grpc"
        refusal = Refusal(415, None, message, (), has_content)
    elif method != b"POST":
        message = "a gRPC call is a POST request"
        refusal = Refusal(405, None, message, (("allow", "POST"),), has_content)
    if refusal is not None:
        return refusal, content_length
    return _read_call(control[b":path"], headers, known), content_length


def _read_call(
    path: bytes, headers: tuple[Field, ...], known: dict[bytes, bytes]
) -> Opening | Refusal:
    """Return what the headers of a call say by the rules of gRPC."""
    encoding = known.get(b"grpc-encoding", IDENTITY)
    if encoding not in (IDENTITY, GZIP):
        message = f"grpc-encoding {encoding[:32].decode('latin-1')!r} is not supported"
        accepted = (("grpc-accept-encoding", ACCEPTED_ENCODINGS),)
        return Refusal(200, GrpcStatus.UNIMPLEMENTED, message, accepted)
    timeout = known.get(b"grpc-timeout")
    try:
        timeout_s = None if timeout is None else parse_timeout(timeout)
    except GrpcFault as fault:
        return Refusal(200, fault.status, fault.message)
    return Opening(path.decode("latin-1"), headers, timeout_s, encoding)


def _split(fields: tuple[Field, ...]) -> tuple[dict[bytes, bytes], tuple[Field, ...]]:
    """Separate the pseudo-header fields from the others, all of them checked (8.2, 8.3)."""
    control: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name.startswith(b":"):
            break
        if name not in _PSEUDO:
            raise _MalformedError("an undefined pseudo-header field")
        if name in control:
            raise _MalformedError("a repeated pseudo-header field")
        control[name] = value
    headers = fields[len(control) :]
    _check_values(fields)
    _check_names(headers)
    return control, headers


# All fields at once, with what no valid one contains between them: that is several times faster.


def _check_names(fields: tuple[Field, ...]) -> None:
    """Raise unless all names are valid (8.2.1) and none is connection-specific (8.2.2).

    A colon is in no valid name, so pseudo-header fields are refused as well.
    """
    if not fields:
        return
    names = [name for name, _ in fields]
    joined = b"\n".join(names)
    if joined.count(b"\n") != len(names) - 1 or not _NAMES.fullmatch(joined):
        raise _MalformedError("a field name that is not valid or not in its place")
    if not _CONNECTION_SPECIFIC.isdisjoint(names):
        raise _MalformedError("a connection-specific field")
    if any(name == b"te" and value.lower() != b"trailers" for name, value in fields):
        raise _MalformedError("a te field that says more than trailers")


def _check_values(fields: tuple[Field, ...]) -> None:
    """Raise unless all values are valid (8.2.1)."""
    joined = b"\n".join([value for _, value in fields])
    if joined.count(b"\n") != max(len(fields) - 1, 0) or _BAD_IN_VALUES.search(joined):
        raise _MalformedError("a character in a field value that is not allowed there")


def _check_control(control: dict[bytes, bytes], host: bytes | None) -> None:
    """Raise unless the pseudo-header fields make up a request (8.3.1, 8.5)."""
    method = control.get(b":method", b"")
    if not _METHOD.fullmatch(method):
        raise _MalformedError("no valid :method")
    authority = control.get(b":authority")
    path = control.get(b":path")
    if method == b"CONNECT":
        if b":scheme" in control or path is not None or not authority:
            raise _MalformedError("a CONNECT request with a scheme or path, or without authority")
        return
    scheme = control.get(b":scheme", b"")
    if not _SCHEME.fullmatch(scheme):
        raise _MalformedError("no valid :scheme")
    is_asterisk = path == b"*" and method == b"OPTIONS"
    if not is_asterisk and not _PATH.fullmatch(control.get(b":path", b"")):
        raise _MalformedError("no valid :path")
    if authority is not None:
        if not _AUTHORITY.fullmatch(authority):
            raise _MalformedError("no valid :authority")
        if host is not None and host.lower() != authority.lower():
            raise _MalformedError("a host field that differs from :authority")


def _content_length(headers: tuple[Field, ...]) -> int:
    """Return the declared length of the content (8.1.1)."""
    values = {value for name, value in headers if name == b"content-length"}
    value = values.pop()
    if values or not _DIGITS.fullmatch(value):
        raise _MalformedError("no valid content-length")
    return int(value)
