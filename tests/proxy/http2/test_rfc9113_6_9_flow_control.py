"""RFC 9113, sections 5.2 and 6.9: flow control, both ways and at both levels."""

import pytest

from tests.proxy.http2.support import (
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    MAX_WINDOW,
    PROTOCOL_ERROR,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    Peer,
    connection_error,
    content,
    data,
    event_names,
    grpc,
    kinds,
    payloads,
    request_fields,
    settings,
    stream_error,
    ungrpc,
    window_update,
)


def data_lengths(frames: list[Frame]) -> list[int]:
    return [len(a.payload) for a in frames if a.kind == DATA]


def increments(frames: list[Frame]) -> dict[int, int]:
    found: dict[int, int] = {}
    for a in frames:
        if a.kind == WINDOW_UPDATE:
            found[a.stream_id] = found.get(a.stream_id, 0) + int.from_bytes(a.payload, "big")
    return found


# What the server sends


def test_rfc9113_5_2_1_initial_windows_are_of_65535_octets() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    assert sum(data_lengths(peer.receive())) == 65_535
    assert peer.exchange(window_update(1, 1 << 20)) == []  # the connection's window
    assert sum(data_lengths(peer.exchange(window_update(0, 1_000)))) == 1_000


def test_rfc9113_6_9_1_stream_window_is_never_exceeded() -> None:
    peer = Peer()
    peer.exchange(settings((4, 10)), window_update(0, 1 << 20))
    peer.open(1)
    peer.connection.send_message(1, b"hello world")
    assert data_lengths(peer.receive()) == [10]
    assert peer.receive() == []
    assert data_lengths(peer.exchange(window_update(1, 1))) == [1]
    assert data_lengths(peer.exchange(window_update(1, 100))) == [5]


def test_rfc9113_6_9_1_connection_window_is_shared_by_all_streams() -> None:
    peer = Peer()
    for stream_id in (1, 3, 5):
        peer.open(stream_id)
        peer.connection.send_message(stream_id, b"m" * 40_000)
    frames = peer.receive()
    assert sum(data_lengths(frames)) == 65_535
    frames += peer.exchange(window_update(0, 60_000))
    for stream_id in (1, 3, 5):
        assert ungrpc(content(frames, stream_id)) == [b"m" * 40_000]


def test_rfc9113_6_9_1_only_data_is_flow_controlled() -> None:
    peer = Peer()
    peer.exchange(settings((4, 0)))
    peer.open(1)
    peer.connection.send_message(1, b"x")
    assert kinds(peer.receive()) == [HEADERS]
    peer.open(3)
    peer.connection.end_call(3)
    assert kinds(peer.receive()) == [HEADERS, RST_STREAM]


def test_rfc9113_6_9_1_empty_data_with_end_stream_needs_no_window() -> None:
    peer = Peer()
    peer.exchange(settings((4, 0)))
    plain = request_fields(content_type=None, _method="HEAD")
    frames = peer.exchange(peer.headers(1, plain, end=True))
    assert frames[-1] == Frame(DATA, END_STREAM, 1, b"")


def test_rfc9113_6_9_1_trailers_wait_for_the_data_before_them() -> None:
    peer = Peer()
    peer.exchange(settings((4, 5)))
    peer.open(1)
    peer.connection.send_message(1, b"x")
    peer.connection.end_call(1)
    assert kinds(peer.receive()) == [HEADERS, DATA]
    frames = peer.exchange(window_update(1, 1))
    assert kinds(frames) == [DATA, HEADERS, RST_STREAM]
    assert frames[1].flags & END_STREAM


def test_rfc9113_6_9_1_stream_window_above_the_maximum_is_a_stream_error() -> None:
    peer = Peer()
    peer.open(1)
    peer.open(3)
    assert peer.exchange(window_update(3, MAX_WINDOW - 65_535)) == []
    assert stream_error(peer.exchange(window_update(3, 1)), 3) == FLOW_CONTROL_ERROR
    assert stream_error(peer.exchange(window_update(1, MAX_WINDOW))) == FLOW_CONTROL_ERROR


