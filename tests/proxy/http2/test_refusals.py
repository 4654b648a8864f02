"""Requests that are no gRPC calls: what a browser, a probe or a curious person gets."""

import pytest

from tests.proxy.http2.support import (
    DATA,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    RST_STREAM,
    Fields,
    Frame,
    Peer,
    content,
    data,
    frame,
    kinds,
    request_fields,
    stream_error,
)

_NO_WINDOWS = frame(4, 0, 0, b"\0\4\0\0\0\0")


def answer(peer: Peer, stream_id: int, fields: Fields) -> tuple[dict[str, str], list[Frame]]:
    frames = peer.exchange(peer.headers(stream_id, fields, end=True))
    return dict(peer.fields(frames[0])), frames


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/grpc-web", "application/grpc+json", "application/grpcx", "", None],
)
def test_wrong_content_type_is_415_with_a_text(content_type: str | None) -> None:
    peer = Peer()
    fields, frames = answer(peer, 1, request_fields(content_type=content_type))
    text = content(frames)
    assert fields[":status"] == "415"
    assert fields["content-type"].startswith("text/plain")
    assert fields["content-length"] == str(len(text))
    assert b"application/grpc" in text
    assert frames[-1].flags & END_STREAM
    assert peer.connection.open_streams == 0


def test_other_method_is_405() -> None:
    peer = Peer()
    fields, _ = answer(peer, 1, request_fields(_method="GET"))
    assert fields[":status"] == "405"
    assert fields["allow"] == "POST"


def test_head_is_answered_without_content() -> None:
    peer = Peer()
    fields, frames = answer(peer, 1, request_fields(_method="HEAD", content_type=None))
    assert fields[":status"] == "415"
    assert content(frames) == b""
    assert frames[-1].flags & END_STREAM


def test_refused_request_may_go_on_for_a_while_and_is_then_reset() -> None:
    peer = Peer(stream_window_bytes=65_535)
    frames = peer.exchange(peer.headers(1, request_fields(content_type="text/plain")))
    assert frames[-1].flags & END_STREAM
    assert peer.exchange(data(1, b"\0" * 16_000), data(1, b"\0" * 16_000)) == []
    assert stream_error(peer.exchange(data(1, b"\0" * 1_000))) == NO_ERROR
    assert peer.exchange(data(1, b"\0" * 1_000)) == []


def test_refused_request_whose_answer_is_not_taken_waits_for_that() -> None:
    peer = Peer(stream_window_bytes=65_535)
    peer.exchange(_NO_WINDOWS)
    opening = peer.headers(1, request_fields(content_type="text/plain"))
    assert kinds(peer.exchange(opening, *[data(1, b"\0" * 11_000)] * 3)) == [HEADERS]
    frames = peer.exchange(frame(8, 0, 1, b"\0\1\0\0"))
    assert kinds(frames) == [DATA, DATA, RST_STREAM]
    assert stream_error(frames) == NO_ERROR
