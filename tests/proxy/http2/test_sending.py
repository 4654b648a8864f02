"""Sending: one write per turn, fairness, bounded writes, a transport that says stop."""

from hypothesis import given
from hypothesis import strategies as st

from tests.proxy.http2.support import (
    DATA,
    HEADERS,
    PING,
    RST_STREAM,
    Frame,
    Peer,
    content,
    data,
    event_names,
    grpc,
    kinds,
    parse,
    ping,
    rst_stream,
    settings,
    ungrpc,
    window_update,
)

WIDE = 1 << 30


def wide_peer(streams: int = 2) -> Peer:
    peer = Peer()
    peer.exchange(settings((4, WIDE)), window_update(0, WIDE))
    for number in range(streams):
        peer.open(2 * number + 1)
    return peer


def test_all_frames_of_a_turn_are_one_piece() -> None:
    peer = wide_peer()
    peer.send(ping(), data(1, grpc(b"a")))
    for stream_id in (1, 3):
        peer.connection.send_message(stream_id, b"answer")
        peer.connection.end_call(stream_id)
    piece = peer.connection.data_to_send()
    assert kinds(parse(piece)) == [PING] + 2 * [HEADERS, DATA, HEADERS, RST_STREAM]
    assert peer.connection.data_to_send() == b""


def test_a_large_backlog_leaves_in_several_pieces() -> None:
    peer = wide_peer()
    peer.connection.send_message(1, b"m" * 3_000_000)
    pieces = []
    while piece := peer.connection.data_to_send():
        pieces.append(piece)
    assert len(pieces) > 10
    assert max(map(len, pieces)) < 300_000
    assert ungrpc(content(parse(b"".join(pieces)))) == [b"m" * 3_000_000]


def test_a_small_message_does_not_wait_for_a_large_one_of_another_stream() -> None:
    peer = wide_peer()
    peer.connection.send_message(1, b"m" * 3_000_000)
    peer.connection.send_message(3, b"small")
    first = parse(peer.connection.data_to_send())
    assert ungrpc(content(first, 3)) == [b"small"]
    peer.connection.send_message(3, b"more")
    second = parse(peer.connection.data_to_send())
    assert ungrpc(content(second, 3)) == [b"more"]


def test_streams_that_wait_take_turns() -> None:
    peer = wide_peer(4)
    for stream_id in (1, 3, 5, 7):
        peer.connection.send_message(stream_id, b"m" * 100_000)
    order = [a.stream_id for a in peer.receive() if a.kind == DATA]
    assert order[:12] == [1, 3, 5, 7] * 3


def test_streams_that_wait_for_the_connection_window_are_served_before_new_messages() -> None:
    peer = Peer()
    peer.exchange(settings((4, WIDE)))
    peer.open(1)
    peer.open(3)
    peer.connection.send_message(1, b"m" * 70_000)
    peer.receive()
    peer.send(window_update(0, 100))
    peer.connection.send_message(3, b"n" * 50)
    frames = peer.receive()
    assert len(content(frames, 1)) == 100
    assert content(frames, 3) == b""


def test_a_stream_without_window_does_not_hold_up_the_others() -> None:
    peer = Peer()
    peer.exchange(settings((4, 10)), window_update(0, WIDE))
    for stream_id in (1, 3):
        peer.open(stream_id)
        peer.connection.send_message(stream_id, b"m" * 50)
    peer.receive()
    frames = peer.exchange(window_update(3, 100))
    assert [a.stream_id for a in frames] == [3]


def test_small_messages_that_waited_share_a_frame() -> None:
    peer = Peer()
    peer.exchange(settings((4, 0)))
    peer.open(1)
    for number in range(100):
        peer.connection.send_message(1, b"%d" % number)
    peer.receive()
    frames = peer.exchange(window_update(1, 10_000))
    assert kinds(frames) == [DATA]
    assert ungrpc(content(frames)) == [b"%d" % number for number in range(100)]


