"""RFC 9113, section 8: requests and responses."""

import pytest

from epp.proxy.http2.events import CallStarted
from tests.proxy.http2.support import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    PROTOCOL_ERROR,
    RST_STREAM,
    Fields,
    Peer,
    connection_error,
    data,
    event_names,
    frame,
    grpc,
    kinds,
    request_fields,
    stream_error,
)


def refused_as_malformed(peer: Peer, fields: Fields, *, end: bool = False) -> None:
    """Send a request that is malformed: the application must not see it."""
    block = b"".join(literal(name, value) for name, value in fields)
    flags = END_HEADERS | (END_STREAM if end else 0)
    assert peer.send(frame(HEADERS, flags, 1, block)) == []
    frames = peer.receive()
    assert stream_error(frames) == PROTOCOL_ERROR
    # Section 8.2.1 asks for a 400 before it.
    assert peer.fields(frames[0]) == [(":status", "400")]
    assert kinds(frames) == [HEADERS, RST_STREAM]
    assert peer.connection.open_streams == 0


def literal(name: str, value: str) -> bytes:
    """A field that is encoded as it is, whatever it says."""
    parts = [part.encode("latin-1") for part in (name, value)]
    assert all(len(part) < 127 for part in parts)
    return b"\0" + b"".join(bytes((len(part),)) + part for part in parts)


# 8.1 HTTP message framing


def test_rfc9113_8_1_request_of_headers_data_and_trailers() -> None:
    peer = Peer()
    trailers = peer.headers(1, [("x-trailer", "1")], end=True)
    opening = peer.headers(1)
    events = peer.send(opening, data(1, grpc(b"a")), data(1), trailers)
    assert event_names(events) == ["CallStarted", "Message", "HalfClosed"]


def test_rfc9113_8_1_trailers_may_be_continued() -> None:
    peer = Peer()
    peer.open(1)
    block = peer.block([("x-trailer", "1")])
    events = peer.send(
        frame(HEADERS, END_STREAM, 1, block[:3]), frame(CONTINUATION, END_HEADERS, 1, block[3:])
    )
    assert event_names(events) == ["HalfClosed"]


def test_rfc9113_8_1_second_headers_without_end_stream_are_malformed() -> None:
    peer = Peer()
    peer.open(1)
    assert stream_error(peer.exchange(peer.headers(1, [("x-trailer", "1")]))) == PROTOCOL_ERROR


@pytest.mark.parametrize("name", [":path", ":status", ":x"])
def test_rfc9113_8_1_pseudo_header_fields_in_trailers_are_malformed(name: str) -> None:
    peer = Peer()
    peer.open(1)
    assert stream_error(peer.exchange(peer.headers(1, [(name, "/")], end=True))) == PROTOCOL_ERROR


@pytest.mark.parametrize("field", [("X-Upper", "1"), ("connection", "close"), ("x", "a\r\nb")])
def test_rfc9113_8_1_trailers_with_invalid_fields_are_malformed(field: tuple[str, str]) -> None:
    peer = Peer()
    peer.open(1)
    assert stream_error(peer.exchange(peer.headers(1, [field], end=True))) == PROTOCOL_ERROR


def test_rfc9113_8_1_empty_trailers_end_the_request() -> None:
    peer = Peer()
    peer.open(1)
    assert event_names(peer.send(peer.headers(1, [], end=True))) == ["HalfClosed"]


def test_rfc9113_8_1_response_ends_with_trailers_that_end_the_stream() -> None:
    peer = Peer()
    peer.open(1, end=True)
    peer.connection.send_message(1, b"answer")
    peer.connection.end_call(1)
    opening, message, trailers = peer.receive()
    assert opening.flags == END_HEADERS
    assert message.flags == 0
    assert trailers.flags == END_HEADERS | END_STREAM
    assert peer.fields(opening) == [(":status", "200"), ("content-type", "application/grpc")]
    assert peer.fields(trailers) == [("grpc-status", "0")]


