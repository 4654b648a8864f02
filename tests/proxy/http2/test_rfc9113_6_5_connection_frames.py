"""RFC 9113, sections 6.5 to 6.8, 6.10 and 7: the frames about the connection, and the rest."""

import struct

import pytest

from epp.proxy.http2.events import PeerGoaway
from tests.proxy.http2.support import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    NO_ERROR,
    PING,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    SETTINGS_TIMEOUT,
    WINDOW_UPDATE,
    Frame,
    Peer,
    connection_error,
    data,
    event_names,
    frame,
    goaway,
    grpc,
    kinds,
    ping,
    request_fields,
    rst_stream,
    settings,
    settings_ack,
    stream_error,
    window_update,
)

# 6.5 SETTINGS


def test_rfc9113_6_5_settings_are_acknowledged_each() -> None:
    frames = Peer().exchange(settings((4, 1)), settings(), settings((99, 99)))
    assert frames == [Frame(SETTINGS, ACK, 0, b"")] * 3


def test_rfc9113_6_5_acknowledgement_is_not_answered() -> None:
    assert Peer().exchange(settings_ack()) == []


def test_rfc9113_6_5_acknowledgement_with_payload_is_frame_size_error() -> None:
    bad = frame(SETTINGS, ACK, 0, b"\0" * 6)
    assert connection_error(Peer().exchange(bad)) == FRAME_SIZE_ERROR


@pytest.mark.parametrize("flags", [0, ACK])
def test_rfc9113_6_5_settings_on_a_stream_is_protocol_error(flags: int) -> None:
    peer = Peer()
    peer.open(1)
    assert connection_error(peer.exchange(frame(SETTINGS, flags, 1))) == PROTOCOL_ERROR


@pytest.mark.parametrize("length", [1, 5, 7])
def test_rfc9113_6_5_length_that_is_no_multiple_of_6_is_frame_size_error(length: int) -> None:
    bad = frame(SETTINGS, 0, 0, b"\0" * length)
    assert connection_error(Peer().exchange(bad)) == FRAME_SIZE_ERROR


def test_rfc9113_6_5_2_server_announces_its_own_settings() -> None:
    peer = Peer(
        max_concurrent_streams=7,
        stream_window_bytes=70_000,
        connection_window_bytes=80_000,
        max_frame_bytes=20_000,
        max_header_list_bytes=5_000,
    )
    first, second, *_ = peer.preface
    announced = dict(struct.iter_unpack(">HI", first.payload))
    assert announced == {3: 7, 4: 70_000, 5: 20_000, 6: 5_000}
    assert second == Frame(WINDOW_UPDATE, 0, 0, (80_000 - 65_535).to_bytes(4, "big"))


def test_rfc9113_6_5_2_server_does_not_announce_push() -> None:
    assert 2 not in dict(struct.iter_unpack(">HI", Peer().preface[0].payload))


@pytest.mark.parametrize("value", [0, 1])
def test_rfc9113_6_5_2_enable_push_0_and_1_are_accepted(value: int) -> None:
    assert connection_error(Peer().exchange(settings((2, value)))) is None


@pytest.mark.parametrize("value", [2, 0xFFFFFFFF])
def test_rfc9113_6_5_2_enable_push_above_1_is_protocol_error(value: int) -> None:
    assert connection_error(Peer().exchange(settings((2, value)))) == PROTOCOL_ERROR


@pytest.mark.parametrize("value", [MAX_WINDOW + 1, 0xFFFFFFFF])
def test_rfc9113_6_5_2_initial_window_size_above_maximum_is_flow_control_error(value: int) -> None:
    assert connection_error(Peer().exchange(settings((4, value)))) == FLOW_CONTROL_ERROR


@pytest.mark.parametrize("value", [0, MAX_WINDOW])
def test_rfc9113_6_5_2_initial_window_size_up_to_the_maximum_is_accepted(value: int) -> None:
    assert connection_error(Peer().exchange(settings((4, value)))) is None


@pytest.mark.parametrize("value", [0, 16_383, 1 << 24, 0xFFFFFFFF])
def test_rfc9113_6_5_2_max_frame_size_out_of_range_is_protocol_error(value: int) -> None:
    assert connection_error(Peer().exchange(settings((5, value)))) == PROTOCOL_ERROR


@pytest.mark.parametrize("value", [16_384, (1 << 24) - 1])
def test_rfc9113_6_5_2_max_frame_size_in_range_is_accepted(value: int) -> None:
    assert connection_error(Peer().exchange(settings((5, value)))) is None


def test_rfc9113_6_5_2_every_other_value_is_accepted() -> None:
    for identifier in (1, 3, 6, 7, 0xFFFF):
        for value in (0, 0xFFFFFFFF):
            assert connection_error(Peer().exchange(settings((identifier, value)))) is None


