"""What clients are told when their requests do not go."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from epp.gateway.options import BodyMode

from .conftest import StartStack
from .http1 import Http1, Response
from .http2 import Http2
from .stack import Gateway, Stack, model_server
from .support import completion, spread

COMPLETIONS = "/v1/completions"
OBJECTIVE = "x-llm-d-inference-objective"
TTL = "x-gateway-request-ttl-ms"
BODY_MODES = ("NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", "FULL_DUPLEX_STREAMED")


def assert_shed(answer: Response, code: str, reason: str) -> None:
    """Duty: shed is a 429, never a gRPC error; the body is OpenAI's, and says when to retry."""
    assert answer.status == 429
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    assert answer.headers["x-llm-d-request-dropped-reason"] == reason
    error = json.loads(answer.body)["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    assert (error["type"], error["code"]) == ("rate_limit_error", code)


async def call(gateway: Gateway, *headers: tuple[str, str], path: str = COMPLETIONS) -> Response:
    async with Http1(gateway.port) as http1:
        return await http1.post(path, completion(), headers)


@pytest.mark.parametrize("response_mode", ["NONE", "FULL_DUPLEX_STREAMED"])
@pytest.mark.parametrize("mode", BODY_MODES)
async def test_a_wait_that_is_over_ends_in_a_clean_429_in_every_mode(
    inside: Stack, mode: BodyMode, response_mode: BodyMode
) -> None:
    """Trap: an ImmediateResponse may be sent at any time; the client gets a clean 429."""
    gateway = await inside.gateway(request_body_mode=mode, response_body_mode=response_mode)
    leases = inside.occupy()
    start_s = time.monotonic()
    answer = await call(gateway, (TTL, "250"))
    waited_s = time.monotonic() - start_s
    assert_shed(answer, "expired", "rejected-ttl-expired")
    assert 0.24 < waited_s < 2.0
    inside.give_back(leases)


async def test_a_full_queue_sheds_the_lowest_and_the_latest(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """Two may wait: a third of their priority is refused, one of a higher displaces the younger."""
    arguments = ["--max-queued-requests", "2"]
    stack = await start_stack([model_server("one")], arguments=arguments)
    gateway = await stack.gateway()
    held = await exits.enter_async_context(held_slots(stack, gateway))
    batch = OBJECTIVE, "batch"
    async with asyncio.TaskGroup() as tasks:
        oldest = tasks.create_task(call(gateway, batch))
        await stack.queued(1)
        youngest = tasks.create_task(call(gateway, batch))
        await stack.queued(2)
        assert_shed(await call(gateway, batch), "rejected-capacity", "rejected-saturated")
        assert (await stack.metrics()).queued() == 2
        urgent = tasks.create_task(call(gateway, (OBJECTIVE, "interactive")))
        assert_shed(await youngest, "displaced", "rejected-saturated")
        assert not oldest.done()
        held.close()
    assert oldest.result().status == urgent.result().status == 200
    await stack.at_rest()
    outcomes = (await stack.metrics()).outcomes()
    assert outcomes == {"dispatched": 4, "rejected-capacity": 1, "displaced": 1}


async def test_a_queue_is_bounded_in_bytes_too(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    arguments = ["--max-queued-bytes", "100000"]
    stack = await start_stack([model_server("one")], arguments=arguments)
    gateway = await stack.gateway()
    held = await exits.enter_async_context(held_slots(stack, gateway))
    async with Http2(gateway.port) as http2:
        waiting = await http2.start("POST", "/debug/echo")
        await waiting.send(spread(90_000), end_stream=True)
        await stack.queued(1)
        refused = await http2.post("/debug/echo", spread(20_000))
        assert_shed(refused, "rejected-capacity", "rejected-saturated")
        held.close()
        assert (await waiting.response()).body == spread(90_000)
    await stack.at_rest()


@asynccontextmanager
async def held_slots(stack: Stack, gateway: Gateway) -> AsyncIterator[Http2]:
    """Take both slots of the only server; closing the connection gives them back."""
    async with Http2(gateway.port) as http2:
        for _ in range(2):
            stream = await http2.start("POST", COMPLETIONS)
            await stream.send(completion("go on", 10_000), end_stream=True)
        await stack.in_flight(2)
        yield http2


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages?beta=true"])
async def test_anthropic_paths_get_errors_of_their_own_kind(inside: Stack, path: str) -> None:
    gateway = await inside.gateway()
    leases = inside.occupy()
    answer = await call(gateway, (TTL, "50"), path=path)
    assert answer.status == 429
    document = json.loads(answer.body)
    assert document["type"] == "error"
    assert document["error"]["type"] == "rate_limit_error"
    inside.give_back(leases)


async def test_more_than_a_thousand_requests_may_wait(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """Trap: each queued request holds a stream, and Envoy's own bound would be 1,024.

    The shipped gateway raises it, and a metric shows the open streams.
    """
    waiting = 1_500
    stack = await start_stack([model_server("one")])
    gateway = await stack.gateway()
    held = await exits.enter_async_context(held_slots(stack, gateway))
    clients = []
    for _ in range(waiting // 100):
        http2 = await exits.enter_async_context(Http2(gateway.port))
        clients.append(http2)
        for _ in range(100):
            stream = await http2.start("POST", COMPLETIONS)
            await stream.send(b"x", end_stream=True)
    await stack.queued(waiting)
    metrics = await stack.metrics()
    assert metrics.sum("extproc_streams_inflight") == waiting + 2
    assert metrics.outcomes() == {"dispatched": 2}
    # Not all at once: a thousand resets at a time are a flood to Envoy, which then closes its
    # connection to the EPP, with all that runs on it.
    for left, http2 in enumerate(clients, start=1):
        http2.close()
        await stack.queued(waiting - 100 * left)
    assert (await stack.metrics()).leases() == {stack.destination(0): 2}
    held.close()
    await stack.at_rest()
    assert (await stack.metrics()).outcomes() == {"dispatched": 2, "cancelled": waiting}
