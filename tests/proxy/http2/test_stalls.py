"""Peers that take nothing of what waits for them."""

import pytest

from epp.proxy.http2.events import CallReset
from epp.proxy.http2.limits import Limit
from tests.proxy.http2.support import (
    DATA,
    ENHANCE_YOUR_CALM,
    Peer,
    connection_error,
    data,
    event_names,
    grpc,
    kinds,
    rst_stream,
    settings,
    stream_error,
    window_update,
)


def stalled(peer: Peer) -> None:
    peer.exchange(settings((4, 100)))
    peer.open(1)
    peer.open(3)
    peer.connection.send_message(1, b"m" * 1_000)
    peer.receive()


def test_a_stream_that_takes_nothing_is_reset_after_a_while() -> None:
    peer = Peer(stall_timeout_s=30)
    stalled(peer)
    assert peer.connection.tick(peer.now + 29) == []
    (reset,) = peer.connection.tick(peer.now + 30)
    assert isinstance(reset, CallReset)
    assert stream_error(peer.receive()) == ENHANCE_YOUR_CALM
    assert peer.counters == {Limit.STALLED_STREAM: 1}
    assert event_names(peer.send(data(3, grpc(b"a")))) == ["Message"]


def test_a_stream_that_takes_something_now_and_then_is_kept() -> None:
    peer = Peer(stall_timeout_s=30)
    stalled(peer)
    for _ in range(5):
        peer.now += 20
        assert peer.connection.tick(peer.now) == []
        assert kinds(peer.exchange(window_update(1, 10))) == [DATA]


def test_a_call_that_has_ended_and_whose_end_is_not_taken_is_reset_without_an_event() -> None:
    peer = Peer(stall_timeout_s=30)
    stalled(peer)
    peer.connection.end_call(1)
    assert peer.connection.tick(peer.now + 30) == []
    assert stream_error(peer.receive()) == ENHANCE_YOUR_CALM


def test_a_connection_that_takes_nothing_is_closed_after_a_while() -> None:
    peer = Peer(stall_timeout_s=30)
    peer.exchange(settings((4, 1 << 20)))
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    peer.receive()
    assert peer.connection.tick(peer.now + 29) == []
    assert event_names(peer.connection.tick(peer.now + 30)) == ["CallReset", "ConnectionTerminated"]
    assert connection_error(peer.receive()) == ENHANCE_YOUR_CALM
    assert peer.counters == {Limit.STALLED_CONNECTION: 1}


def test_a_transport_that_takes_nothing_is_closed_after_a_while() -> None:
    peer = Peer(stall_timeout_s=30)
    peer.open(1)
    peer.connection.pause_sending()
    peer.connection.tick(peer.now + 20)
    peer.connection.pause_sending()
    assert event_names(peer.connection.tick(peer.now + 30))[-1] == "ConnectionTerminated"
    assert peer.counters == {Limit.STALLED_CONNECTION: 1}


@pytest.mark.parametrize("end", ["reset", "taken", "resumed"])
def test_a_connection_on_which_nothing_waits_is_not_stalled(end: str) -> None:
    peer = Peer(stall_timeout_s=30)
    peer.exchange(settings((4, 1 << 20)))
    peer.open(1)
    peer.connection.send_message(1, b"m" * 100_000)
    peer.receive()
    if end == "reset":
        peer.send(rst_stream(1))
    elif end == "taken":
        peer.exchange(window_update(0, 100_005 - 65_535))
    else:
        peer.exchange(window_update(0, 1 << 20))
        peer.connection.pause_sending()
        peer.connection.resume_sending()
    assert peer.connection.tick(peer.now + 1e6) == []