def test_rfc9113_6_9_1_connection_window_above_the_maximum_is_a_connection_error() -> None:
    peer = Peer()
    assert peer.exchange(window_update(0, MAX_WINDOW - 65_535)) == []
    assert connection_error(peer.exchange(window_update(0, 1))) == FLOW_CONTROL_ERROR


def test_rfc9113_6_9_window_update_by_0_on_a_stream_is_a_stream_error() -> None:
    peer = Peer()
    peer.open(1)
    assert stream_error(peer.exchange(window_update(1, 0))) == PROTOCOL_ERROR
    peer.open(3)


def test_rfc9113_6_9_window_update_by_0_on_the_connection_is_a_connection_error() -> None:
    assert connection_error(Peer().exchange(window_update(0, 0))) == PROTOCOL_ERROR


def test_rfc9113_6_9_reserved_bit_of_window_update_is_ignored() -> None:
    peer = Peer()
    peer.open(1)
    assert peer.exchange(window_update(1, 1 << 31 | 1), window_update(0, 1 << 31 | 1)) == []


@pytest.mark.parametrize("stream_id", [1, 2])
def test_rfc9113_6_9_window_update_on_an_idle_stream_is_protocol_error(stream_id: int) -> None:
    assert connection_error(Peer().exchange(window_update(stream_id, 1))) == PROTOCOL_ERROR


def test_rfc9113_6_9_2_change_of_the_initial_window_adjusts_all_streams() -> None:
    peer = Peer()
    peer.exchange(settings((4, 0)), window_update(0, 1 << 20))
    peer.open(1)
    peer.open(3)
    for stream_id in (1, 3):
        peer.connection.send_message(stream_id, b"hello")
    assert kinds(peer.receive()) == [HEADERS, HEADERS]
    assert data_lengths(peer.exchange(settings((4, 3)))) == [3, 3]
    assert data_lengths(peer.exchange(settings((4, 4)))) == [1, 1]


def test_rfc9113_6_9_2_window_can_become_negative() -> None:
    peer = Peer()
    peer.exchange(settings((4, 100)))
    peer.open(1)
    peer.connection.send_message(1, b"m" * 200)
    assert sum(data_lengths(peer.receive())) == 100
    assert data_lengths(peer.exchange(settings((4, 40)))) == []
    assert data_lengths(peer.exchange(window_update(1, 60))) == []  # now 0
    assert data_lengths(peer.exchange(window_update(1, 1))) == [1]
    assert data_lengths(peer.exchange(settings((4, 50)))) == [10]


def test_rfc9113_6_9_2_initial_window_does_not_change_the_connection_window() -> None:
    peer = Peer()
    peer.exchange(settings((4, 1 << 20)))
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    assert sum(data_lengths(peer.receive())) == 65_535


def test_rfc9113_6_9_2_initial_window_that_makes_a_window_too_large_is_a_connection_error() -> None:
    peer = Peer()
    peer.open(1)
    peer.exchange(window_update(1, MAX_WINDOW - 65_535))
    assert connection_error(peer.exchange(settings((4, 65_536)))) == FLOW_CONTROL_ERROR


# What the server takes


def test_rfc9113_6_9_1_windows_are_given_anew_as_data_comes() -> None:
    peer = Peer(stream_window_bytes=100_000, connection_window_bytes=200_000)
    peer.open(1)
    sent = 0
    given = {0: 200_000, 1: 100_000}
    for _ in range(1_000):
        frames = peer.exchange(data(1, grpc(b"m" * 995)))
        sent += 1_000
        for stream_id, increment in increments(frames).items():
            given[stream_id] += increment
        assert all(
            0 < given[stream_id] - sent <= limit
            for stream_id, limit in ((0, 200_000), (1, 100_000))
        )
        # Section 6.9.1 advises against small increments.
        assert all(increment > 20_000 for increment in increments(frames).values())


def test_rfc9113_6_9_1_message_larger_than_the_window_gets_through() -> None:
    peer = Peer(stream_window_bytes=65_535, connection_window_bytes=65_535)
    peer.open(1)
    whole = grpc(b"m" * 1_000_000)
    windows = {0: 65_535, 1: 65_535}
    events = []
    while whole:
        size = min(16_384, *windows.values())
        assert size > 0
        events += peer.send(data(1, whole[:size]))
        whole = whole[size:]
        found = increments(peer.receive())
        windows = {key: value - size + found.get(key, 0) for key, value in windows.items()}
    assert payloads(events) == [b"m" * 1_000_000]