def test_rfc9113_8_1_response_before_the_end_of_the_request_asks_the_client_to_stop() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.end_call(1)
    frames = peer.receive()
    assert frames[0].flags & END_STREAM
    assert stream_error(frames) == NO_ERROR
    assert peer.exchange(data(1, grpc(b"late")), data(1, end=True)) == []


def test_rfc9113_8_1_response_after_the_end_of_the_request_needs_no_reset() -> None:
    peer = Peer()
    peer.open(1, end=True)
    peer.connection.end_call(1)
    assert kinds(peer.receive()) == [HEADERS]


# 8.1.1 malformed messages


@pytest.mark.parametrize("cut", [0, 2, 5])
def test_rfc9113_8_1_1_content_of_the_declared_length_is_accepted(cut: int) -> None:
    peer = Peer()
    message = grpc(b"")
    opening = peer.headers(1, request_fields(content_length="5"))
    events = peer.send(opening, data(1, message[:cut]), data(1, message[cut:]), data(1, end=True))
    assert event_names(events) == ["CallStarted", "Message", "HalfClosed"]


@pytest.mark.parametrize(
    "parts", [[b""], [b"1234"], [b"123456"], [b"123", b"456"], [b"123", b"4"]], ids=repr
)
@pytest.mark.parametrize("content_type", ["application/grpc", "text/plain"])
def test_rfc9113_8_1_1_content_of_another_length_is_malformed(
    parts: list[bytes], content_type: str
) -> None:
    peer = Peer()
    fields = request_fields(content_type=content_type, content_length="5")
    frames = [data(1, part, end=n == len(parts) - 1) for n, part in enumerate(parts)]
    assert stream_error(peer.exchange(peer.headers(1, fields), *frames)) == PROTOCOL_ERROR


def test_rfc9113_8_1_1_content_shorter_than_declared_before_trailers_is_malformed() -> None:
    peer = Peer()
    peer.send(peer.headers(1, request_fields(content_length="6")), data(1, grpc(b"")))
    assert stream_error(peer.exchange(peer.headers(1, [("x", "1")], end=True))) == PROTOCOL_ERROR


def test_rfc9113_8_1_1_padding_is_no_content() -> None:
    peer = Peer()
    opening = peer.headers(1, request_fields(content_length="5"))
    padded_data = frame(DATA, 0x8 | END_STREAM, 1, b"\x03" + grpc(b"") + b"\0\0\0")
    assert event_names(peer.send(opening, padded_data))[-1] == "HalfClosed"


def test_rfc9113_8_1_1_request_without_the_declared_content_is_malformed() -> None:
    refused_as_malformed(Peer(), request_fields(content_length="5"), end=True)


@pytest.mark.parametrize("value", ["", "-1", "1.0", "5, 5", "0x5", "1" * 30])
def test_rfc9113_8_1_1_content_length_that_is_no_number_is_malformed(value: str) -> None:
    refused_as_malformed(Peer(), request_fields(content_length=value))


def test_rfc9113_8_1_1_content_length_twice() -> None:
    different = [("content-length", "5"), ("content-length", "6")]
    refused_as_malformed(Peer(), request_fields() + different)
    peer = Peer()
    peer.send(peer.headers(1, request_fields() + [("content-length", "5")] * 2))
    assert connection_error(peer.receive()) is None


# 8.2 HTTP fields


@pytest.mark.parametrize("code", [*range(0x21), *range(0x41, 0x5B), *range(0x7F, 0x100)])
def test_rfc9113_8_2_1_prohibited_character_in_a_field_name_is_malformed(code: int) -> None:
    refused_as_malformed(Peer(), [*request_fields(), (f"x{chr(code)}y", "value")])


@pytest.mark.parametrize("name", ["", "x:y", "x:", "x y", "X", "ä"])
def test_rfc9113_8_2_1_invalid_field_name_is_malformed(name: str) -> None:
    refused_as_malformed(Peer(), [*request_fields(), (name, "value"), ("x-last", "1")])


