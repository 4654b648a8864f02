"""RFC 9113, section 5: streams and multiplexing."""

from collections.abc import Callable

import pytest

from epp.proxy.http2.events import CallReset, ConnectionTerminated
from tests.proxy.http2.support import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PING,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    STREAM_CLOSED,
    Peer,
    connection_error,
    data,
    event_names,
    frame,
    goaway,
    grpc,
    kinds,
    parse,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    stream_error,
    window_update,
)

# 5.1 stream states


@pytest.mark.parametrize("stream_id", [1, 2, 7])
@pytest.mark.parametrize("kind", [DATA, RST_STREAM, 8, CONTINUATION])
def test_rfc9113_5_1_idle_anything_but_headers_and_priority_is_protocol_error(
    kind: int, stream_id: int
) -> None:
    peer = Peer()
    assert connection_error(peer.exchange(frame(kind, 0, stream_id, b"\0\0\0\1"))) == PROTOCOL_ERROR


def test_rfc9113_5_1_idle_priority_is_allowed_and_headers_opens() -> None:
    peer = Peer()
    assert peer.exchange(priority(1), priority(99)) == []
    assert event_names(peer.send(peer.headers(1))) == ["CallStarted"]


def test_rfc9113_5_1_idle_headers_on_a_stream_of_the_server_is_protocol_error() -> None:
    peer = Peer()
    assert connection_error(peer.exchange(peer.headers(2))) == PROTOCOL_ERROR


def test_rfc9113_5_1_open_all_frames_are_accepted() -> None:
    peer = Peer()
    peer.open(1)
    events = peer.send(
        data(1, grpc(b"a")), window_update(1, 1), priority(1), data(1, grpc(b"b"), end=True)
    )
    assert event_names(events) == ["Message", "Message", "HalfClosed"]
    assert peer.receive() == []


@pytest.mark.parametrize("kind", ["data", "headers"])
def test_rfc9113_5_1_half_closed_remote_is_stream_closed(kind: str) -> None:
    peer = Peer()
    peer.open(1, end=True)
    late = data(1, b"late") if kind == "data" else peer.headers(1, [("x-late", "1")], end=True)
    (reset,) = peer.send(late)
    assert isinstance(reset, CallReset)
    assert stream_error(peer.receive()) == STREAM_CLOSED
    peer.open(3)


def test_rfc9113_5_1_half_closed_remote_continuation_is_protocol_error() -> None:
    peer = Peer()
    peer.open(1, end=True)
    frames = peer.exchange(frame(CONTINUATION, END_HEADERS, 1, b"\x82"))
    assert connection_error(frames) == PROTOCOL_ERROR


def test_rfc9113_5_1_half_closed_remote_server_may_send_and_client_may_give_windows() -> None:
    peer = Peer()
    peer.open(1, end=True)
    assert peer.exchange(window_update(1, 5), priority(1)) == []
    peer.connection.send_message(1, b"answer")
    peer.connection.end_call(1)
    assert kinds(peer.receive()) == [HEADERS, DATA, HEADERS]
    assert peer.connection.open_streams == 0


def test_rfc9113_5_1_half_closed_local_any_frame_may_come() -> None:
    peer = Peer()
    opening = peer.headers(1, request_fields(content_type="text/plain"))
    frames = peer.exchange(opening)
    assert frames[-1].flags & END_STREAM
    trailers = peer.headers(1, [("x-trailer", "1")], end=True)
    late = peer.exchange(data(1, b"content"), window_update(1, 1), priority(1), trailers)
    assert late == []
    assert peer.connection.open_streams == 0


def closed_by_both(peer: Peer) -> None:
    peer.open(1, end=True)
    peer.connection.end_call(1)
    peer.receive()


def closed_by_client_reset(peer: Peer) -> None:
    peer.open(1)
    peer.send(rst_stream(1))


def closed_by_server_reset(peer: Peer) -> None:
    peer.open(1)
    peer.connection.reset(1)
    assert stream_error(peer.receive()) == CANCEL


@pytest.mark.parametrize("close", [closed_by_both, closed_by_client_reset])
def test_rfc9113_5_1_closed_data_is_stream_closed(
    close: Callable[[Peer], None],
) -> None:
    peer = Peer()
    close(peer)
    assert stream_error(peer.exchange(data(1, b"late"))) == STREAM_CLOSED
    assert peer.exchange(data(1, b"later")) == []  # no second RST_STREAM


@pytest.mark.parametrize("close", [closed_by_both, closed_by_client_reset])
def test_rfc9113_5_1_closed_headers_is_stream_closed(
    close: Callable[[Peer], None],
) -> None:
    peer = Peer()
    close(peer)
    assert connection_error(peer.exchange(peer.headers(1))) == STREAM_CLOSED


