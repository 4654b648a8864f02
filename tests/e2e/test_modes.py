"""Every way in which a proxy can be told to send bodies and trailers."""

import asyncio

import pytest

from epp.gateway.options import BodyMode, TrailerMode
from epp.modelserver.server import ModelServer

from .http1 import Http1, request_head
from .http2 import Http2
from .stack import Gateway, Stack
from .support import chat, completion, spread

ECHO = "/debug/echo"
CHAT = "/v1/chat/completions"
DUPLEX = "FULL_DUPLEX_STREAMED"
BODY_MODES = ("NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL", DUPLEX)
# Request body, response body, request trailers, response trailers. Envoy insists on trailers with
# full duplex bodies.
COMBINATIONS = [
    *((mode, "NONE", "SEND", "SEND") for mode in BODY_MODES),
    *((DUPLEX, mode, "SEND", "SEND") for mode in BODY_MODES if mode != "NONE"),
    *((mode, mode, "SKIP", "SKIP") for mode in BODY_MODES if mode != DUPLEX),
    ("NONE", DUPLEX, "SKIP", "SEND"),
]


@pytest.mark.parametrize("combination", COMBINATIONS, ids="-".join)
async def test_every_mode_works(
    fast: Stack,
    reference: ModelServer,
    combination: tuple[BodyMode, BodyMode, TrailerMode, TrailerMode],
) -> None:
    """Duty: every phase in every mode works; trailers are sent or skipped."""
    gateway = await gateway_with(fast, combination)
    before = (await fast.metrics()).outcomes().get("dispatched", 0)
    async with Http1(gateway.port) as http1:
        for stream in (False, True):
            body = chat("hello", 20, stream=stream)
            async with fast.client.post(reference.url + CHAT, data=body) as response:
                right = await response.read()
            answer = await http1.post(CHAT, body)
            assert (answer.status, answer.body) == (200, right)
        for size_bytes in (1, 62_001, 0):
            answer = await http1.post(ECHO, spread(size_bytes))
            assert (answer.status, answer.body) == (200, spread(size_bytes))
        for method in ("GET", "HEAD", "GET"):
            await http1.send(request_head(method, "/v1/models"))
            answer = await http1.response(has_body=method == "GET")
            assert answer.status == 200
            assert bool(answer.body) == (method == "GET")
    async with Http2(gateway.port) as http2:
        assert (await http2.post(ECHO, spread(62_001))).body == spread(62_001)
    await fast.at_rest()
    assert (await fast.metrics()).outcomes()["dispatched"] == before + 5


@pytest.mark.parametrize(
    ("mode", "trailers"),
    [(mode, t) for mode in BODY_MODES for t in ("SEND", "SKIP") if (mode, t) != (DUPLEX, "SKIP")],
)
async def test_request_trailers_pass_in_every_mode(
    fast: Stack, mode: BodyMode, trailers: TrailerMode
) -> None:
    """Without retries, because Envoy doubles bodies where it may retry: see test_http.py."""
    gateway = await fast.gateway(
        request_body_mode=mode, request_trailer_mode=trailers, retries=False
    )
    async with Http2(gateway.port) as http2:
        for size_bytes in (0, 1_000):
            stream = await http2.start("POST", ECHO)
            if size_bytes:
                await stream.send(spread(size_bytes))
            await stream.send_trailers([("x-checksum", "1234")])
            answer = await stream.response()
            assert (answer.status, answer.body) == (200, spread(size_bytes))


async def gateway_with(
    stack: Stack, combination: tuple[BodyMode, BodyMode, TrailerMode, TrailerMode]
) -> Gateway:
    request_body, response_body, request_trailers, response_trailers = combination
    return await stack.gateway(
        request_body_mode=request_body,
        response_body_mode=response_body,
        request_trailer_mode=request_trailers,
        response_trailer_mode=response_trailers,
    )


@pytest.mark.parametrize("mode", BODY_MODES)
async def test_queued_requests_go_in_every_mode(inside: Stack, mode: BodyMode) -> None:
    """A queued request waits and goes in each mode, with its destination told in time."""
    gateway = await inside.gateway(request_body_mode=mode)
    leases = inside.occupy()
    async with Http1(gateway.port) as http1, Http2(gateway.port) as http2:
        first = asyncio.create_task(http1.post(ECHO, spread(62_001)))
        await inside.queued(1)
        second = asyncio.create_task(http2.post(ECHO, spread(5)))
        await inside.queued(2)
        inside.give_back(leases)
        assert (await first).body == spread(62_001)
        assert (await second).body == spread(5)
        assert int((await first).headers["x-queue-wait-ms"]) > 0
    metrics = await inside.metrics()
    assert metrics.outcomes().keys() <= {"dispatched", "cancelled"}


async def test_a_body_that_is_buffered_in_part_is_judged_by_that_part(fast: Stack) -> None:
    """More than Envoy buffers: the first part decides, the rest follows it unseen."""
    gateway = await fast.gateway(request_body_mode="BUFFERED_PARTIAL")
    body = spread(5_000_000)
    async with Http1(gateway.port) as http1:
        answer = await http1.post(ECHO, body)
    assert answer.status == 200
    assert answer.body == body, "the bytes differ"


async def test_a_queued_request_in_full_duplex_outlives_the_message_timeout(inside: Stack) -> None:
    """Trap: in full duplex the header reply may wait, and ``message_timeout`` does not cut it."""
    gateway = await inside.gateway(message_timeout_s=0.2)
    await waits_long_and_goes(inside, gateway, "FULL_DUPLEX_STREAMED")


@pytest.mark.parametrize("mode", ["NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL"])
async def test_a_queued_request_extends_the_message_timeout(inside: Stack, mode: BodyMode) -> None:
    """Trap: in other modes it does, and ``override_message_timeout`` extends it, where it may."""
    gateway = await inside.gateway(
        request_body_mode=mode, message_timeout_s=0.2, max_message_timeout_s=3600.0
    )
    await waits_long_and_goes(inside, gateway, mode)


async def waits_long_and_goes(stack: Stack, gateway: Gateway, mode: str) -> None:
    """Let a request wait three times as long as the message timeout."""
    leases = stack.occupy()
    async with Http1(gateway.port) as http1:
        task = asyncio.create_task(http1.post("/v1/completions", completion()))
        await stack.queued(1)
        await asyncio.sleep(0.6)
        assert (await stack.metrics()).queued() == 1, mode
        stack.give_back(leases)
        answer = await task
    assert answer.status == 200
    assert int(answer.headers["x-queue-wait-ms"]) >= 500
