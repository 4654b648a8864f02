"""Clients that go away: what they held is free at once, and the model server stops."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from epp.gateway.options import BodyMode

from .http1 import Http1, request_head
from .http2 import Http2
from .stack import Gateway, Stack, begin_stream
from .support import chat, completion, eventually

LIMIT_S = 0.05
TRIES = 3
COMPLETIONS = "/v1/completions"
FOR_EVER = 10_000  # tokens: more than any test waits for

HangUp = Callable[[], Awaitable[None]]
both_modes = pytest.mark.parametrize("mode", ["NONE", "FULL_DUPLEX_STREAMED"])


class Client:
    """Sends one request and can hang up in its own way."""

    def __init__(self, gateway: Gateway, manner: str, exits: AsyncExitStack) -> None:
        self._gateway = gateway
        self._manner = manner
        self._exits = exits
        self.id = str(uuid4())

    async def send(self, body: bytes, wait_for_bytes: int) -> HangUp:
        """Send, wait for so many bytes of the response's body, return how to hang up."""
        headers = [("x-request-id", self.id), ("x-llm-d-inference-objective", "batch")]
        if self._manner.startswith("h2"):
            http2 = await self._exits.enter_async_context(Http2(self._gateway.port))
            stream = await http2.start("POST", COMPLETIONS, headers)
            await stream.send(body, end_stream=True)
            await stream.has(wait_for_bytes)
            return stream.reset if self._manner == "h2 reset" else calling(http2.close)
        http1 = await self._exits.enter_async_context(Http1(self._gateway.port))
        length = ("content-length", str(len(body)))
        await http1.send(request_head("POST", COMPLETIONS, [*headers, length]) + body)
        if wait_for_bytes:
            await http1.head()
            while wait_for_bytes > 0:
                wait_for_bytes -= len(await http1.chunk())
        return calling(http1.reset if self._manner == "h1 reset" else http1.close)


def calling(function: Callable[[], None]) -> HangUp:
    async def call() -> None:
        function()

    return call


async def until(condition: Callable[[], bool], since_s: float) -> float:
    """Look each millisecond whether it has come true; return how long it took."""
    return await eventually(condition, every_s=0.001) - since_s


manners = pytest.mark.parametrize("manner", ["h1 close", "h1 reset", "h2 close", "h2 reset"])


@manners
@both_modes
async def test_a_client_that_leaves_the_queue(inside: Stack, mode: BodyMode, manner: str) -> None:
    """Its place is free within 50 ms, and no model server ever hears of it.

    The time is that between the call that closes the client's socket and the EPP's state, in one
    process; the best of three, because other work on the machine may come between.
    """
    gateway = await inside.gateway(response_body_mode=mode)
    flow = inside.router.flow
    leases = inside.occupy()
    times = []
    async with AsyncExitStack() as exits:
        while not times or (min(times) >= LIMIT_S and len(times) < TRIES):
            client = Client(gateway, manner, exits)
            before = await inside.metrics()
            hang_up = await client.send(completion(), 0)
            await eventually(lambda: flow.requests == 1)
            start_s = time.monotonic()
            await hang_up()
            times.append(await until(lambda: flow.requests == 0, start_s))
            count = (await inside.metrics()).outcomes(priority=-10)["cancelled"]
            assert count == before.outcomes(priority=-10).get("cancelled", 0) + 1
            assert outcome_at_servers(inside, client.id) == []
    assert min(times) < LIMIT_S, times
    inside.give_back(leases)


@manners
@both_modes
@pytest.mark.parametrize("moment", ["waiting for the first byte", "mid-stream"])
async def test_a_client_that_leaves_its_running_request(
    inside: Stack, mode: BodyMode, manner: str, moment: str
) -> None:
    """The next in the queue has its slot within 50 ms, and the model server saw the abort.

    The time is that between the call that closes the client's socket and the dispatch of the next
    request, in one process; the best of three, because other work on the machine may come between.
    """
    gateway = await inside.gateway(response_body_mode=mode)
    flow = inside.router.flow
    leases = inside.occupy(spare=1)
    is_stream = moment == "mid-stream"
    body = completion("go on", FOR_EVER, stream=is_stream)
    times = []
    async with AsyncExitStack() as exits:
        while not times or (min(times) >= LIMIT_S and len(times) < TRIES):
            client = Client(gateway, manner, exits)
            hang_up = await client.send(body, 500 if is_stream else 0)
            await eventually(lambda: sum(s.state().running for s in inside.servers) == 1)
            async with Http1(gateway.port) as http1, asyncio.TaskGroup() as tasks:
                next_one = tasks.create_task(http1.post("/v1/chat/completions", chat()))
                await eventually(lambda: flow.requests == 1)
                start_s = time.monotonic()
                await hang_up()
                times.append(await until(lambda: flow.requests == 0, start_s))
            assert (await next_one).status == 200
            await eventually(lambda name=client.id: outcome_at_servers(inside, name) == ["aborted"])
            await eventually(lambda: sum(s.state().running for s in inside.servers) == 0)
    assert min(times) < LIMIT_S, times
    inside.give_back(leases)


@both_modes
async def test_a_slot_is_held_to_the_end_of_the_response_and_no_longer(
    inside: Stack, mode: BodyMode
) -> None:
    """Trap: the stream stays open until the HTTP stream has ended, also without response bodies.

    The time is that between the client's last byte and the free slot; the best of three.
    """
    gateway = await inside.gateway(response_body_mode=mode)
    pool = inside.router.pool
    async with AsyncExitStack() as exits:
        running = await begin_stream(gateway, exits)
        for _ in range(5):
            assert await running.chunk()
            assert pool.total_in_flight == 1
    await eventually(lambda: pool.total_in_flight == 0)
    times = []
    async with Http1(gateway.port) as http1:
        while not times or (min(times) >= LIMIT_S and len(times) < TRIES):
            answer = await http1.post(COMPLETIONS, completion("short", 5, stream=True))
            start_s = time.monotonic()
            assert answer.body.endswith(b"data: [DONE]\n\n")
            times.append(await until(lambda: pool.total_in_flight == 0, start_s))
    assert min(times) < LIMIT_S, times


@manners
@both_modes
async def test_a_client_that_leaves_while_it_sends(
    inside: Stack, mode: BodyMode, manner: str
) -> None:
    """A request that is not whole yet never enters the queue."""
    gateway = await inside.gateway(response_body_mode=mode)
    streams = inside.service.ext_proc
    before = await inside.metrics()
    async with AsyncExitStack() as exits:
        hang_up: HangUp
        if manner.startswith("h2"):
            http2 = await exits.enter_async_context(Http2(gateway.port))
            stream = await http2.start("POST", COMPLETIONS)
            await stream.send(b"{")
            hang_up = stream.reset if manner == "h2 reset" else calling(http2.close)
        else:
            http1 = await exits.enter_async_context(Http1(gateway.port))
            await http1.send(request_head("POST", COMPLETIONS, [("content-length", "99")]) + b"{")
            hang_up = calling(http1.reset if manner == "h1 reset" else http1.close)
        await eventually(lambda: streams.open_streams == 1)
        await hang_up()
        await eventually(lambda: streams.open_streams == 0)
    assert (await inside.metrics()).outcomes() == before.outcomes()


def outcome_at_servers(stack: Stack, name: str) -> list[str | None]:
    records = [record for server in stack.servers for record in server.state().requests]
    return [record.outcome for record in records if record.request_id == name]