@pytest.mark.parametrize("close", [closed_by_both, closed_by_client_reset, closed_by_server_reset])
def test_rfc9113_5_1_closed_window_update_rst_stream_and_priority_are_allowed(
    close: Callable[[Peer], None],
) -> None:
    peer = Peer()
    close(peer)
    assert peer.exchange(window_update(1, 1), rst_stream(1), priority(1)) == []


def test_rfc9113_5_1_closed_by_server_reset_frames_on_their_way_are_discarded() -> None:
    peer = Peer()
    closed_by_server_reset(peer)
    trailers = peer.headers(1, [("x-late", "1")], end=True)
    assert peer.send(data(1, grpc(b"late")), data(1, b"", end=True), trailers) == []
    assert peer.receive() == []


def test_rfc9113_5_1_closed_data_counts_toward_the_connection_window() -> None:
    peer = Peer(connection_window_bytes=65_535)
    closed_by_server_reset(peer)
    frames = peer.exchange(*[data(1, b"\0" * 10_000)] * 4)
    assert kinds(frames) == [8]
    assert frames[0].stream_id == 0


def test_rfc9113_5_1_closed_nothing_is_sent_on_a_stream_that_was_reset() -> None:
    peer = Peer()
    closed_by_client_reset(peer)
    peer.connection.send_message(1, b"late")
    peer.connection.end_call(1)
    peer.connection.reset(1)
    peer.connection.pause_reading(1)
    peer.connection.resume_reading(1)
    assert peer.receive() == []


# 5.1.1 stream identifiers


def test_rfc9113_5_1_1_identifier_that_is_skipped_is_closed() -> None:
    peer = Peer()
    peer.open(5)
    assert connection_error(peer.exchange(peer.headers(3))) == PROTOCOL_ERROR


def test_rfc9113_5_1_1_skipped_identifier_may_not_be_used_in_any_way() -> None:
    peer = Peer()
    peer.open(5)
    assert peer.exchange(window_update(3, 1), rst_stream(3), priority(3)) == []
    assert stream_error(peer.exchange(data(3, b"x")), 3) == STREAM_CLOSED


def test_rfc9113_5_1_1_identifier_cannot_be_used_twice() -> None:
    peer = Peer()
    closed_by_both(peer)
    assert connection_error(peer.exchange(peer.headers(1))) == STREAM_CLOSED


@pytest.mark.parametrize("stream_id", [0, 2, 4])
def test_rfc9113_5_1_1_client_must_use_odd_identifiers(stream_id: int) -> None:
    peer = Peer()
    assert connection_error(peer.exchange(peer.headers(stream_id))) == PROTOCOL_ERROR


def test_rfc9113_5_1_1_highest_identifier_can_be_used() -> None:
    peer = Peer()
    peer.open((1 << 31) - 1)


# 5.1.2 stream concurrency


def test_rfc9113_5_1_2_limit_is_announced() -> None:
    assert (3).to_bytes(2, "big") + (7).to_bytes(4, "big") in (
        Peer(max_concurrent_streams=7).preface[0].payload
    )


def test_rfc9113_5_1_2_peer_may_be_asked_to_keep_to_less() -> None:
    peer = Peer(max_concurrent_streams=2, announced_streams=1)
    assert b"\0\3\0\0\0\1" in peer.preface[0].payload
    peer.open(1)
    peer.open(3)


def test_rfc9113_5_1_2_stream_above_the_limit_is_refused_and_the_others_go_on() -> None:
    peer = Peer(max_concurrent_streams=2)
    peer.open(1)
    peer.open(3, end=True)  # half-closed counts
    assert peer.send(peer.headers(5)) == []
    assert stream_error(peer.receive(), 5) == REFUSED_STREAM
    assert event_names(peer.send(data(1, grpc(b"a")))) == ["Message"]
    peer.connection.end_call(3)
    peer.receive()
    peer.open(7)


def test_rfc9113_5_1_2_frames_that_follow_a_refused_stream_are_discarded() -> None:
    peer = Peer(max_concurrent_streams=1)
    peer.open(1)
    frames = peer.exchange(peer.headers(3), data(3, grpc(b"a")), data(3, end=True), rst_stream(3))
    assert kinds(frames) == [RST_STREAM]


# 5.3 prioritization


def test_rfc9113_5_3_2_priority_signals_change_nothing() -> None:
    peer = Peer()
    block = peer.block(request_fields())
    opening = frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 3, b"\x80\0\0\x01\xff" + block)
    assert event_names(peer.send(opening, priority(3, 1), priority(1, 3))) == ["CallStarted"]
    assert peer.receive() == []


def test_rfc7540_5_3_1_stream_that_depends_on_itself_is_protocol_error() -> None:
    peer = Peer()
    block = peer.block(request_fields())
    opening = frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 1, b"\0\0\0\x01\0" + block)
    assert stream_error(peer.exchange(opening)) == PROTOCOL_ERROR
    peer.open(3)
    assert stream_error(peer.exchange(priority(3, 3)), 3) == PROTOCOL_ERROR


