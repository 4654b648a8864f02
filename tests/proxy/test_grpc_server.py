"""Streams of ext_proc over gRPC: how they wait, how they end, and what is no conversation."""

import asyncio

import grpc
import pytest

from epp.clock import monotonic_s
from epp.core.replies import BodyMode
from epp.core.request import Outcome
from epp.proxy.health import EXT_PROC_SERVICE
from epp.proxy.wire import ext_proc_pb2

from .conftest import Served
from .ext_proc_peer import (
    Stream,
    body,
    destination_of,
    headers,
    response_headers,
    trailers,
    until,
)

# Queues, cancellations, ends


async def test_a_half_closed_stream_still_gets_its_reply(ext_proc: Served) -> None:
    stream = ext_proc.proxy.stream()
    with ext_proc.full() as free:
        await stream.send(headers())
        await stream.send(body(b"hello"))
        await stream.half_close()
        await until(lambda: ext_proc.flow_requests == 1)
        free()
        destination_of(await stream.reply())
        assert await stream.body("request_body") == b"hello"
    assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


async def test_a_stream_that_is_cancelled_leaves_the_queue(ext_proc: Served) -> None:
    """Trap: Envoy resets streams; CANCELLED is a normal end."""
    with ext_proc.full():
        streams = [ext_proc.proxy.stream() for _ in range(5)]
        for stream in streams:
            await stream.send(headers())
            await stream.send(body(b"hello"))
        await until(lambda: ext_proc.flow_requests == 5)
        for left, stream in enumerate(streams):
            stream.call.cancel()
            await until(lambda left=left: ext_proc.flow_requests == 4 - left)
    assert ext_proc.harness.recorder.outcomes == {Outcome.CANCELLED: 5}
    await ext_proc.rests()


async def test_a_proxy_that_is_gone_takes_all_its_streams_along(ext_proc: Served) -> None:
    with ext_proc.full():
        streams = [ext_proc.proxy.stream() for _ in range(50)]
        for stream in streams:
            await stream.send(headers())
            await stream.send(body(b"hello"))
        await until(lambda: ext_proc.flow_requests == 50)
        await ext_proc.proxy.channel.close()
        await until(lambda: ext_proc.flow_requests == 0)
    await ext_proc.rests()


async def test_a_running_stream_that_is_cancelled_frees_its_slot_for_the_next(
    ext_proc: Served,
) -> None:
    first, _ = await ext_proc.dispatched()
    second, _ = await ext_proc.dispatched()
    waiting = ext_proc.proxy.stream()
    await waiting.send(headers())
    await waiting.send(body(b"hello"))
    await until(lambda: ext_proc.flow_requests == 1)
    first.call.cancel()
    destination_of(await waiting.reply())
    for stream in (second, waiting):
        stream.call.cancel()
    await ext_proc.rests()


async def test_the_server_ends_the_stream_after_its_own_answer(ext_proc: Served) -> None:
    """An answer that comes at once, and one that comes to a stream that waits."""
    ext_proc.harness.apply(())
    for with_body in (False, True):
        stream = ext_proc.proxy.stream()
        await stream.send(headers(end=not with_body))
        if with_body:
            await stream.send(body(b"hello"))
            await until(lambda: ext_proc.flow_requests == 1)
            ext_proc.harness.router.begin_drain()
            ext_proc.harness.router.flow.end_drain(monotonic_s())
        reply = await stream.reply()
        assert reply.immediate_response.status.code == 503
        assert await stream.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


@pytest.mark.parametrize("mode", [BodyMode.NONE, BodyMode.BUFFERED])
async def test_a_queued_request_asks_for_more_time(ext_proc: Served, mode: BodyMode) -> None:
    """Trap: outside of full duplex, the proxy's clock for a reply has to be extended."""
    stream = ext_proc.proxy.stream()
    with ext_proc.full() as free:
        await stream.send(headers(request_mode=mode))
        if mode is BodyMode.BUFFERED:
            assert (await stream.reply()).WhichOneof("response") == "request_headers"
            await stream.send(body(b"hello"))
        reply = await stream.reply()
        assert reply.WhichOneof("response") is None
        assert reply.override_message_timeout.seconds >= 60
        free()
        reply = await stream.reply()
        destination_of(reply, "request_body" if mode is BodyMode.BUFFERED else "request_headers")
    stream.call.cancel()
    await ext_proc.rests()


