"""Hostile peers: each limit closes or refuses with its code, and is counted."""

import gc
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from epp.proxy.http2.connection import ServerConnection
from epp.proxy.http2.frames import ErrorCode
from epp.proxy.http2.limits import Allowance, ConnectionSettings, Limit
from tests.proxy.http2.support import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    HEADERS,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    Peer,
    connection_error,
    data,
    event_names,
    frame,
    goaway,
    grpc,
    kinds,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    settings_ack,
    stream_error,
    window_update,
)


def send_until_closed(peer: Peer, make: Callable[[int], bytes], most: int) -> int:
    """Send frames one by one; return how many it took until the connection was closed."""
    for count in range(1, most + 1):
        frames = peer.exchange(make(count))
        if peer.is_closed:
            assert connection_error(frames) == ENHANCE_YOUR_CALM
            return count
    raise AssertionError(f"still open after {most} frames")


FLOODS: dict[str, tuple[Limit, Callable[[int], bytes]]] = {
    "settings": (Limit.SETTINGS_FLOOD, lambda _: settings((4, 70_000))),
    "settings-empty": (Limit.SETTINGS_FLOOD, lambda _: settings()),
    "settings-ack": (Limit.SETTINGS_FLOOD, lambda _: settings_ack()),
    "ping": (Limit.PING_FLOOD, lambda _: ping()),
    "ping-ack": (Limit.PING_FLOOD, lambda _: ping(flags=ACK)),
    "priority": (Limit.USELESS_FRAME_FLOOD, priority),
    "unknown": (Limit.USELESS_FRAME_FLOOD, lambda _: frame(0x42, 0, 1, b"x" * 100)),
    "goaway": (Limit.USELESS_FRAME_FLOOD, lambda _: goaway()),
    "reset-of-closed": (Limit.USELESS_FRAME_FLOOD, lambda _: rst_stream(3)),
    "window": (Limit.WINDOW_UPDATE_FLOOD, lambda _: window_update(0, 1)),
    "window-of-stream": (Limit.WINDOW_UPDATE_FLOOD, lambda _: window_update(1, 1)),
    "window-of-closed": (Limit.WINDOW_UPDATE_FLOOD, lambda _: window_update(3, 1)),
    "empty-data": (Limit.TINY_FRAME_FLOOD, lambda _: data(1)),
    "tiny-data": (
        Limit.TINY_FRAME_FLOOD,
        lambda n: data(1, b"\0\0\xff\xff\xff"[: 5 if n == 1 else 1]),
    ),
    "padding-only": (Limit.TINY_FRAME_FLOOD, lambda _: frame(DATA, 0x8, 1, b"\x10" + bytes(16))),
    "empty-data-of-ended": (Limit.TINY_FRAME_FLOOD, lambda _: data(5)),
    "data-of-reset": (Limit.USELESS_FRAME_FLOOD, lambda _: data(7, b"x")),
}


@pytest.mark.parametrize(("limit", "make"), FLOODS.values(), ids=FLOODS)
def test_a_flood_of_useless_frames_closes_the_connection(
    limit: Limit, make: Callable[[int], bytes]
) -> None:
    peer = Peer(useless_burst=200, useless_rate_per_s=10, max_message_bytes=1 << 30)
    peer.open(1)
    peer.open(3)
    peer.exchange(rst_stream(3))
    peer.exchange(peer.headers(5, request_fields(content_type="text/plain")))
    peer.open(7)
    peer.connection.reset(7)
    peer.receive()
    taken = send_until_closed(peer, make, 300)
    assert 180 <= taken <= 230
    assert peer.counters[limit] == 1


def test_a_flood_in_one_batch_is_noticed_too() -> None:
    peer = Peer(useless_burst=200)
    frames = peer.exchange(*[ping()] * 10_000)
    assert connection_error(frames) == ENHANCE_YOUR_CALM
    assert len(frames) <= 202


def test_slow_useless_frames_are_no_flood() -> None:
    peer = Peer(useless_burst=50, useless_rate_per_s=10)
    for _ in range(1_000):
        peer.now += 0.1
        assert kinds(peer.exchange(ping())) == [6]


def test_useless_frames_beside_useful_ones_are_no_flood() -> None:
    peer = Peer(useless_burst=50, useless_rate_per_s=0)
    peer.open(1)
    for _ in range(1_000):
        peer.send(data(1, grpc(b"m")), ping(), window_update(0, 6))
        peer.connection.send_message(1, b"a")
        peer.receive()
    assert not peer.is_closed


def test_windows_that_are_given_for_large_replies_are_no_flood() -> None:
    peer = Peer(useless_burst=50, useless_rate_per_s=0)
    peer.open(1)
    peer.connection.send_message(1, b"m" * 10_000_000)
    for _ in range(700):
        for a in peer.receive():
            if a.kind == DATA:
                peer.send(window_update(0, len(a.payload)), window_update(1, len(a.payload)))
    assert not peer.is_closed


