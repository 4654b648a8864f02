"""A client on the `h2` package, at both transports: HTTP/2 as another implementation speaks it."""

import asyncio

from epp.proxy.wire import ext_proc_pb2

from ..e2e.http2 import Http2, Http2Stream
from .conftest import Served
from .ext_proc_peer import Reply, body, destination_of, headers, response_headers, until
from .http2.support import CHECK, PROCESS, grpc, ungrpc

LARGE = bytes(range(256)) * 80_000  # 20 MB
METADATA = [("te", "trailers"), ("content-type", "application/grpc")]


async def start(http2: Http2, path: str = PROCESS) -> Http2Stream:
    return await http2.start("POST", path, METADATA)


def framed(*messages: ext_proc_pb2.ProcessingRequest) -> bytes:
    return grpc(*(message.SerializeToString() for message in messages))


def replies_of(stream: Http2Stream) -> list[ext_proc_pb2.ProcessingResponse]:
    return [Reply.FromString(message) for message in ungrpc(bytes(stream.body))]


async def test_a_conversation_and_its_end(ext_proc: Served) -> None:
    async with Http2(ext_proc.server.port) as http2:
        stream = await start(http2)
        await stream.send(framed(headers(), body(b"hello")))
        await stream.has(1)
        await stream.send(framed(response_headers()), end_stream=True)
        await stream.response()
        assert (stream.status, stream.headers["content-type"]) == (200, "application/grpc")
        assert stream.trailers["grpc-status"] == "0"
        first, piece, last = replies_of(stream)
        destination_of(first)
        assert piece.request_body.response.body_mutation.streamed_response.body == b"hello"
        assert last.WhichOneof("response") == "response_headers"
    await ext_proc.rests()


async def test_health_and_streams_share_a_connection(ext_proc: Served) -> None:
    async with Http2(ext_proc.server.port) as http2:
        with ext_proc.full():
            waiting = await start(http2)
            await waiting.send(framed(headers(), body(b"hello")))
            await until(lambda: ext_proc.flow_requests == 1)
            check = await start(http2, CHECK)
            await check.send(grpc(b""), end_stream=True)
            await check.response()
            assert ungrpc(bytes(check.body)) == [b"\x08\x02"]  # not serving
            assert check.trailers["grpc-status"] == "0"
        await waiting.has(1)
        await waiting.reset()
    await ext_proc.rests()


async def test_a_message_of_20_mb_goes_there_and_back(ext_proc: Served) -> None:
    async with Http2(ext_proc.server.port) as http2:
        stream = await start(http2)
        await stream.send(framed(headers(), body(LARGE)), end_stream=True)
        await stream.response()
        pieces = [
            reply.request_body.response.body_mutation.streamed_response
            for reply in replies_of(stream)[1:]
        ]
        assert b"".join(piece.body for piece in pieces) == LARGE, "the bytes differ"
        assert [piece.end_of_stream for piece in pieces[-2:]] == [False, True]
    await ext_proc.rests()


async def test_a_hundred_streams_of_which_half_are_reset(ext_proc: Served) -> None:
    async with Http2(ext_proc.server.port) as http2:
        with ext_proc.full():
            streams = []
            for number in range(100):
                stream = await start(http2)
                await stream.send(framed(headers(), body(b"body %d" % number)), end_stream=True)
                streams.append(stream)
            await until(lambda: ext_proc.flow_requests == 100)
            for stream in streams[::2]:
                await stream.reset()
            await until(lambda: ext_proc.flow_requests == 50)
        await asyncio.gather(*(stream.response() for stream in streams[1::2]))
        for number, stream in enumerate(streams):
            if number % 2:
                _, piece = replies_of(stream)
                mutation = piece.request_body.response.body_mutation
                assert mutation.streamed_response.body == b"body %d" % number
    await ext_proc.rests()


async def test_a_connection_that_closes_takes_its_streams_along(ext_proc: Served) -> None:
    with ext_proc.full():
        async with Http2(ext_proc.server.port) as http2:
            for _ in range(20):
                stream = await start(http2)
                await stream.send(framed(headers(), body(b"hello")))
            await until(lambda: ext_proc.flow_requests == 20)
        await until(lambda: ext_proc.flow_requests == 0)
    await ext_proc.rests()
