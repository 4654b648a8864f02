"""RFC 9113, section 4: frames and field blocks."""

import pytest
from hpack import Decoder

from tests.proxy.http2.support import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    MAX_WINDOW,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    call_headers,
    connection_error,
    content,
    data,
    event_names,
    frame,
    grpc,
    kinds,
    ping,
    request_fields,
    rst_stream,
    settings,
    stream_error,
    ungrpc,
    window_update,
)

# 4.1 frame format


@pytest.mark.parametrize("kind", [0xA, 0x10, 0x42, 0xFF])
@pytest.mark.parametrize("stream_id", [0, 1, 2, 99])
def test_rfc9113_4_1_frames_of_unknown_type_are_ignored(kind: int, stream_id: int) -> None:
    peer = Peer()
    peer.open(1)
    assert peer.exchange(frame(kind, 0xFF, stream_id, b"whatever")) == []
    assert event_names(peer.send(data(1, grpc(b"still here")))) == ["Message"]


def test_rfc9113_4_1_unused_flags_are_ignored() -> None:
    peer = Peer()
    block = peer.block(request_fields())
    unused = 0xFF & ~(END_STREAM | END_HEADERS | PADDED | PRIORITY_FLAG)
    events = peer.send(
        frame(HEADERS, END_HEADERS | unused, 1, block),
        frame(DATA, 0xFF & ~(END_STREAM | PADDED), 1, grpc(b"hello")),
        frame(SETTINGS, 0xFE),
        frame(PING, 0xFE, 0, b"12345678"),
        frame(WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1"),
        frame(PRIORITY, 0xFF, 1, b"\0\0\0\0\0"),
        frame(RST_STREAM, 0xFF, 1, b"\0\0\0\x08"),
    )
    assert event_names(events) == ["CallStarted", "Message", "CallReset"]


def test_rfc9113_4_1_reserved_bit_is_ignored() -> None:
    peer = Peer()
    reserved = 1 << 31
    block = peer.block(request_fields())
    events = peer.send(
        frame(HEADERS, END_HEADERS, 1 | reserved, block),
        frame(DATA, 0, 1 | reserved, grpc(b"hello")),
        frame(PING, 0, reserved, b"12345678"),
    )
    assert event_names(events) == ["CallStarted", "Message"]
    assert kinds(peer.receive()) == [PING]


def test_rfc9113_4_1_no_unused_flag_and_no_reserved_bit_is_sent() -> None:
    defined = {DATA: END_STREAM, HEADERS: END_STREAM | END_HEADERS, SETTINGS: 1, PING: 1}
    peer = Peer()
    peer.open(1)
    peer.open(3)
    peer.connection.send_message(1, b"m" * 40_000)
    peer.connection.end_call(1)
    peer.connection.reset(3)
    peer.connection.begin_goaway()
    for a_frame in [*peer.preface, *peer.exchange(ping(), data(1, b"\0" * 600_000))]:
        assert a_frame.flags & ~defined.get(a_frame.kind, 0) == 0
        assert a_frame.stream_id >> 31 == 0


# 4.2 frame size


def test_rfc9113_4_2_frame_of_the_announced_size_is_accepted() -> None:
    peer = Peer(max_frame_bytes=20_000)
    assert (5, 20_000) in announced(peer)
    peer.open(1)
    events = peer.send(data(1, grpc(b"m" * 19_995)))
    assert event_names(events) == ["Message"]


def announced(peer: Peer) -> list[tuple[int, int]]:
    payload = peer.preface[0].payload
    pieces = [payload[index : index + 6] for index in range(0, len(payload), 6)]
    return [(int.from_bytes(p[:2], "big"), int.from_bytes(p[2:], "big")) for p in pieces]


def test_rfc9113_4_2_every_frame_of_2_to_the_14_octets_is_accepted() -> None:
    peer = Peer()
    fill = [("x-fill", "\\" * 8_000)] * 2  # no Huffman code makes these shorter
    block = Peer().encoder.encode(request_fields() + fill, huffman=False)
    assert len(block) <= 16_384
    peer.send(frame(HEADERS, END_HEADERS, 1, block), data(1, b"\0" * 16_384))
    peer.send(frame(0x42, 0, 0, b"\0" * 16_384), frame(GOAWAY, 0, 0, b"\0" * 16_384))
    assert connection_error(peer.receive()) is None


@pytest.mark.parametrize("kind", [DATA, HEADERS, SETTINGS, PING, GOAWAY, CONTINUATION, 0x42])
def test_rfc9113_4_2_frame_above_max_frame_size_is_frame_size_error(kind: int) -> None:
    peer = Peer()
    peer.open(1)
    head = frame(kind, 0, 1, b"\0" * 16_385)[:9]
    assert connection_error(peer.exchange(head)) == FRAME_SIZE_ERROR  # before any of its payload


@pytest.mark.parametrize(
    "bad",
    [
        frame(HEADERS, END_HEADERS | PRIORITY_FLAG, 1, b"\0\0\0\0"),
        frame(HEADERS, END_HEADERS | PADDED, 1),
        frame(DATA, PADDED, 1),
        frame(RST_STREAM, 0, 1, b"\0\0\0"),
        frame(SETTINGS, 0, 0, b"\0" * 5),
        frame(PING, 0, 0, b"\0" * 7),
        frame(GOAWAY, 0, 0, b"\0" * 7),
        frame(WINDOW_UPDATE, 0, 0, b"\0" * 3),
        frame(WINDOW_UPDATE, 0, 1, b"\0" * 5),
    ],
    ids=lambda bad: f"type-{bad[3]}-{len(bad) - 9}-octets",
)
def test_rfc9113_4_2_frame_too_small_for_its_mandatory_data_is_frame_size_error(
    bad: bytes,
) -> None:
    peer = Peer()
    peer.open(1)
    assert connection_error(peer.exchange(bad)) == FRAME_SIZE_ERROR


def test_rfc9113_4_2_no_frame_is_sent_above_the_size_the_peer_takes() -> None:
    peer = Peer()
    peer.exchange(window_update(0, 1 << 20), settings((4, 1 << 20)))
    for stream_id, max_bytes in ((1, 16_384), (3, 30_000)):
        if max_bytes != 16_384:
            peer.exchange(settings((5, max_bytes)))
        peer.open(stream_id)
        peer.connection.send_message(stream_id, b"m" * 100_000)
        frames = peer.receive()
        assert max(len(a.payload) for a in frames) == max_bytes
        assert ungrpc(content(frames, stream_id)) == [b"m" * 100_000]


# 4.3 field section compression and decompression


def test_rfc9113_4_3_field_block_may_be_cut_anywhere() -> None:
    block = Peer().block(request_fields())
    for cut in range(len(block) + 1):
        peer = Peer()
        events = peer.send(
            frame(HEADERS, 0, 1, block[:cut]), frame(CONTINUATION, END_HEADERS, 1, block[cut:])
        )
        assert event_names(events) == ["CallStarted"]


def test_rfc9113_4_3_field_block_of_a_refused_stream_still_changes_the_state() -> None:
    peer = Peer(max_concurrent_streams=1)
    peer.open(1)
    unseen = [("x-new", "value")]
    frames = peer.exchange(peer.headers(3, request_fields() + unseen))
    assert stream_error(frames, 3) == REFUSED_STREAM
    peer.send(rst_stream(1))
    events = peer.send(peer.headers(5, request_fields() + unseen))
    assert call_headers(events)[-1] == (b"x-new", b"value")


def test_rfc9113_4_3_field_block_on_a_stream_that_was_reset_still_changes_the_state() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.reset(1)
    peer.receive()
    unseen = [("x-new", "value")]
    assert peer.exchange(peer.headers(1, unseen, end=True)) == []
    events = peer.send(peer.headers(3, request_fields() + unseen))
    assert call_headers(events)[-1] == (b"x-new", b"value")


@pytest.mark.parametrize(
    "block",
    [b"\x80", b"\xbf", b"\x40\x0f", b"\xff\xff\xff\xff\xff\xff\xff", b"\x00\x81\xff\x01x"],
    ids=["index-0", "index-62", "cut-off", "long-integer", "huffman"],
)
def test_rfc9113_4_3_decoding_error_is_compression_error(block: bytes) -> None:
    peer = Peer()
    assert connection_error(peer.exchange(frame(HEADERS, END_HEADERS, 1, block))) == (
        COMPRESSION_ERROR
    )


@pytest.mark.parametrize(
    "intruder",
    [
        data(1, b"x"),
        ping(),
        settings(),
        window_update(0, 1),
        frame(PRIORITY, 0, 1, b"\0\0\0\0\0"),
        frame(0x42),
        frame(HEADERS, END_HEADERS, 3, b"\x82"),
        frame(CONTINUATION, END_HEADERS, 3, b"\x82"),
        rst_stream(1),
    ],
    ids=lambda intruder: f"type-{intruder[3]}",
)
def test_rfc9113_4_3_field_block_that_is_interrupted_is_protocol_error(intruder: bytes) -> None:
    peer = Peer()
    block = peer.block(request_fields())
    frames = peer.exchange(
        frame(HEADERS, 0, 1, block[:5]),
        intruder,
        frame(CONTINUATION, END_HEADERS, 1, block[5:]),
    )
    assert connection_error(frames) == PROTOCOL_ERROR


# 4.3.1 compression state


def test_rfc9113_4_3_1_dynamic_table_may_be_used_up_to_its_initial_size() -> None:
    peer = Peer()
    peer.encoder.header_table_size = 100
    peer.encoder.header_table_size = 4_096
    for stream_id in (1, 3, 5):
        events = peer.send(peer.headers(stream_id, request_fields(x_many=f"value {stream_id}")))
        assert call_headers(events)[-1] == (b"x-many", b"value %d" % stream_id)


def test_rfc9113_4_3_1_dynamic_table_above_the_announced_size_is_compression_error() -> None:
    assert 1 not in dict(announced(Peer()))
    peer = Peer()
    peer.encoder.header_table_size = 4_097
    assert connection_error(peer.exchange(peer.headers(1))) == COMPRESSION_ERROR


@pytest.mark.parametrize("size", [0, 1, 4_095, MAX_WINDOW])
def test_rfc9113_4_3_1_responses_obey_any_table_size_of_the_peer(size: int) -> None:
    peer = Peer()
    peer.exchange(settings((1, size)))
    decoder = Decoder()
    decoder.max_allowed_table_size = size
    for stream_id in (1, 3):
        peer.open(stream_id)
        peer.connection.end_call(stream_id)
        (opening, _) = peer.receive()
        assert (b"grpc-status", b"0") in list(decoder.decode(opening.payload, raw=True))
        peer.exchange(settings((1, 0)))
        decoder.max_allowed_table_size = 0