@pytest.mark.parametrize("stream_id", [1, 3])
def test_rfc9113_5_4_2_error_of_a_stream_that_cannot_be_reset_is_a_connection_error(
    stream_id: int,
) -> None:
    for bad in (priority(stream_id, stream_id), window_update(stream_id, 0)):
        peer = Peer()
        closed_by_both(peer)
        assert connection_error(peer.exchange(bad)) == PROTOCOL_ERROR


# 5.4 error handling


def test_rfc9113_5_4_1_connection_error_is_goaway_with_the_last_stream_then_the_end() -> None:
    peer = Peer()
    peer.open(1)
    peer.open(7)
    events = peer.send(data(7, grpc(b"a")), data(0, b"x"), data(1, grpc(b"b")))
    assert event_names(events) == ["Message", "CallReset", "CallReset", "ConnectionTerminated"]
    assert events[-1] == ConnectionTerminated(PROTOCOL_ERROR, "DATA on idle stream 0")
    (last,) = peer.receive()
    assert (last.kind, last.payload[:8]) == (GOAWAY, b"\0\0\0\x07\0\0\0\x01")
    assert peer.is_closed


def test_rfc9113_5_4_1_nothing_is_processed_or_sent_after_a_connection_error() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    peer.exchange(data(0, b"x"))
    assert peer.send(ping(), peer.headers(3)) == []
    peer.connection.send_message(1, b"late")
    peer.connection.begin_goaway()
    assert peer.connection.tick(peer.now + 1e6) == []
    assert peer.connection.lost() == []
    assert peer.receive() == []


def test_rfc9113_5_4_1_debug_data_of_goaway_is_short_whatever_the_client_sent() -> None:
    peer = Peer()
    long = b"\x00\x01a\x7f\x81\x7e" + b"v" * 16_000
    frames = peer.exchange(frame(HEADERS, END_HEADERS, 1, long))
    assert connection_error(frames) is not None
    assert len(frames[-1].payload) <= 208


def test_rfc9113_5_4_1_goaway_of_a_connection_without_streams_names_stream_0() -> None:
    frames = Peer().exchange(data(0))
    assert frames[-1].payload[:4] == b"\0\0\0\0"


def test_rfc9113_5_4_2_stream_error_leaves_the_other_streams_alone() -> None:
    peer = Peer()
    peer.open(1)
    peer.open(3)
    events = peer.send(window_update(1, 0), data(3, grpc(b"a")))
    assert event_names(events) == ["CallReset", "Message"]
    assert stream_error(peer.receive()) == PROTOCOL_ERROR


def test_rfc9113_5_4_2_only_one_error_is_reported_for_a_stream() -> None:
    peer = Peer()
    peer.open(1)
    frames = peer.exchange(window_update(1, 0), data(1, b"x"), window_update(1, 1), priority(1))
    assert kinds(frames) == [RST_STREAM]


def test_rfc9113_5_4_2_rst_stream_is_never_answered_with_rst_stream() -> None:
    peer = Peer()
    closed_by_both(peer)
    assert peer.exchange(rst_stream(1, STREAM_CLOSED)) == []


def test_rfc9113_5_4_3_connection_that_is_lost_ends_its_calls() -> None:
    peer = Peer()
    peer.open(1)
    peer.open(3)
    peer.connection.end_call(3)
    assert event_names(peer.connection.lost()) == ["CallReset", "ConnectionTerminated"]
    assert peer.is_closed


# 5.5 extending HTTP/2


def test_rfc9113_5_5_unknown_settings_and_error_codes_are_ignored() -> None:
    peer = Peer()
    peer.open(1)
    frames = peer.exchange(settings((0x99, 1), (0, 5)), goaway(0, 0xDEAD))
    assert kinds(frames) == [4]
    (reset,) = peer.send(rst_stream(1, 0xDEAD))
    assert isinstance(reset, CallReset)
    assert reset.error_code == 0xDEAD


def test_rfc9113_5_5_extension_frame_inside_a_field_block_is_protocol_error() -> None:
    peer = Peer()
    frames = peer.exchange(frame(HEADERS, 0, 1, b"\x82"), frame(0x42, 0, 1))
    assert connection_error(frames) == PROTOCOL_ERROR


def test_frames_of_a_batch_after_a_stream_error_are_still_processed() -> None:
    peer = Peer()
    peer.open(1)
    frames = peer.exchange(frame(2, 0, 1, b"short"[:4]), ping())
    assert kinds(frames) == [RST_STREAM, PING]
    assert frames[0].payload == FRAME_SIZE_ERROR.to_bytes(4, "big")


def test_graceful_end_of_a_call_lets_the_client_stop() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.end_call(1)
    frames = peer.receive()
    assert kinds(frames) == [HEADERS, RST_STREAM]
    assert stream_error(frames) == NO_ERROR
    assert parse(b"") == []
