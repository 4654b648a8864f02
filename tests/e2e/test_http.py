"""What HTTP has to offer beside plain requests: methods, encodings, trailers, upgrades."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import aiohttp
import brotli
import pytest
import pytest_asyncio
import zstandard
from aiohttp import web

from epp.gateway.options import BodyMode
from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1, chunked, request_head
from .http2 import Http2
from .stack import Stack
from .support import chat, completion, eventually, spread

ECHO = "/debug/echo"
CHAT = "/v1/chat/completions"
CHUNKED = ("transfer-encoding", "chunked")
both_modes = pytest.mark.parametrize("mode", ["NONE", "FULL_DUPLEX_STREAMED"])


async def right_answer(stack: Stack, reference: ModelServer, path: str, body: bytes) -> bytes:
    async with stack.client.post(reference.url + path, data=body) as response:
        assert response.status == 200
        return await response.read()


# Encodings


@both_modes
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
async def test_an_encoded_body_is_read_and_forwarded_as_it_is(
    fast: Stack,
    reference: ModelServer,
    mode: BodyMode,
    encoding: str,
    encode: Callable[[bytes], bytes],
) -> None:
    """Trap: a bounded copy is decompressed for the look, the original goes on."""
    gateway = await fast.gateway(response_body_mode=mode)
    model = f"{encoding}-{mode}"
    plain = chat("hello " * 1_000, model=model)
    encoded = encode(plain)
    assert len(encoded) < len(plain)
    async with Http1(gateway.port) as http1:
        headers = [("content-encoding", encoding)]
        answer = await http1.post(CHAT, encoded, headers)
        assert answer.body == await right_answer(fast, reference, CHAT, plain)
        assert (await http1.post(ECHO, encoded, headers)).body == encoded
    metrics = await fast.metrics()
    assert metrics.sum("request_total", model_name=model) == 2


async def test_a_bomb_is_not_unpacked_but_routed(fast: Stack) -> None:
    """Trap: what is larger than the bound when it is decompressed is not looked at."""
    gateway = await fast.gateway(response_body_mode="NONE")
    bomb = gzip.compress(b'{"model": "bomb", "x": "' + bytes(200_000_000) + b'"}', 1)
    async with Http1(gateway.port) as http1:
        assert (await http1.post(ECHO, bomb, [("content-encoding", "gzip")])).body == bomb
    assert not (await fast.metrics()).series("request_total", model_name="bomb")


@both_modes
async def test_a_model_name_that_is_split_across_chunks_is_read(
    fast: Stack, mode: BodyMode
) -> None:
    """Trap: a model name can be split across chunks."""
    gateway = await fast.gateway(response_body_mode=mode)
    model = f"split-{mode}"
    body = completion(model=model)
    middle = body.index(model.encode()) + 3
    async with Http1(gateway.port) as http1:
        await http1.send(request_head("POST", ECHO, [CHUNKED]))
        await http1.send(b"%x\r\n%s\r\n" % (middle, body[:middle]))
        await eventually(lambda: has_streams(fast, 1))
        await http1.send(chunked([body[middle:]]))
        assert (await http1.response()).body == body
    assert (await fast.metrics()).sum("request_total", model_name=model) == 1


async def has_streams(stack: Stack, number: int) -> bool:
    return (await stack.metrics()).sum("extproc_streams_inflight") == number


# Trailers


@both_modes
@pytest.mark.parametrize("size_bytes", [0, 1, 62_001, 1_000_000])
async def test_request_trailers_end_the_body_over_http2(
    fast: Stack, mode: BodyMode, size_bytes: int
) -> None:
    """Trap: a request with trailers has no end_of_stream on its last body chunk."""
    gateway = await fast.gateway(response_body_mode=mode, retries=False)
    async with Http2(gateway.port) as http2:
        stream = await http2.start("POST", ECHO)
        await stream.send(spread(size_bytes))
        await stream.send_trailers([("x-checksum", "1234")])
        answer = await stream.response()
    assert answer.status == 200
    assert answer.body == spread(size_bytes), "the bytes differ"


async def test_envoy_doubles_the_body_of_a_request_with_trailers_that_it_may_retry(
    fast: Stack,
) -> None:
    """A bug of Envoy (its issue 45470), seen with 1.40: nothing that the EPP says avoids it.

    In full duplex mode the router keeps what the EPP sends back for a retry, in the buffer of the
    whole filter chain. A request without trailers ends with its last piece of body. With trailers
    the filter chain has to be continued once more after it, and that sends the buffer again. So
    request trailers and a retry policy must not meet, until Envoy is repaired: then this fails.
    """
    gateway = await fast.gateway(response_body_mode="NONE")
    async with Http2(gateway.port) as http2:
        stream = await http2.start("POST", ECHO)
        await stream.send(b"hello")
        await stream.send_trailers([("x-checksum", "1234")])
        assert (await stream.response()).body == b"hellohello"


@both_modes
async def test_request_trailers_of_http1_do_no_harm(fast: Stack, mode: BodyMode) -> None:
    gateway = await fast.gateway(response_body_mode=mode)
    async with Http1(gateway.port) as http1:
        await http1.send(request_head("POST", ECHO, [CHUNKED, ("trailer", "x-checksum")]))
        await http1.send(chunked([b"hello"], trailers=[("x-checksum", "1234")]))
        assert (await http1.response()).body == b"hello"


async def test_a_queued_request_with_trailers_goes_when_it_is_its_turn(inside: Stack) -> None:
    gateway = await inside.gateway(response_body_mode="NONE", retries=False)
    leases = inside.occupy()
    async with Http2(gateway.port) as http2:
        stream = await http2.start("POST", ECHO)
        await stream.send(b"hello")
        await stream.send_trailers([("x-checksum", "1234")])
        await inside.queued(1)
        inside.give_back(leases)
        assert (await stream.response()).body == b"hello"


# Methods that have no body


@both_modes
@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", []), ("HEAD", []), ("POST", [("content-length", "0")]), ("DELETE", [])],
)
async def test_a_request_without_a_body_never_waits(
    inside: Stack, mode: BodyMode, method: str, headers: list[tuple[str, str]]
) -> None:
    """Trap: HEAD, GET and bodies of length 0 are answered at once, whatever is queued."""
    gateway = await inside.gateway(response_body_mode=mode)
    leases = inside.occupy()
    path = {"POST": ECHO, "DELETE": "/debug/faults"}.get(method, "/v1/models")
    async with Http1(gateway.port) as waits, Http1(gateway.port) as http1:
        waiting = asyncio.create_task(waits.post(ECHO, b"waits"))
        await inside.queued(1)
        await http1.send(request_head(method, path, headers))
        answer = await http1.response(has_body=method not in ("HEAD", "DELETE"))
        assert answer.status == (204 if method == "DELETE" else 200)
        assert not waiting.done()
        inside.give_back(leases)
        assert (await waiting).body == b"waits"


@both_modes
async def test_get_and_head_are_answered_as_the_server_does(
    fast: Stack, reference: ModelServer, mode: BodyMode
) -> None:
    gateway = await fast.gateway(response_body_mode=mode)
    async with fast.client.get(reference.url + "/v1/models") as response:
        models = await response.read()
    async with Http1(gateway.port) as http1:
        for _ in range(2):
            await http1.send(request_head("GET", "/v1/models"))
            assert (await http1.response()).body == models
            await http1.send(request_head("HEAD", "/v1/models"))
            head = await http1.response(has_body=False)
            # Envoy takes Content-Length away where the EPP could change the body.
            lengths = {str(len(models))} | ({None} if mode != "NONE" else set())
            assert head.headers.get("content-length") in lengths
    async with Http2(gateway.port) as http2:
        for method, body in (("GET", models), ("HEAD", b"")):
            stream = await http2.start(method, "/v1/models", end_stream=True)
            assert (await stream.response()).body == body


@both_modes
async def test_expect_100_continue(fast: Stack, mode: BodyMode) -> None:
    gateway = await fast.gateway(response_body_mode=mode)
    async with Http1(gateway.port) as http1:
        for body in (spread(100_000), b"x"):
            headers = [("content-length", str(len(body))), ("expect", "100-continue")]
            await http1.send(request_head("POST", ECHO, headers))
            assert (await http1.head()).status == 100
            await http1.send(body)
            answer = await http1.response()
            assert (answer.status, answer.body) == (200, body)


# Upgrades


@pytest_asyncio.fixture(loop_scope="session")
async def chatter() -> AsyncIterator[str]:
    """A server that speaks WebSocket only; its ``ip:port``."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        talk_socket = web.WebSocketResponse()
        await talk_socket.prepare(request)
        async for message in talk_socket:
            await talk_socket.send_bytes(message.data)
        return talk_socket

    application = web.Application()
    application.router.add_get("/ws", talk)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_an_upgrade_is_answered_at_once_and_holds_its_lease(
    start_stack: StartStack, chatter: str
) -> None:
    """Trap: with ``Upgrade`` the headers are answered at once; no body would ever end."""
    stack = await start_stack([], more_endpoints=[chatter])
    for mode in ("NONE", "FULL_DUPLEX_STREAMED"):
        gateway = await stack.gateway(response_body_mode=mode)
        async with stack.client.ws_connect(gateway.url + "/ws", max_msg_size=0) as talk:
            for message in (b"hello", spread(200_000), b""):
                await talk.send_bytes(message)
                assert await talk.receive_bytes(timeout=10) == message
            assert (await stack.metrics()).leases() == {chatter: 1}
        await stack.at_rest()


@both_modes
async def test_an_upgrade_that_the_server_declines(fast: Stack, mode: BodyMode) -> None:
    gateway = await fast.gateway(response_body_mode=mode)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await fast.client.ws_connect(gateway.url + f"/no-such-page/{uuid4()}")
    assert caught.value.status == 404


# What is only for one side


async def test_content_length_is_never_wrong(fast: Stack) -> None:
    """Trap: Envoy removes Content-Length in streamed modes, and nobody sets a wrong one."""
    gateway = await fast.gateway(response_body_mode="FULL_DUPLEX_STREAMED")
    async with Http1(gateway.port) as http1:
        answer = await http1.post(ECHO, spread(5_000), [("x-request-id", "length-check")])
        assert answer.headers.get("content-length", "5000") == "5000"
    (record,) = (r for r in fast.servers[0].state().requests if r.request_id == "length-check")
    headers = dict(record.headers)
    assert headers.get("content-length", "5000") == "5000"
    assert ("content-length" in headers) != ("transfer-encoding" in headers)
