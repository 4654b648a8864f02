"""A real Envoy with one and with two worker threads, under load of every kind: not a byte differs,
nothing hangs, nothing is lost.

All bodies pass through the EPP, both ways.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1, Response, request_head
from .http2 import Http2, Http2Stream
from .stack import Gateway, Stack, begin_stream, model_server
from .support import chat, eventually, spread

ECHO = "/debug/echo"
CHAT = "/v1/chat/completions"
STREAMS, STREAMS_PER_CONNECTION = 1_000, 50
MANY_SLOTS = 2_000
LARGE = spread(20_000_000)

both_concurrencies = pytest.mark.parametrize("concurrency", [1, 2])


async def start(start_stack: StartStack) -> Stack:
    """Start a fast server that takes all that comes, and an EPP that sends it there."""
    server = model_server("fast", MANY_SLOTS, step_s=0.0002)
    return await start_stack([server], arguments=["--max-concurrency", str(MANY_SLOTS)])


async def gateway_of(stack: Stack, concurrency: int) -> Gateway:
    return await stack.gateway(
        response_body_mode="FULL_DUPLEX_STREAMED", fail_open=False, concurrency=concurrency
    )


@pytest_asyncio.fixture(loop_scope="session")
async def crowded(start_stack: StartStack) -> AsyncIterator[Stack]:
    """A stack without limits, which every test must leave at rest."""
    stack = await start(start_stack)
    yield stack
    await stack.at_rest()


async def right_answer(stack: Stack, reference: ModelServer, body: bytes) -> bytes:
    async with stack.client.post(reference.url + CHAT, data=body) as response:
        return await response.read()


async def post(gateway: Gateway, path: str, body: bytes) -> Response:
    async with Http1(gateway.port) as http1:
        return await http1.post(path, body)


def assert_all(answers: Iterable[Response], expected: bytes) -> None:
    for answer in answers:
        assert answer.status == 200
        assert answer.body == expected, "the bytes differ"


async def failures(gateway: Gateway) -> int:
    """Return how many streams to the EPP Envoy has seen fail."""
    return await gateway.stat("http.gateway.ext_proc.streams_failed")


@both_concurrencies
async def test_a_thousand_streams_at_once(crowded: Stack, concurrency: int) -> None:
    """All are open at the same moment, half of each body sent; then each gets its own back."""
    gateway = await gateway_of(crowded, concurrency)
    bodies = [b"%d:" % number + spread(8_000) for number in range(STREAMS)]
    async with AsyncExitStack() as exits:
        streams: list[Http2Stream] = []
        for number, body in enumerate(bodies):
            if number % STREAMS_PER_CONNECTION == 0:
                http2 = await exits.enter_async_context(Http2(gateway.port))
            stream = await http2.start("POST", ECHO)
            await stream.send(body[:4_000])
            streams.append(stream)

        async def all_are_open() -> None:
            assert (await crowded.metrics()).sum("extproc_streams_inflight") == STREAMS

        await eventually(all_are_open)
        order = list(range(STREAMS))
        random.Random(concurrency).shuffle(order)
        for number in order:
            await streams[number].send(bodies[number][4_000:], end_stream=True)
        for stream, body in zip(streams, bodies, strict=True):
            assert_all([await stream.response()], body)
    assert await failures(gateway) == 0


@both_concurrencies
async def test_large_bodies_do_not_hold_up_streams(
    crowded: Stack, reference: ModelServer, concurrency: int
) -> None:
    """20 MB both ways, and responses of 2,000 events, all at the same time."""
    gateway = await gateway_of(crowded, concurrency)
    count = chat("count", 2_000, stream=True)
    async with asyncio.TaskGroup() as tasks:
        large = [tasks.create_task(post(gateway, ECHO, LARGE)) for _ in range(2)]
        streamed = [tasks.create_task(post(gateway, CHAT, count)) for _ in range(6)]
    assert_all((task.result() for task in large), LARGE)
    assert_all((task.result() for task in streamed), await right_answer(crowded, reference, count))
    assert await failures(gateway) == 0


@both_concurrencies
async def test_readers_that_stop_hold_up_nobody_else(crowded: Stack, concurrency: int) -> None:
    """They take nothing after the head of their response; in the end they get every byte.

    How much of it the way can hold is Envoy's and the kernel's affair. What the EPP does when Envoy
    takes nothing of a stream is a test of the transports.
    """
    gateway = await gateway_of(crowded, concurrency)
    length = ("content-length", str(len(LARGE)))
    async with AsyncExitStack() as exits:
        slow = [await exits.enter_async_context(Http1(gateway.port)) for _ in range(4)]
        for http1 in slow:
            await http1.send(request_head("POST", ECHO, [length]) + LARGE)
        heads = [await http1.head() for http1 in slow]
        async with asyncio.TaskGroup() as tasks:
            quick = [tasks.create_task(post(gateway, ECHO, b"quick")) for _ in range(50)]
        assert_all((task.result() for task in quick), b"quick")
        for http1, head in zip(slow, heads, strict=True):
            assert head.status == 200
            assert await http1.body(head) == LARGE, "the bytes differ"


@both_concurrencies
async def test_clients_that_reset_leave_the_others_whole(
    crowded: Stack, reference: ModelServer, concurrency: int
) -> None:
    """Every second connection is reset in the middle of its response."""
    gateway = await gateway_of(crowded, concurrency)
    count = chat("count", 300, stream=True)
    expected = await right_answer(crowded, reference, count)

    async def reset_after(events: int) -> None:
        async with Http1(gateway.port) as http1:
            length = ("content-length", str(len(count)))
            await http1.send(request_head("POST", CHAT, [length]) + count)
            await http1.head()
            for _ in range(events):
                await http1.chunk()
            http1.reset()

    async with asyncio.TaskGroup() as tasks:
        whole = []
        for number in range(40):
            tasks.create_task(reset_after(number % 10))
            whole.append(tasks.create_task(post(gateway, CHAT, count)))
    assert_all((task.result() for task in whole), expected)
    assert await failures(gateway) == 0


async def test_an_envoy_that_is_gone_takes_only_its_own_streams(
    crowded: Stack, reference: ModelServer
) -> None:
    """Its connections to the EPP break, with many streams open; another Envoy notices nothing."""
    lost, gateway = [await gateway_of(crowded, concurrency) for concurrency in (1, 2)]
    count = chat("count", 1_000, stream=True)
    async with AsyncExitStack() as exits, asyncio.TaskGroup() as tasks:
        cut_off = [await begin_stream(lost, exits) for _ in range(30)]
        whole = [tasks.create_task(post(gateway, CHAT, count)) for _ in range(5)]

        async def all_run() -> None:
            assert crowded.servers[0].state().in_flight == len(cut_off) + len(whole)

        await eventually(all_run)
        await lost.kill()
        for http1 in cut_off:
            await http1.ended()
    expected = await right_answer(crowded, reference, count)
    assert_all((task.result() for task in whole), expected)


@both_concurrencies
async def test_a_drain_cuts_nothing_off(
    start_stack: StartStack, reference: ModelServer, concurrency: int
) -> None:
    """SIGTERM in the middle of a large body that its client does not read yet, and of streams."""
    stack = await start(start_stack)
    gateway = await gateway_of(stack, concurrency)
    count = chat("count", 1_500, stream=True)
    requests = [(ECHO, LARGE), *[(CHAT, count)] * 10]
    async with AsyncExitStack() as exits:
        begun = []
        for path, body in requests:
            http1 = await exits.enter_async_context(Http1(gateway.port))
            length = ("content-length", str(len(body)))
            await http1.send(request_head("POST", path, [length]) + body)
            begun.append((http1, await http1.head()))
        stack.process.terminate()
        for (_, body), (http1, head) in zip(requests, begun, strict=True):
            right = body if body is LARGE else await right_answer(stack, reference, body)
            assert head.status == 200
            assert await http1.body(head) == right, "the bytes differ"
    assert await stack.process.process.exit == 0
