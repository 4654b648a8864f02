"""Compressed messages."""

import gzip
import zlib

import pytest

from epp.proxy.http2.grpc_framing import GrpcStatus
from tests.proxy.http2.support import (
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    Peer,
    content,
    data,
    event_names,
    grpc,
    kinds,
    payloads,
    request_fields,
    settings,
    status_of,
    ungrpc,
)


def test_gzip_is_accepted_where_it_was_announced() -> None:
    peer = Peer()
    peer.send(peer.headers(1, request_fields(grpc_encoding="gzip")))
    whole = grpc(b"a" * 1_000, compressed=True) + grpc(b"plain") + grpc(b"", compressed=True)
    assert payloads(peer.send(data(1, whole))) == [b"a" * 1_000, b"plain", b""]
    assert payloads(peer.send(data(1, whole[:9]), data(1, whole[9:]))) == [
        b"a" * 1_000,
        b"plain",
        b"",
    ]


@pytest.mark.parametrize("encoding", ["deflate", "snappy", "GZIP", ""])
def test_an_unknown_encoding_is_unimplemented_and_told_what_is_accepted(encoding: str) -> None:
    peer = Peer()
    frames = peer.exchange(peer.headers(1, request_fields(grpc_encoding=encoding)))
    assert kinds(frames) == [HEADERS, RST_STREAM]
    status, _, fields = status_of(peer, frames)
    assert status == GrpcStatus.UNIMPLEMENTED
    assert fields["grpc-accept-encoding"] == "identity,gzip"


def refused_compression(message: bytes, encoding: str | None, flag: int = 1) -> tuple[int, str]:
    peer = Peer(max_message_bytes=10_000)
    fields = request_fields() if encoding is None else request_fields(grpc_encoding=encoding)
    peer.send(peer.headers(1, fields))
    whole = bytes((flag,)) + len(message).to_bytes(4, "big") + message
    assert event_names(peer.send(data(1, whole[:7]), data(1, whole[7:]))) == ["CallReset"]
    frames = peer.receive()
    other = Peer(max_message_bytes=10_000)
    other.send(other.headers(1, fields))
    other.send(data(1, whole))
    status = status_of(peer, frames)[:2]
    assert status == status_of(other, other.receive())[:2]
    return status


@pytest.mark.parametrize("encoding", [None, "identity"])
def test_a_compressed_message_without_an_encoding_is_an_internal_error(
    encoding: str | None,
) -> None:
    status, message = refused_compression(gzip.compress(b"x"), encoding)
    assert status == GrpcStatus.INTERNAL
    assert "grpc-encoding" in message


@pytest.mark.parametrize("flag", [2, 0x80, 0xFF])
def test_an_undefined_compressed_flag_is_an_internal_error(flag: int) -> None:
    assert refused_compression(gzip.compress(b"x"), "gzip", flag)[0] == GrpcStatus.INTERNAL


HELLO = gzip.compress(b"hello", mtime=0)


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no gzip at all",
        HELLO[:-1],
        HELLO + b"x",
        HELLO * 2,
        HELLO[:-8] + b"\0" * 8,
        zlib.compress(b"hello"),
    ],
    ids=["empty", "text", "cut", "longer", "twice", "checksum", "zlib"],
)
def test_a_broken_compressed_message_is_an_internal_error(broken: bytes) -> None:
    assert refused_compression(broken, "gzip")[0] == GrpcStatus.INTERNAL


def test_a_compressed_message_may_become_as_long_as_any_other_and_no_longer() -> None:
    peer = Peer(max_message_bytes=10_000)
    peer.send(peer.headers(1, request_fields(grpc_encoding="gzip")))
    assert payloads(peer.send(data(1, grpc(b"a" * 10_000, compressed=True)))) == [b"a" * 10_000]
    bomb = gzip.compress(b"a" * 9_000_000)
    assert len(bomb) < 10_000
    assert refused_compression(bomb, "gzip")[0] == GrpcStatus.RESOURCE_EXHAUSTED


def test_nothing_is_sent_compressed() -> None:
    peer = Peer()
    peer.exchange(settings((4, 1 << 20)))
    fields = request_fields(grpc_encoding="gzip", grpc_accept_encoding="gzip")
    peer.send(peer.headers(1, fields))
    peer.connection.send_message(1, b"a" * 10_000)
    frames = peer.receive()
    assert "grpc-encoding" not in dict(peer.fields(frames[0]))
    assert ungrpc(content(frames)) == [b"a" * 10_000]
    assert WINDOW_UPDATE not in kinds(frames)
