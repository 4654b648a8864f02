"""gRPC over HTTP/2: messages, compression, timeouts, statuses."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.proxy.http2.events import CallReset, CallStarted, Message
from epp.proxy.http2.grpc_framing import GrpcStatus, percent_encode
from epp.proxy.http2.limits import Limit
from tests.proxy.http2.support import (
    CHECK,
    DATA,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    PROCESS,
    RST_STREAM,
    Peer,
    content,
    data,
    event_names,
    grpc,
    kinds,
    payloads,
    request_fields,
    status_of,
    stream_error,
    ungrpc,
    window_update,
)

# Calls


def test_a_call_starts_with_its_path_headers_and_deadline() -> None:
    peer = Peer()
    fields = request_fields(grpc_timeout="250m", x_meta="data")
    (started,) = peer.send(peer.headers(1, fields))
    assert isinstance(started, CallStarted)
    assert (started.stream_id, started.path, started.timeout_s) == (1, PROCESS, 0.25)
    assert started.headers == (
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"250m"),
        (b"x-meta", b"data"),
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/grpc", "application/grpc+proto", "Application/GRPC", "application/grpc;a=b"],
)
def test_content_types_of_grpc_are_accepted(content_type: str) -> None:
    peer = Peer()
    fields = request_fields(content_type=content_type)
    assert event_names(peer.send(peer.headers(1, fields))) == ["CallStarted"]


def test_a_unary_call_on_the_same_connection() -> None:
    peer = Peer()
    peer.open(1)
    opening = peer.headers(3, request_fields(CHECK))
    events = peer.send(opening, data(3, grpc(b"question"), end=True), data(1, grpc(b"x")))
    assert event_names(events) == ["CallStarted", "Message", "HalfClosed", "Message"]
    peer.connection.send_message(3, b"answer")
    peer.connection.end_call(3)
    frames = peer.receive()
    assert kinds(frames) == [HEADERS, DATA, HEADERS]
    assert {a.stream_id for a in frames} == {3}
    assert ungrpc(content(frames, 3)) == [b"answer"]
    assert status_of(peer, frames)[:2] == (0, "")
    assert peer.connection.open_streams == 1


def test_headers_of_the_response_come_with_the_first_message() -> None:
    peer = Peer()
    peer.open(1)
    assert peer.receive() == []
    peer.connection.send_message(1, b"a")
    peer.connection.send_message(1, b"b")
    frames = peer.receive()
    assert kinds(frames) == [HEADERS, DATA, DATA]
    assert ungrpc(content(frames)) == [b"a", b"b"]


def test_an_unknown_method_is_unimplemented_by_trailers_only() -> None:
    peer = Peer()
    assert peer.send(peer.headers(1, request_fields("/no/Such")), data(1, grpc(b"x"))) == []
    frames = peer.receive()
    assert kinds(frames) == [HEADERS, RST_STREAM]
    assert stream_error(frames) == NO_ERROR
    status, message, fields = status_of(peer, frames)
    assert (status, message) == (GrpcStatus.UNIMPLEMENTED, "unknown method /no/Such")
    assert fields[":status"] == "200"
    assert fields["content-type"] == "application/grpc"


def test_an_unknown_method_of_a_request_that_has_ended_needs_no_reset() -> None:
    peer = Peer()
    frames = peer.exchange(peer.headers(1, request_fields("/no/Such"), end=True))
    assert kinds(frames) == [HEADERS]
    assert peer.connection.open_streams == 0


def test_an_error_before_any_message_is_trailers_only() -> None:
    peer = Peer()
    peer.open(1, end=True)
    peer.connection.end_call(1, GrpcStatus.INVALID_ARGUMENT, "no: 100 % ä")
    (only,) = peer.receive()
    assert only.flags & END_STREAM
    assert dict(peer.fields(only)) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "3",
        "grpc-message": "no: 100 %25 %C3%A4",
    }


def test_an_error_after_messages_is_in_the_trailers() -> None:
    peer = Peer()
    peer.open(1, end=True)
    peer.connection.send_message(1, b"a")
    peer.connection.end_call(1, GrpcStatus.ABORTED, "enough")
    opening, _, trailers = peer.receive()
    assert "grpc-status" not in dict(peer.fields(opening))
    assert peer.fields(trailers) == [("grpc-status", "10"), ("grpc-message", "enough")]


def test_a_call_ends_once() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 70_000)
    peer.connection.end_call(1)
    peer.connection.end_call(1, GrpcStatus.INTERNAL)
    peer.connection.send_message(1, b"late")
    frames = peer.receive() + peer.exchange(window_update(0, 1 << 20), window_update(1, 1 << 20))
    assert ungrpc(content(frames)) == [b"m" * 70_000]
    assert status_of(peer, frames)[0] == 0


def test_messages_that_come_after_the_end_are_discarded() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 70_000)
    peer.connection.end_call(1)
    assert peer.send(data(1, grpc(b"late")), data(1, end=True)) == []
    peer.receive()
    frames = peer.exchange(window_update(0, 1 << 20), window_update(1, 1 << 20))
    assert kinds(frames) == [DATA, HEADERS]  # no reset: the client has ended too
    assert peer.connection.open_streams == 0


# grpc-message


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("plain text, !\"#$&'()*+-./:;<=>?@[]^_`{|}~", None),
        ("100%", "100%25"),
        ("\t\n\x00\x7f", "%09%0A%00%7F"),
        ("ä€😀", "%C3%A4%E2%82%AC%F0%9F%98%80"),
        (" space ", "%20space%20"),
        ("  ", "%20%20"),
        ("\ud800", "?"),
    ],
)
def test_percent_encoding(text: str, encoded: str | None) -> None:
    assert percent_encode(text) == (text if encoded is None else encoded)


def test_a_message_that_is_too_long_for_a_frame_is_cut() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.end_call(1, GrpcStatus.INTERNAL, "😀" * 100_000)
    (only, _) = peer.receive()
    assert len(only.payload) <= 16_384
    assert dict(peer.fields(only))["grpc-message"].startswith("%F0%9F")


# grpc-timeout


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 4e-3),
        ("5u", 5e-6),
        ("6n", 6e-9),
        ("0S", 0),
        ("99999999H", 99999999 * 3600.0),
    ],
)
def test_grpc_timeout(value: str, seconds: float) -> None:
    peer = Peer()
    (started,) = peer.send(peer.headers(1, request_fields(grpc_timeout=value)))
    assert isinstance(started, CallStarted)
    assert started.timeout_s is not None
    assert math.isclose(started.timeout_s, seconds)


@pytest.mark.parametrize("value", ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S", "1Sx"])
def test_invalid_grpc_timeout_is_an_error_of_the_call(value: str) -> None:
    peer = Peer()
    frames = peer.exchange(peer.headers(1, request_fields(grpc_timeout=value)))
    status, message, _ = status_of(peer, frames)
    assert status == GrpcStatus.INTERNAL
    assert "grpc-timeout" in message


# Messages in DATA frames

messages_and_cuts = st.tuples(
    st.lists(st.binary(max_size=60), min_size=1, max_size=6),
    st.lists(st.integers(0, 400), max_size=8),
)


@given(messages_and_cuts)
def test_messages_split_and_joined_anywhere(case: tuple[list[bytes], list[int]]) -> None:
    messages, cuts = case
    whole = grpc(*messages)
    borders = sorted({0, *[min(cut, len(whole)) for cut in cuts], len(whole)})
    peer = Peer()
    peer.open(1)
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(borders)]
    events = peer.send(*[data(1, piece) for piece in pieces], data(1, end=True))
    assert payloads(events) == messages
    assert event_names(events)[-1] == "HalfClosed"


def test_messages_of_two_calls_do_not_mix() -> None:
    peer = Peer()
    peer.open(1)
    peer.open(3)
    first, second = grpc(b"first"), grpc(b"second")
    events = peer.send(
        data(1, first[:3]), data(3, second[:7]), data(1, first[3:]), data(3, second[7:])
    )
    assert events == [Message(1, b"first"), Message(3, b"second")]


def test_empty_messages() -> None:
    peer = Peer()
    peer.open(1)
    assert payloads(peer.send(data(1, grpc(b"", b"", b"x", b"")))) == [b"", b"", b"x", b""]
    events = peer.send(data(1, grpc(b"")[:4]), data(1, grpc(b"")[4:]))
    assert payloads(events) == [b""]


def test_a_message_of_the_largest_size_is_accepted() -> None:
    peer = Peer(max_message_bytes=20_000)
    peer.open(1)
    whole = grpc(b"m" * 20_000)
    assert payloads(peer.send(data(1, whole[:9_000]), data(1, whole[9_000:]))) == [b"m" * 20_000]


@pytest.mark.parametrize("cut", [2, 5, 100])
def test_a_message_that_is_too_large_is_resource_exhausted(cut: int) -> None:
    peer = Peer(max_message_bytes=1_000)
    peer.open(1)
    whole = grpc(b"first") + grpc(b"m" * 1_001)
    events = peer.send(data(1, whole[: 10 + cut]), data(1, whole[10 + cut : 16]))
    assert event_names(events) == ["Message", "CallReset"]
    frames = peer.receive()
    assert status_of(peer, frames)[0] == GrpcStatus.RESOURCE_EXHAUSTED
    assert stream_error(frames) == NO_ERROR
    assert peer.counters == {Limit.MESSAGE_SIZE: 1}
    assert peer.connection.open_streams == 0
    assert peer.exchange(data(1, whole[16:])) == []


def test_what_was_answered_before_a_message_that_is_too_large_is_still_sent() -> None:
    peer = Peer(max_message_bytes=1_000)
    peer.open(1)
    peer.connection.send_message(1, b"answer")
    peer.send(data(1, grpc(b"m" * 2_000), end=True))
    frames = peer.receive()
    assert ungrpc(content(frames)) == [b"answer"]
    assert status_of(peer, frames)[0] == GrpcStatus.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("size", [1, 4, 5, 9])
def test_a_call_that_ends_in_the_middle_of_a_message_is_an_internal_error(size: int) -> None:
    peer = Peer()
    peer.open(1)
    (reset,) = peer.send(data(1, grpc(b"hello")[:size], end=True))
    assert isinstance(reset, CallReset)
    frames = peer.receive()
    assert kinds(frames) == [HEADERS]
    assert status_of(peer, frames)[:2] == (GrpcStatus.INTERNAL, "the last message is incomplete")
    assert peer.connection.open_streams == 0


def test_incomplete_messages_hold_no_more_than_has_come_and_are_bounded() -> None:
    peer = Peer(max_message_bytes=1 << 30, max_unfinished_bytes=50_000)
    huge = b"\0" + (1 << 30).to_bytes(4, "big")
    for stream_id in (1, 3, 5):
        peer.open(stream_id)
        assert peer.send(data(stream_id, huge + b"m" * 15_000)) == []
    peer.open(7)
    (reset,) = peer.send(data(7, huge + b"m" * 15_000))
    assert isinstance(reset, CallReset)
    assert reset.stream_id == 7
    assert peer.counters == {Limit.UNFINISHED_MESSAGES: 1}
    assert status_of(peer, peer.receive())[0] == GrpcStatus.RESOURCE_EXHAUSTED
    # What the others hold is given back when they end, however that comes.
    peer.connection.reset(1)
    peer.send(data(3, b"", end=True))
    peer.open(9)
    assert peer.send(data(9, huge + b"m" * 15_000)) == []