def test_a_peer_that_takes_replies_byte_by_byte_is_a_flood() -> None:
    peer = Peer(useless_burst=200, useless_rate_per_s=10)
    peer.exchange(settings((4, 0)))
    peer.open(1)
    peer.connection.send_message(1, b"m" * 10_000)
    taken = send_until_closed(peer, lambda _: window_update(1, 1), 300)
    assert taken > 150


def test_settings_that_move_many_windows_cost_more() -> None:
    peer = Peer(useless_burst=200)
    for stream_id in range(1, 1_281, 2):
        peer.open(stream_id)
    assert send_until_closed(peer, lambda n: settings((4, n)), 100) < 30


# Streams


def test_streams_above_the_limit_are_refused_and_counted() -> None:
    peer = Peer(max_concurrent_streams=3)
    for stream_id in (1, 3, 5):
        peer.open(stream_id)
    for stream_id in (7, 9):
        assert stream_error(peer.exchange(peer.headers(stream_id)), stream_id) == REFUSED_STREAM
    assert peer.counters == {Limit.CONCURRENT_STREAMS: 2}


def test_refused_streams_without_end_are_a_flood() -> None:
    peer = Peer(max_concurrent_streams=0, useless_burst=200)
    taken = send_until_closed(peer, lambda n: peer.headers(2 * n - 1), 300)
    assert taken > 150


def rapid_resets(peer: Peer, count: int) -> list[bytes]:
    frames = []
    for number in range(count):
        stream_id = 2 * number + 1
        frames += [peer.headers(stream_id), data(stream_id, grpc(b"m")), rst_stream(stream_id)]
    return frames


def test_rapid_reset_closes_the_connection() -> None:
    """CVE-2023-44487."""
    peer = Peer(reset_burst=100, reset_rate_per_s=10)
    frames = peer.exchange(*rapid_resets(peer, 1_000))
    assert connection_error(frames) == ENHANCE_YOUR_CALM
    assert peer.counters == {Limit.RAPID_RESET: 1}
    assert frames[-1].payload[:4] == (201).to_bytes(4, "big")


def test_resets_by_the_server_that_the_client_provokes_are_counted_as_its_own() -> None:
    """CVE-2025-8671."""
    peer = Peer(reset_burst=100, reset_rate_per_s=10)
    frames = []
    for number in range(200):
        stream_id = 2 * number + 1
        frames += [
            peer.headers(stream_id),
            data(stream_id, grpc(b"m")),
            window_update(stream_id, 0),
        ]
    assert connection_error(peer.exchange(*frames)) == ENHANCE_YOUR_CALM
    assert peer.counters[Limit.RAPID_RESET] == 1


def test_resets_after_an_answer_or_after_a_while_are_normal() -> None:
    peer = Peer(reset_burst=10, reset_rate_per_s=0, rapid_reset_s=1.0)
    for number in range(0, 400, 4):
        answered, old = 2 * number + 1, 2 * number + 3
        peer.send(peer.headers(answered), peer.headers(old))
        peer.connection.send_message(answered, b"answer")
        assert event_names(peer.send(rst_stream(answered))) == ["CallReset"]
        peer.now += 1
        assert event_names(peer.send(rst_stream(old))) == ["CallReset"]
        peer.receive()
    assert not peer.is_closed
    assert peer.counters == {}


def test_resets_of_calls_that_were_refused_are_normal() -> None:
    peer = Peer(reset_burst=10, reset_rate_per_s=0)
    for number in range(100):
        stream_id = 2 * number + 1
        peer.exchange(peer.headers(stream_id, request_fields(content_type="text/plain")))
        peer.send(rst_stream(stream_id))
    assert not peer.is_closed


# Field blocks


def test_a_header_list_above_the_limit_is_431_and_counted() -> None:
    peer = Peer(max_header_list_bytes=4_000)
    opening = peer.headers(1, [*request_fields(), ("x-long", "v" * 4_000)], end=True)
    frames = peer.exchange(opening)
    fields = peer.fields(frames[0])
    assert dict(fields)[":status"] == "431"
    assert dict(fields)["grpc-status"] == "8"
    assert kinds(frames) == [HEADERS]
    assert peer.counters == {Limit.HEADER_LIST: 1}
    peer.open(3)


def test_header_lists_above_the_limit_without_end_are_a_flood() -> None:
    peer = Peer(max_header_list_bytes=4_000, useless_burst=200)
    fields = [*request_fields(), ("x-long", "v" * 4_000)]
    taken = send_until_closed(peer, lambda n: peer.headers(2 * n - 1, fields, end=True), 100)
    assert taken < 20


def test_a_header_list_at_the_limit_is_accepted() -> None:
    base = sum(len(name) + len(value) + 32 for name, value in request_fields())
    for length, name in ((4_000 - base - 35, "CallStarted"), (4_001 - base - 35, None)):
        peer = Peer(max_header_list_bytes=4_000)
        events = peer.send(peer.headers(1, [*request_fields(), ("x-l", "v" * length)]))
        assert event_names(events) == ([name] if name else [])


