"""RFC 9113, section 3: the start of a connection."""

import pytest

from tests.proxy.http2.support import (
    ACK,
    GOAWAY,
    HEADERS,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    Peer,
    connection_error,
    data,
    event_names,
    grpc,
    kinds,
    ping,
    priority,
    settings,
    settings_ack,
    window_update,
)


def test_rfc9113_3_4_server_preface_is_a_settings_frame_and_comes_unasked() -> None:
    first = Peer(handshake=False).receive()[0]
    assert (first.kind, first.flags, first.stream_id) == (SETTINGS, 0, 0)


def test_rfc9113_3_4_client_settings_are_acknowledged_after_the_server_preface() -> None:
    peer = Peer(handshake=False)
    frames = peer.exchange(PREFACE, settings())
    acks = [index for index, a in enumerate(frames) if a.kind == SETTINGS and a.flags & ACK]
    assert acks == [len(frames) - 1]
    assert frames[0].flags == 0


def test_rfc9113_3_4_settings_of_the_client_preface_may_be_empty() -> None:
    peer = Peer(handshake=False)
    assert peer.send(PREFACE, settings()) == []
    assert not peer.is_closed


def test_rfc9113_3_4_client_may_send_further_frames_with_its_preface() -> None:
    peer = Peer(handshake=False)
    events = peer.send(PREFACE, settings(), peer.headers(1), data(1, grpc(b"hello")))
    assert event_names(events) == ["CallStarted", "Message"]


def test_rfc9113_3_4_client_preface_in_single_octets() -> None:
    peer = Peer(handshake=False)
    whole = PREFACE + settings((4, 1)) + peer.headers(1)
    events = [event for octet in whole for event in peer.send(bytes((octet,)))]
    assert event_names(events) == ["CallStarted"]


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r" + settings(),
        b"PRI * HTTP/2.0\r\n\r\nXX",
        b"Q",
        settings(),
        PREFACE[1:] + settings(),
    ],
)
def test_rfc9113_3_4_invalid_connection_preface_is_protocol_error(start: bytes) -> None:
    peer = Peer(handshake=False)
    events = peer.send(start)
    assert event_names(events) == ["ConnectionTerminated"]
    assert connection_error(peer.receive()) == PROTOCOL_ERROR
    assert peer.is_closed


def test_rfc9113_3_4_part_of_the_preface_is_no_error() -> None:
    peer = Peer(handshake=False)
    assert peer.send(PREFACE[:23]) == []
    assert GOAWAY not in kinds(peer.receive())


@pytest.mark.parametrize(
    "frame",
    [
        settings_ack(),
        ping(),
        window_update(0, 1),
        priority(1),
        data(1, b"x"),
        data(0),
        b"\0\0\0\x42\0\0\0\0\0",
    ],
    ids=["settings-ack", "ping", "window-update", "priority", "data", "data-0", "unknown"],
)
def test_rfc9113_3_4_preface_that_is_not_followed_by_settings_is_protocol_error(
    frame: bytes,
) -> None:
    peer = Peer(handshake=False)
    assert connection_error(peer.exchange(PREFACE, frame)) == PROTOCOL_ERROR


def test_rfc9113_3_4_request_before_settings_is_protocol_error() -> None:
    peer = Peer(handshake=False)
    frames = peer.exchange(PREFACE, peer.headers(1), settings())
    assert connection_error(frames) == PROTOCOL_ERROR
    assert HEADERS not in kinds(frames)
