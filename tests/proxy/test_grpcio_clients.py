"""The clients of grpcio, with asyncio and without, at both transports.

What a stream of ext_proc has to say is in the other files; here it is what gRPC promises.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .conftest import Served
from .ext_proc_peer import PATIENCE_S, Proxy, Reply, Stream, body, destination_of, headers, until
from .http2.support import PROCESS
from .ping_relay import PingRelay

LARGE = bytes(range(256)) * 80_000  # 20 MB
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
METADATA = (
    *((f"x-many-{number}", str(number)) for number in range(40)),
    ("x-long", "x" * 2_000),
    ("x-raw-bin", bytes(range(256))),
)
DEADLINE_S = 1.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def channel_of(served: Served) -> Iterator[grpc.Channel]:
    """A channel of the client without asyncio."""
    with grpc.insecure_channel(f"127.0.0.1:{served.server.port}", options=UNLIMITED) as channel:
        yield channel


class Messages:
    """What a call without asyncio sends, up to its end: it is asked for in a thread."""

    def __init__(self, *messages: Any) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for message in messages:
            self._queue.put(message.SerializeToString())

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._queue.get, None)

    def end(self) -> "Messages":
        self._queue.put(None)
        return self


def process(channel: grpc.Channel, messages: Messages, **options: Any) -> Any:
    return channel.stream_stream(PROCESS)(iter(messages), **options)


async def in_thread(function: Callable[[], Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.to_thread(function)


def body_of(replies: list[Reply]) -> bytes:
    pieces = [reply.request_body.response.body_mutation.streamed_response for reply in replies]
    assert [piece.end_of_stream for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    return b"".join(piece.body for piece in pieces)


# ---- unary calls ----


async def test_check_with_both_clients(ext_proc: Served) -> None:
    request = health_pb2.HealthCheckRequest()
    stub = health_pb2_grpc.HealthStub(ext_proc.proxy.channel)
    with channel_of(ext_proc) as channel:
        blocking = health_pb2_grpc.HealthStub(channel)
        for is_ready in (False, True, False):
            await ext_proc.health.set_ready(is_ready)
            status = SERVING if is_ready else NOT_SERVING
            for _ in range(3):
                assert (await stub.Check(request, timeout=PATIENCE_S)).status == status
                answer = await in_thread(lambda: blocking.Check(request, timeout=PATIENCE_S))
                assert answer.status == status
    unknown = health_pb2.HealthCheckRequest(service="no such")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(unknown, timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_tells_of_every_change(ext_proc: Served) -> None:
    stub = health_pb2_grpc.HealthStub(ext_proc.proxy.channel)
    call = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=PATIENCE_S)
    statuses = []
    for is_ready in (True, False, True):
        statuses.append((await call.read()).status)
        await ext_proc.health.set_ready(is_ready)
    assert statuses == [NOT_SERVING, SERVING, NOT_SERVING]
    call.cancel()
    await ext_proc.rests()


# ---- streams ----


async def test_a_stream_without_asyncio(ext_proc: Served) -> None:
    """With metadata of all kinds, of which nothing is meant for this server."""
    with channel_of(ext_proc) as channel:
        messages = Messages(headers(), body(b"hello")).end()
        call = process(channel, messages, metadata=METADATA, timeout=PATIENCE_S)
        first, *others = [Reply.FromString(data) for data in await in_thread(lambda: list(call))]
        destination_of(first)
        assert body_of(others) == b"hello"
        assert call.code() is grpc.StatusCode.OK
    await ext_proc.rests()


async def test_metadata_with_asyncio(ext_proc: Served) -> None:
    method = ext_proc.proxy.channel.stream_stream(PROCESS)
    stream = Stream(method(metadata=METADATA))
    await stream.send(headers(end=True))
    destination_of(await stream.reply())
    assert "grpc-status" not in dict(await stream.call.initial_metadata())
    await stream.half_close()
    assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


@pytest.mark.parametrize("client", ["asyncio", "blocking"])
async def test_a_message_of_20_mb(ext_proc: Served, client: str) -> None:
    if client == "asyncio":
        stream = ext_proc.proxy.stream()
        await stream.send(headers())
        await stream.send(body(LARGE))
        destination_of(await stream.reply())
        assert await stream.body("request_body") == LARGE, "the bytes differ"
        await stream.half_close()
        assert await stream.ended() is grpc.StatusCode.OK
    else:
        with channel_of(ext_proc) as channel:
            call = process(channel, Messages(headers(), body(LARGE)).end())
            replies = await in_thread(lambda: list(call))
            assert body_of([Reply.FromString(data) for data in replies[1:]]) == LARGE
    await ext_proc.rests()


# ---- ends ----


@pytest.mark.parametrize("client", ["asyncio", "blocking"])
async def test_a_deadline_ends_the_wait_in_the_queue(ext_proc: Served, client: str) -> None:
    with ext_proc.full(), channel_of(ext_proc) as channel:
        if client == "asyncio":
            method = ext_proc.proxy.channel.stream_stream(PROCESS)
            stream = Stream(method(timeout=DEADLINE_S))
            await stream.send(headers())
            await stream.send(body(b"hello"))
            await until(lambda: ext_proc.flow_requests == 1)
            assert await stream.ended() is grpc.StatusCode.DEADLINE_EXCEEDED
        else:
            messages = Messages(headers(), body(b"hello"))
            call = process(channel, messages, timeout=DEADLINE_S)
            await until(lambda: ext_proc.flow_requests == 1)
            assert await in_thread(call.code) is grpc.StatusCode.DEADLINE_EXCEEDED
            messages.end()
        await until(lambda: ext_proc.flow_requests == 0)
    await ext_proc.rests()


async def test_a_call_without_asyncio_that_is_cancelled(ext_proc: Served) -> None:
    """In the queue, and at an endpoint."""
    with channel_of(ext_proc) as channel:
        with ext_proc.full():
            messages = Messages(headers(), body(b"hello"))
            call = process(channel, messages)
            await until(lambda: ext_proc.flow_requests == 1)
            call.cancel()
            await until(lambda: ext_proc.flow_requests == 0)
        running = Messages(headers(), body(b"hello"))
        another = process(channel, running)
        destination_of(Reply.FromString(await in_thread(lambda: next(another))))
        another.cancel()
        await ext_proc.rests()
        assert await in_thread(call.code) is grpc.StatusCode.CANCELLED
        assert await in_thread(another.code) is grpc.StatusCode.CANCELLED
        messages.end()
        running.end()


async def test_many_threads_share_a_channel(ext_proc: Served) -> None:
    with channel_of(ext_proc) as channel:
        barrier = threading.Barrier(20)

        def converse(number: int) -> tuple[bytes, grpc.StatusCode]:
            messages = Messages(headers(), body(b"body %d" % number)).end()
            barrier.wait(PATIENCE_S)
            call = process(channel, messages, timeout=PATIENCE_S)
            return body_of([Reply.FromString(data) for data in call][1:]), call.code()

        async with asyncio.timeout(PATIENCE_S):
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(20) as threads:
                tasks = [loop.run_in_executor(threads, converse, number) for number in range(20)]
                answers = await asyncio.gather(*tasks)
    assert answers == [(b"body %d" % number, grpc.StatusCode.OK) for number in range(20)]
    await ext_proc.rests()


# ---- keep-alive ----


async def test_keep_alive_pings_are_answered_while_a_request_waits(ext_proc: Served) -> None:
    """A proxy that pings as often as it may learns that the server is there, and is not told to
    calm down."""
    options = [
        ("grpc.keepalive_time_ms", 1_001),  # grpcio's server allows one each second
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with PingRelay(ext_proc.server.port) as relay:
        proxy = Proxy(relay.port, options)
        stream = proxy.stream()
        with ext_proc.full() as free:
            await stream.send(headers())
            await stream.send(body(b"hello"))
            await until(lambda: ext_proc.flow_requests == 1)
            seen = relay.answered
            await until(lambda: relay.answered >= seen + 2)
            free()
            destination_of(await stream.reply())
        assert await stream.body("request_body") == b"hello"
        assert relay.goaways == 0
        await proxy.channel.close()
    await ext_proc.rests()
