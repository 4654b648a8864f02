"""What a real Envoy says to an EPP on one connection, to be said again without Envoy."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final, cast

import msgspec

from epp.proxy.wire import ext_proc_pb2

__all__ = ["Burst", "Capture", "MessageReader", "Relay", "read_capture"]

_PREFACE_BYTES: Final = 24
_FRAME_HEAD_BYTES: Final = 9
_PREFIX_BYTES: Final = 5
_DATA: Final = 0


class Relay:
    """Passes bytes on between Envoy and the EPP on loopback ports, and keeps what Envoy says.

    ``target_port`` is to be set before anybody connects.
    """

    def __init__(self) -> None:
        self.port = 0
        self.target_port = 0
        self._connections: list[list[bytes]] = []
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Relay":
        """Listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        cast("asyncio.Server", self._server).close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def longest(self) -> bytes:
        """Return all that Envoy has said on the connection on which it said most."""
        return max((b"".join(pieces) for pieces in self._connections), key=len, default=b"")

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: list[bytes] = []
        self._connections.append(pieces)
        there = await asyncio.open_connection("127.0.0.1", self.target_port)
        self._passing.add(asyncio.create_task(_pass(reader, there[1], pieces)))
        self._passing.add(asyncio.create_task(_pass(there[0], writer, None)))


async def _pass(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, keep: list[bytes] | None
) -> None:
    try:
        while data := await source.read(1 << 16):
            if keep is not None:
                keep.append(data)
            target.write(data)
    finally:
        target.close()


class MessageReader:
    """Reads the gRPC messages in one direction of an HTTP/2 connection, without the preface."""

    def __init__(self) -> None:
        self._rest = b""
        self._streams: dict[int, bytes] = {}

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; return the messages that they complete, each with its stream."""
        messages: list[tuple[int, bytes]] = []
        *frames, self._rest = split_frames(self._rest + data)
        for frame in frames:
            if frame[3] == _DATA:
                stream_id = int.from_bytes(frame[5:9], "big")
                payload = self._streams.get(stream_id, b"") + frame[_FRAME_HEAD_BYTES:]
                while len(payload) >= (end := _PREFIX_BYTES + int.from_bytes(payload[1:5], "big")):
                    messages.append((stream_id, payload[_PREFIX_BYTES:end]))
                    payload = payload[end:]
                self._streams[stream_id] = payload
        return messages


def split_frames(data: bytes) -> Iterator[bytes]:
    """Yield each whole frame, and at last the bytes that are none yet."""
    position = 0
    while len(data) - position >= _FRAME_HEAD_BYTES:
        stop = position + _FRAME_HEAD_BYTES + int.from_bytes(data[position : position + 3], "big")
        if stop > len(data):
            break
        yield data[position:stop]
        position = stop
    yield data[position:]


class Burst(msgspec.Struct, frozen=True):
    """Bytes that arrive together. Each message about the response in them has one reply."""

    data: bytes
    replies: int


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """One connection: ``opening`` brings all its streams to where each only sends chunks of its
    response; then come ``chunks``, one each, up to the end of the first response.

    ``bodies`` are the response bodies of the streams up to there, by stream.
    """

    opening: Burst
    chunks: tuple[Burst, ...]
    bodies: dict[int, bytes]

    def bursts(self, count: int) -> Iterator[Burst]:
        """Yield the chunks, so many at a time; what does not fill the last burst is left out."""
        for start in range(0, len(self.chunks) - count + 1, count):
            yield _joined(self.chunks[start : start + count])


def read_capture(data: bytes) -> Capture | None:
    """Return what a connection said, None if its streams have nothing in common but chunks.

    Each stream is one request with a streamed response. A frame that holds no message, a window
    update say, comes with the chunk after it.
    """
    *frames, _ = split_frames(data[_PREFACE_BYTES:])
    reader = MessageReader()
    bursts: list[Burst] = []
    bodies: dict[int, bytes] = {}
    waiting = data[:_PREFACE_BYTES]
    opened = 0
    for frame in frames:
        waiting += frame
        replies = 0
        for stream_id, message in reader.feed(frame):
            request = ext_proc_pb2.ProcessingRequest.FromString(message)
            if request.response_body.end_of_stream:
                return _split(bursts, opened, bodies)
            kind = request.WhichOneof("request")
            if kind == "response_body":
                bodies[stream_id] = bodies.get(stream_id, b"") + request.response_body.body
            else:
                opened = len(bursts) + 1
            replies += kind in ("response_headers", "response_body")
        if replies:
            bursts.append(Burst(waiting, replies))
            waiting = b""
    return None


def _split(bursts: list[Burst], opened: int, bodies: dict[int, bytes]) -> Capture | None:
    if opened >= len(bursts):
        return None
    return Capture(opening=_joined(bursts[:opened]), chunks=tuple(bursts[opened:]), bodies=bodies)


def _joined(bursts: Sequence[Burst]) -> Burst:
    return Burst(b"".join(b.data for b in bursts), sum(b.replies for b in bursts))
