"""A client of raw frames, at both transports: what no library sends, or only by chance."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest
from hpack import Encoder

from epp.proxy.grpc_server import GrpcServer
from epp.proxy.wire import ext_proc_pb2

from .conftest import Served
from .ext_proc_peer import PATIENCE_S, Reply, body, headers, response_headers, until
from .http2.support import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY_FLAG,
    SETTINGS,
    Frame,
    data,
    frame,
    grpc,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    settings_ack,
    ungrpc,
    window_update,
)

INITIAL_WINDOW_SIZE = 4
BODY = bytes(range(256)) * 110  # of three, two fit into the window that a server begins with
HELLO = grpc(headers().SerializeToString(), body(b"hello").SerializeToString())


def hello(content: bytes) -> bytes:
    return grpc(headers().SerializeToString(), body(content).SerializeToString())


class RawClient:
    """One connection: whatever is sent, and the frames that come. An asynchronous context manager.

    The client's settings have been sent; those of the server are acknowledged as they come.
    """

    def __init__(self, port: int, *values: tuple[int, int], greets: bool = True) -> None:
        self._port = port
        self._greeting = PREFACE + settings(*values) if greets else b""
        self._encoder = Encoder()
        self.content: defaultdict[int, bytes] = defaultdict(bytes)
        self.ended: set[int] = set()

    async def __aenter__(self) -> "RawClient":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.send(self._greeting)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    def block(self) -> bytes:
        return self._encoder.encode(request_fields())

    def open(self, stream_id: int) -> None:
        self.send(frame(HEADERS, END_HEADERS, stream_id, self.block()))

    async def frames(self) -> AsyncIterator[Frame]:
        """All frames to the end of the connection."""
        while True:
            try:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            found = Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)
            if found.kind == SETTINGS and not found.flags & ACK:
                self.send(settings_ack())
            if found.kind == PING and not found.flags & ACK:
                self.send(ping(found.payload, ACK))
            if found.kind == DATA:
                self.content[found.stream_id] += payload
            if found.kind in (DATA, HEADERS) and found.flags & END_STREAM:
                self.ended.add(found.stream_id)
            yield found

    async def next(self, kind: int) -> Frame:
        """Wait for the next frame of a kind."""
        async with asyncio.timeout(PATIENCE_S):
            async for found in self.frames():
                if found.kind == kind:
                    return found
        raise AssertionError("the connection has ended")

    async def echo(self, payload: bytes = b"anything") -> None:
        """Send a ping and wait until it comes back: all that was sent before has been handled."""
        self.send(ping(payload))
        found = await self.next(PING)
        while not found.flags & ACK:  # one of the server's own
            found = await self.next(PING)
        assert found.payload == payload

    async def has(self, stream_id: int, size_bytes: int) -> None:
        """Wait until so much has come on a stream."""
        while len(self.content[stream_id]) < size_bytes:
            await self.next(DATA)

    async def ends(self) -> list[int]:
        """Wait until the server closes; return the kinds of the frames before."""
        async with asyncio.timeout(PATIENCE_S):
            return [found.kind async for found in self.frames()]

    async def replies(self, stream_id: int) -> list[ext_proc_pb2.ProcessingResponse]:
        """Wait for the end of a stream; return what was said on it."""
        async with asyncio.timeout(PATIENCE_S):
            while stream_id not in self.ended:
                await anext(self.frames())
        return [Reply.FromString(message) for message in ungrpc(self.content[stream_id])]

    async def body(self, stream_id: int) -> bytes:
        """Wait likewise; return the request's body, which must come after its headers."""
        first, *pieces = await self.replies(stream_id)
        assert first.WhichOneof("response") == "request_headers"
        mutations = [piece.request_body.response.body_mutation for piece in pieces]
        assert mutations[-1].streamed_response.end_of_stream
        return b"".join(mutation.streamed_response.body for mutation in mutations)


# ---- the same in other frames ----


async def test_a_message_in_frames_of_one_byte(ext_proc: Served) -> None:
    async with RawClient(ext_proc.server.port) as client:
        client.open(1)
        client.send(*(data(1, bytes((octet,))) for octet in HELLO), data(1, end=True))
        assert await client.body(1) == b"hello"
    await ext_proc.rests()


