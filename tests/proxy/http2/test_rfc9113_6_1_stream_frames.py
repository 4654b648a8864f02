"""RFC 9113, sections 6.1 to 6.4: the frames about streams."""

import pytest

from epp.proxy.http2.events import CallReset
from tests.proxy.http2.support import (
    CANCEL,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    HEADERS,
    PADDED,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    RST_STREAM,
    WINDOW_UPDATE,
    Peer,
    connection_error,
    data,
    event_names,
    frame,
    grpc,
    kinds,
    padded,
    payloads,
    request_fields,
    rst_stream,
    stream_error,
    window_update,
)

# 6.1 DATA


def test_rfc9113_6_1_data_on_stream_0_is_protocol_error() -> None:
    assert connection_error(Peer().exchange(data(0, b"x"))) == PROTOCOL_ERROR


@pytest.mark.parametrize("padding", [0, 1, 100, 255])
def test_rfc9113_6_1_padding_is_removed(padding: int) -> None:
    peer = Peer()
    peer.open(1)
    events = peer.send(frame(DATA, PADDED | END_STREAM, 1, padded(grpc(b"hello"), padding)))
    assert event_names(events) == ["Message", "HalfClosed"]
    assert payloads(events) == [b"hello"]


def test_rfc9113_6_1_padding_may_fill_the_frame_but_for_its_length() -> None:
    peer = Peer()
    peer.open(1)
    assert peer.exchange(frame(DATA, PADDED, 1, padded(b"", 255))) == []


@pytest.mark.parametrize("padding", [6, 7, 255])
def test_rfc9113_6_1_padding_as_long_as_the_payload_is_protocol_error(padding: int) -> None:
    peer = Peer()
    peer.open(1)
    bad = frame(DATA, PADDED, 1, bytes((padding,)) + b"\0" * 5)
    assert connection_error(peer.exchange(bad)) == PROTOCOL_ERROR


def test_rfc9113_6_1_padding_counts_in_flow_control() -> None:
    peer = Peer(stream_window_bytes=65_535, connection_window_bytes=65_535)
    peer.open(1)
    frames = peer.exchange(*[frame(DATA, PADDED, 1, padded(grpc(b"m"), 255))] * 126)
    assert kinds(frames) == [WINDOW_UPDATE, WINDOW_UPDATE]


def test_rfc9113_6_1_padding_need_not_be_zero() -> None:
    peer = Peer()
    peer.open(1)
    events = peer.send(frame(DATA, PADDED, 1, b"\x03" + grpc(b"hello") + b"abc"))
    assert event_names(events) == ["Message"]


# 6.2 HEADERS


def test_rfc9113_6_2_headers_on_stream_0_is_protocol_error() -> None:
    peer = Peer()
    assert connection_error(peer.exchange(peer.headers(0))) == PROTOCOL_ERROR


@pytest.mark.parametrize("extra", [0, PRIORITY_FLAG])
@pytest.mark.parametrize("padding", [0, 1, 255])
def test_rfc9113_6_2_padding_and_priority_are_removed(padding: int, extra: int) -> None:
    peer = Peer()
    fragment = (b"\0\0\0\0\x10" if extra else b"") + peer.block(request_fields())
    flags = END_HEADERS | PADDED | extra
    events = peer.send(frame(HEADERS, flags, 1, padded(fragment, padding)))
    assert event_names(events) == ["CallStarted"]


def test_rfc9113_6_2_padding_as_long_as_the_payload_is_protocol_error() -> None:
    bad = frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05" + b"\0" * 4)
    assert connection_error(Peer().exchange(bad)) == PROTOCOL_ERROR


def test_rfc9113_6_2_priority_of_which_padding_leaves_too_little_is_an_error() -> None:
    bad = frame(HEADERS, END_HEADERS | PADDED | PRIORITY_FLAG, 1, padded(b"\0" * 4, 3))
    assert connection_error(Peer().exchange(bad)) == FRAME_SIZE_ERROR


def test_rfc9113_6_2_end_stream_counts_when_the_block_is_complete() -> None:
    peer = Peer()
    block = peer.block(request_fields())
    assert peer.send(frame(HEADERS, END_STREAM, 1, block[:9])) == []
    events = peer.send(frame(CONTINUATION, END_HEADERS, 1, block[9:]))
    assert event_names(events) == ["CallStarted", "HalfClosed"]


def test_rfc9113_6_2_end_stream_flag_of_continuation_means_nothing() -> None:
    peer = Peer()
    block = peer.block(request_fields())
    flags = END_HEADERS | END_STREAM
    events = peer.send(frame(HEADERS, 0, 1, block[:9]), frame(CONTINUATION, flags, 1, block[9:]))
    assert event_names(events) == ["CallStarted"]


# 6.3 PRIORITY


def test_rfc9113_6_3_priority_on_stream_0_is_protocol_error() -> None:
    assert connection_error(Peer().exchange(frame(2, 0, 0, b"\0" * 5))) == PROTOCOL_ERROR


@pytest.mark.parametrize("length", [0, 4, 6])
def test_rfc9113_6_3_priority_of_another_length_is_a_stream_error(length: int) -> None:
    peer = Peer()
    peer.open(1)
    assert stream_error(peer.exchange(frame(2, 0, 1, b"\0" * length))) == FRAME_SIZE_ERROR


@pytest.mark.parametrize("stream_id", [3, 5])
def test_rfc9113_6_3_priority_of_another_length_where_no_stream_can_be_reset(
    stream_id: int,
) -> None:
    peer = Peer()
    peer.open(3, end=True)
    peer.connection.end_call(3)
    peer.receive()
    assert connection_error(peer.exchange(frame(2, 0, stream_id, b""))) == FRAME_SIZE_ERROR


# 6.4 RST_STREAM


def test_rfc9113_6_4_rst_stream_ends_the_call() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)  # more than the window
    peer.receive()
    assert peer.send(rst_stream(1)) == [CallReset(1, CANCEL, "reset by the peer")]
    assert peer.exchange(window_update(1, 1 << 20), window_update(0, 1 << 20)) == []
    assert peer.connection.open_streams == 0
    assert peer.connection.buffered_bytes(1) == 0


def test_rfc9113_6_4_rst_stream_of_a_call_that_has_ended_is_no_event() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    peer.connection.end_call(1)
    peer.receive()
    assert peer.send(rst_stream(1)) == []
    assert peer.connection.open_streams == 0


def test_rfc9113_6_4_rst_stream_on_stream_0_is_protocol_error() -> None:
    assert connection_error(Peer().exchange(rst_stream(0))) == PROTOCOL_ERROR


@pytest.mark.parametrize("stream_id", [1, 2])
def test_rfc9113_6_4_rst_stream_on_an_idle_stream_is_protocol_error(stream_id: int) -> None:
    assert connection_error(Peer().exchange(rst_stream(stream_id))) == PROTOCOL_ERROR


@pytest.mark.parametrize("length", [0, 3, 5])
def test_rfc9113_6_4_rst_stream_of_another_length_is_frame_size_error(length: int) -> None:
    peer = Peer()
    peer.open(1)
    bad = frame(RST_STREAM, 0, 1, b"\0" * length)
    assert connection_error(peer.exchange(bad)) == FRAME_SIZE_ERROR