def test_rfc9113_6_9_1_data_above_the_stream_window_is_a_stream_error() -> None:
    peer = Peer(stream_window_bytes=65_535)
    peer.open(1)
    peer.connection.pause_reading(1)
    assert peer.exchange(*[data(1, b"\0" * 13_107)] * 5) == []  # exactly the window
    assert stream_error(peer.exchange(data(1, b"\0"))) == FLOW_CONTROL_ERROR
    peer.open(3)


def test_rfc9113_6_9_1_data_above_the_connection_window_is_a_connection_error() -> None:
    peer = Peer(connection_window_bytes=65_535)
    peer.open(1)
    frames = peer.exchange(*[data(1, b"\0" * 13_107)] * 5)  # exactly the window
    assert increments(frames) == {0: 65_535}
    frames = peer.exchange(*[data(1, b"\0" * 13_107)] * 5, data(1, b"\0"))
    assert connection_error(frames) == FLOW_CONTROL_ERROR


def test_rfc9113_6_9_1_data_counts_on_the_connection_even_if_it_is_in_error() -> None:
    peer = Peer(connection_window_bytes=65_535)
    peer.open(1, end=True)
    frames = peer.exchange(*[data(1, b"\0" * 11_000)] * 3)
    assert increments(frames) == {0: 33_000}


def test_rfc9113_6_9_1_no_window_is_given_on_a_stream_that_the_client_has_ended() -> None:
    peer = Peer(stream_window_bytes=65_535)
    peer.open(1)
    frames = peer.exchange(data(1, grpc(b"m" * 16_000)), data(1, grpc(b"m" * 16_000), end=True))
    assert increments(frames) == {}
    peer.connection.resume_reading(1)
    assert peer.receive() == []


# Back-pressure


def test_a_call_that_is_paused_gets_no_credit_until_it_is_resumed() -> None:
    peer = Peer(stream_window_bytes=65_535)
    peer.open(1)
    peer.connection.pause_reading(1)
    frames = peer.exchange(*[data(1, grpc(b"m" * 9_995))] * 6)
    assert increments(frames) == {}
    peer.connection.resume_reading(1)
    assert increments(peer.receive()) == {1: 60_000}
    peer.connection.resume_reading(1)
    assert peer.receive() == []


def test_a_call_that_is_resumed_with_most_of_its_window_left_gets_no_credit() -> None:
    peer = Peer()
    peer.open(1)
    peer.connection.pause_reading(1)
    peer.send(data(1, grpc(b"hello")))
    peer.connection.resume_reading(1)
    assert peer.receive() == []


def test_a_call_whose_replies_are_not_taken_gets_no_credit() -> None:
    peer = Peer(stream_window_bytes=65_535, send_buffer_bytes=1_000)
    peer.exchange(settings((4, 100)))
    peer.open(1)
    assert peer.connection.is_writable(1)
    peer.connection.send_message(1, b"m" * 2_000)
    assert not peer.connection.is_writable(1)
    assert peer.connection.buffered_bytes(1) == 2_005
    frames = peer.exchange(*[data(1, grpc(b"m" * 9_995))] * 6)
    assert increments(frames) == {}
    assert peer.connection.buffered_bytes(1) == 1_905

    events = peer.send(window_update(1, 1_000))  # 905 are left, still more than half
    assert events == []
    assert increments(peer.receive()) == {}
    events = peer.send(window_update(1, 500))
    assert event_names(events) == ["Writable"]
    assert increments(peer.receive()) == {1: 60_000}
    assert peer.connection.is_writable(1)


def test_a_call_that_is_over_is_not_writable_and_holds_nothing() -> None:
    peer = Peer()
    assert not peer.connection.is_writable(1)
    assert peer.connection.buffered_bytes(1) == 0
    peer.open(1)
    peer.connection.send_message(1, b"m" * 70_000)
    peer.connection.end_call(1)
    assert not peer.connection.is_writable(1)
    assert peer.connection.buffered_bytes(1) == 70_005