def test_rfc9113_6_5_3_last_value_of_a_setting_counts() -> None:
    peer = Peer()
    peer.exchange(settings((4, 0), (4, 3), (4, 5)))
    peer.open(1)
    peer.connection.send_message(1, b"hello")
    assert [len(a.payload) for a in peer.receive() if a.kind == DATA] == [5]


def test_rfc9113_6_5_3_settings_are_applied_before_they_are_acknowledged() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 70_000)
    peer.connection.pause_reading(1)
    peer.receive()
    frames = peer.exchange(settings((4, 70_005)), window_update(0, 70_005))
    assert frames[0] == Frame(SETTINGS, ACK, 0, b"")
    assert sum(len(a.payload) for a in frames[1:]) == 70_005 - 65_535


def test_rfc9113_6_5_3_settings_that_are_not_acknowledged_in_time_are_settings_timeout() -> None:
    peer = Peer(handshake=False, settings_timeout_s=10)
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings())
    assert peer.connection.tick(peer.now + 9.9) == []
    assert event_names(peer.connection.tick(peer.now + 10)) == ["ConnectionTerminated"]
    assert connection_error(peer.receive()) == SETTINGS_TIMEOUT


def test_rfc9113_6_5_3_settings_that_are_acknowledged_time_nothing_out() -> None:
    peer = Peer(settings_timeout_s=10)
    assert peer.connection.tick(peer.now + 1e6) == []


# 6.6 PUSH_PROMISE


@pytest.mark.parametrize("stream_id", [0, 1, 3])
def test_rfc9113_6_6_push_promise_from_a_client_is_protocol_error(stream_id: int) -> None:
    peer = Peer()
    peer.open(1)
    promise = frame(PUSH_PROMISE, END_HEADERS, stream_id, b"\0\0\0\x02\x82")
    assert connection_error(peer.exchange(promise)) == PROTOCOL_ERROR


# 6.7 PING


def test_rfc9113_6_7_ping_is_answered_with_its_payload() -> None:
    assert Peer().exchange(ping(b"abcdefgh")) == [Frame(PING, ACK, 0, b"abcdefgh")]


def test_rfc9113_6_7_ping_response_is_not_answered() -> None:
    assert Peer().exchange(ping(flags=ACK)) == []


@pytest.mark.parametrize("flags", [0, ACK])
def test_rfc9113_6_7_ping_on_a_stream_is_protocol_error(flags: int) -> None:
    peer = Peer()
    peer.open(1)
    assert connection_error(peer.exchange(frame(PING, flags, 1, b"\0" * 8))) == PROTOCOL_ERROR


@pytest.mark.parametrize("length", [0, 7, 9])
@pytest.mark.parametrize("flags", [0, ACK])
def test_rfc9113_6_7_ping_of_another_length_is_frame_size_error(length: int, flags: int) -> None:
    bad = frame(PING, flags, 0, b"\0" * length)
    assert connection_error(Peer().exchange(bad)) == FRAME_SIZE_ERROR


# 6.8 GOAWAY


def test_rfc9113_6_8_goaway_is_told_and_streams_go_on() -> None:
    peer = Peer()
    peer.open(1)
    events = peer.send(goaway(0, NO_ERROR, b"bye"), data(1, grpc(b"a")))
    assert events[0] == PeerGoaway(0, NO_ERROR, b"bye")
    assert event_names(events) == ["PeerGoaway", "Message"]
    peer.connection.send_message(1, b"answer")
    assert kinds(peer.receive()) == [HEADERS, DATA]


def test_rfc9113_6_8_goaway_on_a_stream_is_protocol_error() -> None:
    peer = Peer()
    peer.open(1)
    assert connection_error(peer.exchange(frame(GOAWAY, 0, 1, b"\0" * 8))) == PROTOCOL_ERROR


def goaways(frames: list[Frame]) -> list[tuple[int, int]]:
    found = [struct.unpack(">II", a.payload[:8]) for a in frames if a.kind == GOAWAY]
    return [(last, code) for last, code in found]


def drain(peer: Peer) -> Frame:
    """Begin a graceful end; return the ping that comes with it."""
    peer.connection.begin_goaway()
    frames = peer.receive()
    assert goaways(frames) == [(MAX_WINDOW, NO_ERROR)]
    assert kinds(frames) == [GOAWAY, PING]
    return frames[1]