def test_a_transport_that_is_full_gets_no_messages_but_control_frames() -> None:
    peer = wide_peer()
    peer.connection.pause_sending()
    peer.connection.send_message(1, b"answer")
    peer.connection.send_message(3, b"m" * 1_000_000)
    assert kinds(peer.exchange(ping(), rst_stream(3))) == [HEADERS, HEADERS, PING]
    assert peer.receive() == []
    assert peer.connection.buffered_bytes(1) == 11
    peer.connection.resume_sending()
    frames = peer.receive()
    assert ungrpc(content(frames)) == [b"answer"]
    assert content(frames, 3) == b""


def test_writable_is_told_after_the_write_that_made_room() -> None:
    peer = wide_peer()
    peer.connection.send_message(1, b"m" * 1_000_000)
    assert not peer.connection.is_writable(1)
    told = []
    while peer.connection.data_to_send():
        told += event_names(peer.connection.take_events())
    assert told == ["Writable"]
    assert peer.connection.is_writable(1)


def test_no_writable_for_a_call_that_has_ended() -> None:
    peer = wide_peer()
    peer.connection.send_message(1, b"m" * 1_000_000)
    peer.connection.end_call(1)
    frames = peer.receive()
    assert peer.connection.take_events() == []
    assert kinds(frames)[-2:] == [HEADERS, RST_STREAM]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("message"), st.sampled_from([1, 3, 5]), st.integers(0, 40_000)),
        st.tuples(st.just("window"), st.sampled_from([0, 1, 3, 5]), st.integers(1, 50_000)),
        st.tuples(st.just("initial"), st.just(0), st.integers(0, 100_000)),
        st.tuples(st.just("frame"), st.just(0), st.integers(16_384, 40_000)),
        st.tuples(st.just("pause"), st.just(0), st.just(0)),
        st.tuples(st.just("resume"), st.just(0), st.just(0)),
        st.tuples(st.just("write"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Reader:
    """A client that gives windows as it is told, and checks that they are kept to."""

    def __init__(self) -> None:
        self.peer = Peer()
        self.sent: dict[int, list[bytes]] = {1: [], 3: [], 5: []}
        self.windows = {0: 65_535, 1: 65_535, 3: 65_535, 5: 65_535}
        self.initial_bytes = 65_535
        self.frame_bytes = 16_384
        self.arrived: list[Frame] = []
        for stream_id in self.sent:
            self.peer.open(stream_id)

    def message(self, stream_id: int, size: int) -> None:
        messages = self.sent[stream_id]
        messages.append(bytes((len(messages) % 256,)) * size)
        self.peer.connection.send_message(stream_id, messages[-1])

    def window(self, stream_id: int, increment: int) -> None:
        self.windows[stream_id] += increment
        self.peer.send(window_update(stream_id, increment))

    def initial(self, _: int, size: int) -> None:
        self.write()  # what is on its way was sent under the old windows
        for stream_id in self.sent:
            self.windows[stream_id] += size - self.initial_bytes
        self.initial_bytes = size
        self.peer.send(settings((4, size)))

    def frame(self, _: int, size: int) -> None:
        self.write()
        self.frame_bytes = size
        self.peer.send(settings((5, size)))

    def pause(self, *_: int) -> None:
        self.peer.connection.pause_sending()

    def resume(self, *_: int) -> None:
        self.peer.connection.resume_sending()

    def write(self, *_: int) -> None:
        frames = self.peer.receive()
        self.arrived += frames
        for a in frames:
            if a.kind == DATA:
                assert len(a.payload) <= self.frame_bytes
                for window in (0, a.stream_id):
                    self.windows[window] -= len(a.payload)
                    assert self.windows[window] >= 0


@given(steps)
def test_whatever_the_windows_nothing_exceeds_them_and_everything_arrives(
    script: list[tuple[str, int, int]],
) -> None:
    reader = Reader()
    for action, stream_id, number in script:
        getattr(reader, action)(stream_id, number)
    reader.resume()
    for stream_id in reader.windows:
        reader.window(stream_id, 10_000_000)
    reader.write()
    for stream_id, messages in reader.sent.items():
        assert ungrpc(content(reader.arrived, stream_id)) == messages
        assert reader.peer.connection.buffered_bytes(stream_id) == 0