async def test_priorities_continuations_and_frames_of_the_future(ext_proc: Served) -> None:
    """grpcio cannot read frames with padding, so there is none here."""
    async with RawClient(ext_proc.server.port) as client:
        block = client.block()
        fields = (3).to_bytes(4, "big") + b"\x10" + block[:7]
        client.send(
            frame(0xBB, 0xFF, 0, b"from the future"),
            frame(HEADERS, PRIORITY_FLAG, 1, fields),
            frame(CONTINUATION, 0, 1, block[7:8]),
            frame(CONTINUATION, 0, 1, b""),
            frame(CONTINUATION, END_HEADERS, 1, block[8:]),
            priority(1, 7),
            frame(0xBC, 0xFF, 1, b"from the future"),
            data(1, HELLO[:30]),
            data(1),
            data(1, HELLO[30:], end=True),
        )
        assert await client.body(1) == b"hello"
    await ext_proc.rests()


async def test_pings_come_back_as_they_were(ext_proc: Served) -> None:
    async with RawClient(ext_proc.server.port) as client:
        client.open(1)
        for payload in (b"\x00" * 8, b"\xff" * 8):
            await client.echo(payload)
        client.send(rst_stream(1))
    await ext_proc.rests()


# ---- windows ----


async def test_a_stream_whose_window_is_exhausted_holds_up_no_other(ext_proc: Served) -> None:
    """It goes on byte by byte, and gets all of it."""
    async with RawClient(ext_proc.server.port, (INITIAL_WINDOW_SIZE, 1_000)) as client:
        for stream_id in (1, 3):
            client.open(stream_id)
        client.send(window_update(0, 1 << 24))
        client.send(*(data(1, piece) for piece in in_frames(hello(BODY))), data(1, end=True))
        await client.has(1, 1_000)
        client.send(window_update(3, 1 << 24), data(3, HELLO), data(3, end=True))
        assert await client.body(3) == b"hello"
        assert len(client.content[1]) == 1_000
        for increment in (1, 2, 500, 10_000):
            had = len(client.content[1])
            client.send(window_update(1, increment))
            await client.has(1, had + increment)
        client.send(window_update(1, 1 << 24))
        assert await client.body(1) == BODY
    await ext_proc.rests()


async def test_a_connection_whose_window_is_exhausted_goes_on_with_it(ext_proc: Served) -> None:
    initial = 65_535
    async with RawClient(ext_proc.server.port, (INITIAL_WINDOW_SIZE, 1 << 24)) as client:
        for stream_id in (1, 3, 5):
            client.open(stream_id)
            pieces = in_frames(hello(BODY))
            client.send(*(data(stream_id, piece) for piece in pieces), data(stream_id, end=True))
            await client.has(stream_id, 1)
        while sum(map(len, client.content.values())) < initial:
            await client.next(DATA)
        await client.echo()
        assert sum(map(len, client.content.values())) == initial
        client.send(window_update(0, 1 << 24))
        for stream_id in (1, 3, 5):
            assert await client.body(stream_id) == BODY
    await ext_proc.rests()


async def test_a_window_that_a_setting_makes_negative(ext_proc: Served) -> None:
    async with RawClient(ext_proc.server.port, (INITIAL_WINDOW_SIZE, 1_000)) as client:
        client.open(1)
        client.send(*(data(1, piece) for piece in in_frames(hello(BODY))), data(1, end=True))
        await client.has(1, 1_000)
        client.send(settings((INITIAL_WINDOW_SIZE, 0)), window_update(1, 1_000))
        await client.echo()
        assert len(client.content[1]) == 1_000
        client.send(settings((INITIAL_WINDOW_SIZE, 1 << 20)), window_update(0, 1 << 20))
        assert await client.body(1) == BODY
    await ext_proc.rests()


def in_frames(content: bytes) -> list[bytes]:
    return [content[start : start + 16_384] for start in range(0, len(content), 16_384)]


# ---- what ends a request, and what ends a connection ----