def test_rfc9113_6_8_graceful_shutdown_has_two_steps() -> None:
    peer = Peer()
    peer.open(1)
    question = drain(peer)
    assert not peer.is_closed
    peer.open(3)  # was on its way
    frames = peer.exchange(ping(question.payload, ACK))
    assert goaways(frames) == [(3, NO_ERROR)]
    assert event_names(peer.send(data(1, grpc(b"a")))) == ["Message"]
    peer.connection.end_call(1)
    peer.receive()
    assert not peer.is_closed
    peer.connection.end_call(3)
    assert kinds(peer.receive()) == [HEADERS, RST_STREAM]
    assert peer.is_closed


def test_rfc9113_6_8_graceful_shutdown_without_an_answer_goes_on_after_a_while() -> None:
    peer = Peer(drain_ping_timeout_s=5)
    drain(peer)
    peer.connection.tick(peer.now + 4.9)
    assert peer.receive() == []
    peer.connection.tick(peer.now + 5)
    assert goaways(peer.receive()) == [(0, NO_ERROR)]
    assert peer.is_closed


def test_rfc9113_6_8_graceful_shutdown_is_begun_once_and_ends_once() -> None:
    peer = Peer()
    question = drain(peer)
    peer.connection.begin_goaway()
    assert peer.receive() == []
    frames = peer.exchange(ping(b"somebody", ACK), *[ping(question.payload, ACK)] * 2)
    assert goaways(frames) == [(0, NO_ERROR)]


def test_rfc9113_6_8_streams_above_the_last_one_are_refused_with_their_state_kept() -> None:
    peer = Peer()
    peer.open(1)
    peer.exchange(ping(drain(peer).payload, ACK))
    new = [("x-new", "value")]
    frames = peer.exchange(peer.headers(3, request_fields() + new), data(3, grpc(b"a"), end=True))
    assert stream_error(frames, 3) == REFUSED_STREAM
    assert kinds(frames) == [RST_STREAM]
    assert event_names(peer.send(peer.headers(1, new, end=True))) == ["HalfClosed"]


def test_rfc9113_6_8_last_stream_never_increases() -> None:
    peer = Peer()
    peer.open(1)
    peer.exchange(ping(drain(peer).payload, ACK))
    peer.exchange(peer.headers(3))
    assert goaways(peer.exchange(data(0))) == [(1, PROTOCOL_ERROR)]


def test_rfc9113_6_8_goaway_is_sent_before_the_connection_is_closed() -> None:
    assert goaways(Peer().exchange(data(0))) == [(0, PROTOCOL_ERROR)]


# 6.10 CONTINUATION


def test_rfc9113_6_10_continuation_on_stream_0_is_protocol_error() -> None:
    bad = frame(CONTINUATION, END_HEADERS, 0, b"\x82")
    assert connection_error(Peer().exchange(bad)) == PROTOCOL_ERROR


@pytest.mark.parametrize("before", ["headers", "continuation", "data"])
def test_rfc9113_6_10_continuation_after_the_end_of_a_block_is_protocol_error(before: str) -> None:
    peer = Peer()
    block = peer.block(request_fields())
    if before == "continuation":
        peer.send(frame(HEADERS, 0, 1, block), frame(CONTINUATION, END_HEADERS, 1))
    else:
        peer.send(frame(HEADERS, END_HEADERS, 1, block))
    if before == "data":
        peer.send(data(1, grpc(b"a")))
    bad = frame(CONTINUATION, END_HEADERS, 1, b"\x82")
    assert connection_error(peer.exchange(bad)) == PROTOCOL_ERROR


def test_rfc9113_6_10_continuation_on_another_stream_is_protocol_error() -> None:
    peer = Peer()
    peer.open(1)
    frames = peer.exchange(
        frame(HEADERS, 0, 3, b"\x82"), frame(CONTINUATION, END_HEADERS, 1, b"\x82")
    )
    assert connection_error(frames) == PROTOCOL_ERROR


def test_rfc9113_6_10_any_number_of_continuations_within_reason() -> None:
    peer = Peer()
    block = peer.block(request_fields())
    pieces = [block[index : index + 2] for index in range(0, len(block), 2)][:20]
    pieces.append(block[40:])
    last = len(pieces) - 1
    frames = [
        frame(CONTINUATION if n else HEADERS, END_HEADERS if n == last else 0, 1, piece)
        for n, piece in enumerate(pieces)
    ]
    assert event_names(peer.send(*frames)) == ["CallStarted"]


# 7 error codes


@pytest.mark.parametrize("code", [*range(14), 14, 0xFFFFFFFF])
def test_rfc9113_7_any_error_code_is_accepted(code: int) -> None:
    peer = Peer()
    peer.open(1)
    assert event_names(peer.send(rst_stream(1, code), goaway(0, code))) == [
        "CallReset",
        "PeerGoaway",
    ]
    assert peer.receive() == []