@pytest.mark.parametrize("code", [0x00, 0x0A, 0x0D])
@pytest.mark.parametrize("pattern", ["{}", "a{}b", "{}b", "a{}"])
def test_rfc9113_8_2_1_prohibited_character_in_a_field_value_is_malformed(
    pattern: str, code: int
) -> None:
    value = pattern.format(chr(code))
    refused_as_malformed(Peer(), [*request_fields(), ("x-a", value), ("x-b", "1")])
    refused_as_malformed(Peer(), request_fields(_authority=value))


@pytest.mark.parametrize("value", [" ", "\t", " a", "a ", "\ta", "a\t"])
def test_rfc9113_8_2_1_whitespace_around_a_field_value_is_malformed(value: str) -> None:
    refused_as_malformed(Peer(), [*request_fields(), ("x-a", value), ("x-b", "1")])
    refused_as_malformed(Peer(), [*request_fields(), ("x-b", "1"), ("x-a", value)])
    refused_as_malformed(Peer(), request_fields(_path="/" + value))


def test_rfc9113_8_2_1_other_values_are_passed_on_as_they_are() -> None:
    peer = Peer()
    odd = [
        ("x-empty", ""),
        ("x-inner", "a \t b"),
        ("x-octets", "\x01\x7f"),
        ("x!#$%&'*+-.^_`|~9", ""),
    ]
    block = b"".join(literal(name, value) for name, value in request_fields() + odd)
    (started,) = peer.send(frame(HEADERS, END_HEADERS, 1, block))
    assert isinstance(started, CallStarted)
    assert started.headers == tuple(
        (name.encode(), value.encode()) for name, value in request_fields()[4:] + odd
    )


@pytest.mark.parametrize(
    "name", ["connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"]
)
def test_rfc9113_8_2_2_connection_specific_field_is_malformed(name: str) -> None:
    refused_as_malformed(Peer(), [*request_fields(), (name, "x")])


@pytest.mark.parametrize("value", ["gzip", "trailers, gzip", ""])
def test_rfc9113_8_2_2_te_other_than_trailers_is_malformed(value: str) -> None:
    refused_as_malformed(Peer(), request_fields(te=value))
    refused_as_malformed(Peer(), [*request_fields(), ("te", value)])


@pytest.mark.parametrize("value", ["trailers", "Trailers", None])
def test_rfc9113_8_2_2_te_trailers_is_accepted(value: str | None) -> None:
    peer = Peer()
    assert event_names(peer.send(peer.headers(1, request_fields(te=value)))) == ["CallStarted"]


def test_rfc9113_8_2_3_cookies_may_be_split() -> None:
    peer = Peer()
    cookies = [("cookie", "a=b"), ("cookie", "c=d")]
    (started,) = peer.send(peer.headers(1, request_fields() + cookies))
    assert isinstance(started, CallStarted)
    assert started.headers[-2:] == ((b"cookie", b"a=b"), (b"cookie", b"c=d"))


# 8.3 HTTP control data


@pytest.mark.parametrize("name", [":test", ":status", ":protocol", ":", ":Path"])
def test_rfc9113_8_3_undefined_pseudo_header_field_is_malformed(name: str) -> None:
    refused_as_malformed(Peer(), [(name, "x"), *request_fields()])


def test_rfc9113_8_3_pseudo_header_field_after_a_regular_field_is_malformed() -> None:
    fields = request_fields()
    refused_as_malformed(Peer(), [*fields[1:], fields[0]])
    refused_as_malformed(Peer(), [("x-first", "1"), *fields])


@pytest.mark.parametrize("index", range(4))
def test_rfc9113_8_3_repeated_pseudo_header_field_is_malformed(index: int) -> None:
    fields = request_fields()
    refused_as_malformed(Peer(), [fields[index], *fields])


