"""Any bytes, cut anywhere: the same events, never an exception, bounded memory.

The capture is what a real Envoy sent for three requests with small bodies, full duplex. ``make
fuzz`` changes it in ever new ways for ten minutes: ``EPP_FUZZ_SECONDS`` says for how long, and
``EPP_FUZZ_SEED`` repeats a run that failed.
"""

import itertools
import os
import random
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from epp.proxy.http2.events import (
    CallReset,
    CallStarted,
    ConnectionTerminated,
    Event,
    HalfClosed,
    Message,
)
from tests.proxy.http2.differential import START, Action, Script, actions
from tests.proxy.http2.support import PROCESS, Peer, event_names, grpc, parse

FUZZ_S = float(os.environ.get("EPP_FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("EPP_FUZZ_SEED", time.time_ns() if FUZZ_S else 6))
CAPTURE = (Path(__file__).parent / "envoy_capture.bin").read_bytes()


class Echo:
    """A server that gives every message back, and ends the call with the client."""

    def __init__(self) -> None:
        self.peer = Peer(
            handshake=False,
            max_message_bytes=100_000,
            max_unfinished_bytes=300_000,
            max_concurrent_streams=100,
        )
        self.events: list[Event] = []
        self.sent = b""

    def feed(self, piece: bytes) -> None:
        connection = self.peer.connection
        events = connection.receive(piece, self.peer.now)
        while True:
            self.events += events
            for event in events:
                if isinstance(event, Message):
                    connection.send_message(event.stream_id, event.payload)
                elif isinstance(event, HalfClosed):
                    connection.end_call(event.stream_id)
            data = connection.data_to_send()
            if not data:
                break
            self.sent += data
            events = connection.take_events()


def test_the_capture_is_understood() -> None:
    echo = Echo()
    echo.feed(CAPTURE)
    started = [event for event in echo.events if isinstance(event, CallStarted)]
    assert [(event.stream_id, event.path) for event in started] == [
        (1, PROCESS),
        (3, PROCESS),
        (5, PROCESS),
    ]
    assert all((b"te", b"trailers") in event.headers for event in started)
    assert event_names(echo.events).count("Message") == 18
    assert event_names(echo.events).count("CallReset") == 3
    assert not echo.peer.is_closed
    assert echo.peer.connection.open_streams == 0


def comparable(peer: Peer, cuts: list[int], whole: bytes) -> tuple[list[Event], list[object]]:
    events: list[Event] = []
    borders = sorted({0, *[cut % (len(whole) + 1) for cut in cuts], len(whole)})
    for start, stop in itertools.pairwise(borders):
        events += peer.send(whole[start:stop])
    return events, list(parse(b"".join(iter(peer.connection.data_to_send, b""))))


@given(st.lists(actions, max_size=12), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_events(
    script: list[Action], cuts: list[int]
) -> None:
    made = Script(Peer())
    server_actions = ("server-end", "server-reset")
    pieces = [made.frames(action) for action in script if action[0] not in server_actions]
    whole = START + b"".join(pieces)
    expected_events, expected_frames = comparable(Peer(handshake=False), [], whole)
    events, frames = comparable(Peer(handshake=False), cuts, whole)
    assert events == expected_events
    assert frames == expected_frames


def test_the_capture_in_single_bytes_gives_the_same_events() -> None:
    once, often = Echo(), Echo()
    once.feed(CAPTURE)
    for octet in CAPTURE:
        often.feed(bytes((octet,)))
    assert once.events == often.events


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=3))
def test_arbitrary_bytes_are_answered_in_whole_frames(noise: bytes, cuts: list[int]) -> None:
    peer = Peer(handshake=False)
    comparable(peer, cuts, START + noise)
    comparable(Peer(handshake=False), cuts, noise)


def mutated(rng: random.Random, whole: bytes) -> bytes:
    """Some bytes changed, left out, doubled or moved; the preface mostly left alone."""
    out = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place = rng.randrange(24 if rng.random() < 0.95 else 0, len(out))
        length = rng.choice((1, 1, 4, 9, 50, 300))
        action = rng.randrange(5)
        if action == 0:
            out[place] = rng.randrange(256)
        elif action == 1:
            out[place] ^= 1 << rng.randrange(8)
        elif action == 2:
            del out[place : place + length]
        elif action == 3:
            out[place:place] = out[place : place + length]
        else:
            source = rng.randrange(len(out))
            out[place : place + length] = out[source : source + length]
        if len(out) < 30:
            break
    return bytes(out)


def rounds() -> Iterator[int]:
    """1,500, or as many as there is time for."""
    ends_s = time.monotonic() + FUZZ_S
    for number in itertools.count():
        if time.monotonic() >= ends_s and number >= 1_500:
            return
        yield number


def test_mutated_captures_raise_nothing_and_leave_nothing() -> None:
    print(f"EPP_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    base_bytes = 0
    number = 0
    for number in rounds():
        feed_mutated(rng)
        if number == 100:
            tracemalloc.start()
            base_bytes = tracemalloc.get_traced_memory()[0]
    kept_bytes, most_bytes = (size - base_bytes for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    print(f"{number + 1} captures, {kept_bytes} bytes kept, {most_bytes} at most")
    assert kept_bytes < 400_000  # the last 512 answers are remembered, in as many words
    assert most_bytes < 3_000_000


def feed_mutated(rng: random.Random) -> None:
    echo = Echo()
    noise = mutated(rng, CAPTURE + grpc(b""))  # something after the last frame, too
    position = 0
    while position < len(noise):
        step = rng.choice((1, 20, 500, 5_000))
        echo.feed(noise[position : position + step])
        position += step
    parse(echo.sent)
    echo.peer.connection.tick(echo.peer.now + 20)
    echo.events += echo.peer.connection.lost()
    check_calls(echo.events)
    assert echo.peer.connection.open_streams == 0


def check_calls(events: list[Event]) -> None:
    """Every call starts once, and after its reset nothing comes on it."""
    alive: set[int] = set()
    for event in events:
        if isinstance(event, CallStarted):
            assert event.stream_id not in alive
            alive.add(event.stream_id)
        elif not isinstance(event, ConnectionTerminated) and hasattr(event, "stream_id"):
            assert event.stream_id in alive
            if isinstance(event, CallReset):
                alive.discard(event.stream_id)
    assert isinstance(events[-1], ConnectionTerminated)