def test_long_header_lists_without_end_are_a_flood() -> None:
    """Each is within the limit, and new: it takes the decoder milliseconds."""
    peer = Peer(useless_burst=200)

    def opening(n: int) -> bytes:
        fields = [*request_fields(), ("x-long", f"{n:05}" + "v" * 15_000)]
        return peer.headers(2 * n - 1, fields)

    assert send_until_closed(peer, opening, 100) < 16
    assert peer.counters == {Limit.HEADER_FLOOD: 1}


def test_long_header_lists_of_calls_that_are_served_are_no_flood() -> None:
    peer = Peer(useless_burst=50)
    for n in range(1, 101):
        stream_id = 2 * n - 1
        fields = [*request_fields(), ("x-long", f"{n:05}" + "v" * 5_000)]
        assert peer.send(peer.headers(stream_id, fields), data(stream_id, grpc(b"message")))
        peer.connection.send_message(stream_id, b"reply")
        peer.connection.end_call(stream_id)
        peer.receive()
    assert not peer.is_closed


def test_a_header_bomb_closes_the_connection() -> None:
    peer = Peer()
    first = peer.headers(1, [*request_fields(), ("x-bomb", "v" * 3_000)])
    bomb = frame(HEADERS, END_HEADERS, 3, peer.block(request_fields()) + b"\xbe" * 10_000)
    tracemalloc.start()
    frames = peer.exchange(first, bomb)  # 30 MB, from 10 KB
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert connection_error(frames) == ENHANCE_YOUR_CALM
    assert peer.counters == {Limit.HEADER_BOMB: 1}
    assert most_bytes < 1_000_000


@pytest.mark.parametrize("piece", [b"", b"\x82", b"\0" * 10_000])
def test_continuation_frames_without_end_close_the_connection(piece: bytes) -> None:
    peer = Peer()
    peer.send(frame(HEADERS, 0, 1, b"\x82"))
    taken = send_until_closed(peer, lambda _: frame(CONTINUATION, 0, 1, piece), 100)
    assert taken <= 32
    assert peer.counters == {Limit.CONTINUATION_FLOOD: 1}


# The rest


def test_protocol_errors_are_counted() -> None:
    peer = Peer()
    peer.open(1)
    peer.exchange(window_update(1, 0))
    assert peer.counters == {Limit.PROTOCOL_ERROR: 1}
    peer.exchange(data(0))
    assert peer.counters == {Limit.PROTOCOL_ERROR: 2}


def test_counters_may_be_shared_or_left_out() -> None:
    connection = ServerConnection(ConnectionSettings(methods=frozenset()), 0.0)
    connection.receive(b"nonsense", 0.0)
    assert connection.is_finished


@pytest.mark.parametrize(
    "options",
    [
        {"stream_window_bytes": 65_534},
        {"connection_window_bytes": 1 << 31},
        {"max_frame_bytes": 16_383},
        {"max_frame_bytes": 1 << 24},
    ],
)
def test_settings_that_the_protocol_does_not_allow(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be of"):
        ConnectionSettings(methods=frozenset(), **options)


def test_allowance_is_refilled_by_time_and_use_up_to_its_burst() -> None:
    allowance = Allowance(10, 2.0, 100.0)
    assert all(allowance.spend(1, 100.0, 0) for _ in range(10))
    assert not allowance.spend(1, 100.0, 0)
    assert allowance.spend(1, 101.0, 0)  # two came, one was owed
    assert not allowance.spend(1, 101.0, 0)
    assert all(allowance.spend(1, 101.0, 1) for _ in range(3))
    assert not allowance.spend(1, 101.0, 1)
    assert all(allowance.spend(1, 1e6, 1) for _ in range(9))  # one was owed
    assert not allowance.spend(1, 1e6, 1)


def test_peers_that_are_remembered_are_bounded() -> None:
    peer = Peer(useless_burst=10**9, reset_burst=10**9, max_concurrent_streams=0)
    for number in range(3_000):
        peer.send(peer.headers(6 * number + 5))
        peer.receive()
    past = peer.connection._past
    assert len(past._resets) == 1_000
    assert len(past._skipped) == 100
    # What is no longer remembered is treated as closed.
    assert stream_error(peer.exchange(data(5, b"x")), 5) == 5
    assert connection_error(peer.exchange(data(0))) == PROTOCOL_ERROR


def test_a_connection_that_is_let_go_is_gone_without_the_collector() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    peer.exchange(data(1, grpc(b"half")[:7]), data(0))
    gone = weakref.ref(peer.connection)
    gc.disable()
    try:
        del peer
        assert gone() is None
    finally:
        gc.enable()


def test_reset_of_a_reply_that_waits_leaves_nothing_behind() -> None:
    peer = Peer()
    for number in range(50):
        stream_id = 2 * number + 1
        peer.open(stream_id)
        peer.connection.send_message(stream_id, b"m" * 200_000)
    peer.receive()
    for number in range(50):
        peer.connection.reset(2 * number + 1, ErrorCode.NO_ERROR)
    assert set(kinds(peer.receive())) == {RST_STREAM}
    assert kinds(peer.exchange(window_update(0, 1 << 20))) == []
    assert not peer.connection._outbox.has_waiting