@pytest.mark.parametrize("name", ["_method", "_scheme", "_path"])
@pytest.mark.parametrize("value", [None, ""])
def test_rfc9113_8_3_1_missing_or_empty_pseudo_header_field_is_malformed(
    name: str, value: str | None
) -> None:
    refused_as_malformed(Peer(), request_fields(**{name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_path", "no-slash"),
        ("_path", "*"),
        ("_path", "/a b"),
        ("_path", "/\x7f"),
        ("_authority", "a b"),
        ("_method", "PO ST"),
        ("_scheme", "1http"),
        ("_scheme", "ht tp"),
        ("_authority", "user@host"),
    ],
)
def test_rfc9113_8_3_1_invalid_pseudo_header_field_is_malformed(name: str, value: str) -> None:
    refused_as_malformed(Peer(), request_fields(**{name: value}))


def test_rfc9113_8_3_1_host_that_differs_from_authority_is_malformed() -> None:
    refused_as_malformed(Peer(), request_fields(host="other"))


@pytest.mark.parametrize(
    "changes",
    [
        {"_authority": None},
        {"_authority": None, "host": "epp"},
        {"host": "EPP"},
        {"_scheme": "https"},
        {"_scheme": "grpc+unix"},
    ],
)
def test_rfc9113_8_3_1_other_requests_are_accepted(changes: dict[str, str | None]) -> None:
    peer = Peer()
    assert event_names(peer.send(peer.headers(1, request_fields(**changes)))) == ["CallStarted"]


def test_rfc9113_8_3_1_asterisk_form_is_for_options() -> None:
    peer = Peer()
    plain = request_fields(_method="OPTIONS", _path="*", content_type=None)
    frames = peer.exchange(peer.headers(1, plain, end=True))
    assert dict(peer.fields(frames[0]))[":status"] == "415"


def test_rfc9113_8_3_2_every_response_has_one_status_and_no_other_pseudo_header_field() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m")
    peer.open(3)
    peer.connection.end_call(3)
    openings = [
        *peer.exchange(
            peer.headers(5, request_fields(content_type="text/plain")),
            peer.headers(7, request_fields("/unknown/Method")),
            peer.headers(9, request_fields(_path=None)),
        )
    ]
    sections = [peer.fields(a) for a in openings if a.kind == HEADERS]
    assert len(sections) == 5
    for section in sections:
        names = [name for name, _ in section]
        assert names[0] == ":status"
        assert not any(name.startswith(":") for name in names[1:])
        assert all(name == name.lower() for name in names)


# 8.4, 8.5, 8.6


def test_rfc9113_8_4_client_cannot_push() -> None:
    peer = Peer()
    peer.open(1)
    promise = frame(5, END_HEADERS, 1, b"\0\0\0\x02\x82")
    assert connection_error(peer.exchange(promise)) == PROTOCOL_ERROR


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")],
        [(":method", "CONNECT"), (":authority", "a:1"), (":scheme", "http")],
        [(":method", "CONNECT")],
    ],
)
def test_rfc9113_8_5_connect_with_scheme_or_path_or_without_authority_is_malformed(
    fields: Fields,
) -> None:
    refused_as_malformed(Peer(), fields)


def test_rfc9113_8_5_connect_is_refused() -> None:
    peer = Peer()
    frames = peer.exchange(peer.headers(1, [(":method", "CONNECT"), (":authority", "a:1")]))
    assert dict(peer.fields(frames[0]))[":status"] == "415"


def test_rfc9113_8_6_upgrade_is_malformed() -> None:
    refused_as_malformed(Peer(), [*request_fields(), ("upgrade", "websocket")])


# 8.7 request reliability: see also 5.1.2 and 6.8


def test_rfc9113_8_7_refused_stream_was_never_seen_by_the_application() -> None:
    peer = Peer(max_concurrent_streams=0)
    assert peer.send(peer.headers(1), data(1, grpc(b"a"))) == []
    assert kinds(peer.receive()) == [RST_STREAM]