async def test_a_reset_in_the_queue_and_in_the_middle_of_a_message(ext_proc: Served) -> None:
    async with RawClient(ext_proc.server.port) as client:
        with ext_proc.full():
            client.open(1)
            client.send(data(1, HELLO))
            client.open(3)
            client.send(data(3, HELLO[:-1]))
            await until(lambda: ext_proc.flow_requests == 1 and ext_proc.server.open_streams == 2)
            client.send(rst_stream(1), rst_stream(3))
            await until(lambda: ext_proc.flow_requests == 0 and ext_proc.server.open_streams == 0)
        client.open(5)
        client.send(data(5, HELLO), data(5, end=True))
        assert await client.body(5) == b"hello"
    await ext_proc.rests()


ERRORS = {
    "a frame that is too large": frame(DATA, 0, 1, b"x" * (1 << 20)),
    "CONTINUATION of nothing": frame(CONTINUATION, END_HEADERS, 1, b"\x82"),
    "a field block that is interrupted": frame(HEADERS, 0, 3, b"\x82") + ping(),
    "a field block that is no HPACK": frame(HEADERS, END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"),
    "SETTINGS of 5 bytes": frame(SETTINGS, payload=b"12345"),
    "SETTINGS on a stream": frame(SETTINGS, 0, 1),
    "WINDOW_UPDATE of 3 bytes": frame(8, 0, 0, b"123"),
    "PING of 7 bytes": frame(PING, 0, 0, b"1234567"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
async def test_an_error_ends_the_connection_with_all_its_streams(
    ext_proc: Served, error: bytes
) -> None:
    """Others go on: this one had a request in the queue, which is gone.

    grpcio does not say why, and lets pass much else that RFC 9113 calls an error.
    """
    other = ext_proc.proxy.stream()
    with ext_proc.full():
        await other.send(headers())
        await other.send(body(b"hello"))
        await until(lambda: ext_proc.flow_requests == 1)
        async with RawClient(ext_proc.server.port) as client:
            client.open(1)
            client.send(data(1, HELLO))
            await until(lambda: ext_proc.flow_requests == 2)
            client.send(error)
            kinds = await client.ends()
            assert GOAWAY in kinds or isinstance(ext_proc.server, GrpcServer)
            await until(lambda: ext_proc.flow_requests == 1)
    await other.reply()
    assert await other.body("request_body") == b"hello"
    other.call.cancel()
    await ext_proc.rests()


@pytest.mark.parametrize(
    "greeting",
    [b"GET / HTTP/1.1\r\nhost: epp\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", bytes(100)],
    ids=["HTTP/1.1", "TLS", "zeros"],
)
async def test_another_protocol_is_not_served(ext_proc: Served, greeting: bytes) -> None:
    async with RawClient(ext_proc.server.port, greets=False) as client:
        client.send(greeting)
        await client.ends()
    stream, _ = await ext_proc.dispatched()
    stream.call.cancel()
    await ext_proc.rests()


async def test_a_connection_that_breaks_in_the_middle_of_a_frame(ext_proc: Served) -> None:
    with ext_proc.full():
        async with RawClient(ext_proc.server.port) as client:
            client.open(1)
            client.send(data(1, HELLO), frame(DATA, 0, 1, b"x" * 100)[:50])
            await until(lambda: ext_proc.flow_requests == 1)
        await until(lambda: ext_proc.flow_requests == 0)
    await ext_proc.rests()


async def test_a_server_that_stops_lets_streams_end(ext_proc: Served) -> None:
    """GOAWAY: what is open goes on; the connection closes with the last stream."""
    async with RawClient(ext_proc.server.port) as client:
        client.open(1)
        client.send(data(1, HELLO))
        await client.has(1, 1)
        stopping = asyncio.create_task(ext_proc.server.stop(PATIENCE_S))
        await client.next(GOAWAY)
        client.send(data(1, grpc(response_headers().SerializeToString()), end=True))
        assert [reply.WhichOneof("response") for reply in await client.replies(1)] == [
            "request_headers",
            "request_body",
            "response_headers",
        ]
        await client.ends()
        await stopping
    await ext_proc.rests()