async def test_hundreds_of_streams_at_once(ext_proc: Served) -> None:
    """All wait, all go in the end, each gets its own body back."""
    count = 300
    with ext_proc.full() as free:
        streams = [ext_proc.proxy.stream() for _ in range(count)]
        for number, stream in enumerate(streams):
            await stream.send(headers())
            await stream.send(body(b"body %d" % number))
        await until(lambda: ext_proc.flow_requests == count)
        assert ext_proc.server.open_streams == count

        async def converse(number: int, stream: Stream) -> None:
            destination_of(await stream.reply())
            assert await stream.body("request_body") == b"body %d" % number
            await stream.send(response_headers())
            await stream.reply()
            await stream.half_close()
            assert await stream.ended() is grpc.StatusCode.OK

        free()
        await asyncio.gather(*(converse(*pair) for pair in enumerate(streams)))
    await ext_proc.rests()


# What is no conversation


async def test_streams_in_observability_mode_get_no_replies(ext_proc: Served) -> None:
    """Duty: they are for information only; nothing is queued, nothing is said."""
    stream = ext_proc.proxy.stream()
    for message in (headers(), body(b"hello"), response_headers(), headers(end=True), trailers()):
        message.observability_mode = True
        await stream.send(message)
    await stream.half_close()
    assert await stream.ended() is grpc.StatusCode.OK
    assert ext_proc.harness.recorder.outcomes == {}
    await ext_proc.rests()


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([b"\xff\xff\xff\xff"], id="garbage"),
        pytest.param([b"\x12\x7f"], id="cut off"),
        pytest.param([headers(), b"\x12\xff\xff\xff\xff\x0f"], id="garbage later"),
        pytest.param([headers(), headers()], id="request headers twice"),
    ],
)
async def test_what_is_no_ext_proc_is_an_invalid_argument(
    ext_proc: Served, messages: list[ext_proc_pb2.ProcessingRequest | bytes]
) -> None:
    stream = ext_proc.proxy.stream()
    for message in messages:
        await stream.send(message)
    assert await stream.ended() is grpc.StatusCode.INVALID_ARGUMENT
    await ext_proc.rests()
    other, _ = await ext_proc.dispatched()
    other.call.cancel()
    await ext_proc.rests()


async def test_garbage_while_a_request_waits_ends_its_wait(ext_proc: Served) -> None:
    with ext_proc.full():
        stream = ext_proc.proxy.stream()
        await stream.send(headers())
        await stream.send(body(b"hello"))
        await until(lambda: ext_proc.flow_requests == 1)
        await stream.send(b"\xff\xff\xff\xff")
        assert await stream.ended() is grpc.StatusCode.INVALID_ARGUMENT
        assert ext_proc.flow_requests == 0
    await ext_proc.rests()


async def test_empty_messages_and_empty_streams_do_no_harm(ext_proc: Served) -> None:
    stream = ext_proc.proxy.stream()
    await stream.send(b"")
    await stream.send(headers(end=True))
    destination_of(await stream.reply())
    await stream.half_close()
    assert await stream.ended() is grpc.StatusCode.OK
    silent = ext_proc.proxy.stream()
    await silent.half_close()
    assert await silent.ended() is grpc.StatusCode.OK
    await ext_proc.rests()


async def test_another_method_is_unimplemented(ext_proc: Served) -> None:
    method = ext_proc.proxy.channel.stream_stream(f"/{EXT_PROC_SERVICE}/NoSuch")
    assert await Stream(method()).ended() is grpc.StatusCode.UNIMPLEMENTED
