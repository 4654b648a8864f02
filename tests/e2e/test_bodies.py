"""Bodies of all sizes and framings, both ways, byte for byte."""

from collections.abc import Awaitable, Callable

import pytest

from epp.core.replies import MAX_BODY_REPLY_BYTES
from epp.gateway.options import BodyMode
from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1, Response, chunked, request_head
from .http2 import Http2
from .stack import Gateway, Stack, model_server
from .support import chat, spread

ECHO = "/debug/echo"
MODES = ("NONE", "FULL_DUPLEX_STREAMED")
SIZES = (0, 1, 62_000, 62_001, 1_000_000, 20_000_000)

assert MAX_BODY_REPLY_BYTES == 62_000, "the sizes are chosen around it"


async def with_content_length(gateway: Gateway, path: str, body: bytes) -> Response:
    async with Http1(gateway.port) as http1:
        return await http1.post(path, body)


async def in_chunks(gateway: Gateway, path: str, body: bytes) -> Response:
    """Send with chunks of a size that has nothing to do with anybody's buffers."""
    pieces = [body[start : start + 50_021] for start in range(0, len(body), 50_021)]
    async with Http1(gateway.port) as http1:
        await http1.send(request_head("POST", path, [("transfer-encoding", "chunked")]))
        await http1.send(chunked(pieces))
        return await http1.response()


async def over_http2(gateway: Gateway, path: str, body: bytes) -> Response:
    async with Http2(gateway.port) as http2:
        return await http2.post(path, body)


async def over_http2_with_content_length(gateway: Gateway, path: str, body: bytes) -> Response:
    async with Http2(gateway.port) as http2:
        return await http2.post(path, body, [("content-length", str(len(body)))])


Send = Callable[[Gateway, str, bytes], Awaitable[Response]]
SENDS = (with_content_length, in_chunks, over_http2, over_http2_with_content_length)


@pytest.mark.parametrize(
    ("send", "size_bytes"),
    [
        (send, size_bytes)
        for size_bytes in SIZES
        # HTTP/2 has one framing: the header makes no difference to how a large body is handled.
        for send in (SENDS if size_bytes < 1_000_000 else SENDS[:3])
    ],
)
@pytest.mark.parametrize("mode", MODES)
async def test_a_body_comes_back_as_it_went(
    fast: Stack, mode: BodyMode, size_bytes: int, send: Send
) -> None:
    gateway = await fast.gateway(response_body_mode=mode)
    body = spread(size_bytes)
    answer = await send(gateway, ECHO, body)
    assert answer.status == 200
    assert answer.headers["x-echo-bytes"] == str(size_bytes)
    assert answer.body == body, "the bytes differ"


@pytest.mark.parametrize("mode", MODES)
async def test_requests_on_one_connection_have_a_stream_each(fast: Stack, mode: BodyMode) -> None:
    """Duty: ``ExternalProcessor/Process``, one stream per HTTP request."""
    gateway = await fast.gateway(response_body_mode=mode)
    streams = "http.gateway.ext_proc.streams_started"
    before = await gateway.stat(streams)
    async with Http1(gateway.port) as http1:
        for size_bytes in (1, 0, 200_000, 62_001, 0, 1):
            answer = await http1.post(ECHO, spread(size_bytes))
            assert answer.body == spread(size_bytes)
    assert await gateway.stat(streams) == before + 6
    assert await gateway.stat("http.gateway.ext_proc.streams_failed") == 0
    assert await gateway.stat("http.gateway.ext_proc.spurious_msgs_received") == 0


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("mode", MODES)
async def test_two_thousand_events_arrive_as_they_were_sent(
    fast: Stack, reference: ModelServer, mode: BodyMode, send: Send
) -> None:
    gateway = await fast.gateway(response_body_mode=mode)
    body = chat("count", 2_000, stream=True)
    path = "/v1/chat/completions"
    answer = await send(gateway, path, body)
    async with fast.client.post(reference.url + path, data=body) as response:
        assert answer.body == await response.read()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body.count(b"data: ") == 1 + 2_000 + 1


@pytest.mark.parametrize("mode", MODES)
async def test_events_are_passed_on_at_once(stack: Stack, mode: BodyMode) -> None:
    """The first event is there long before the last one is made."""
    gateway = await stack.gateway(response_body_mode=mode)
    async with Http1(gateway.port) as http1:
        body = chat("go on", 10_000, stream=True)
        await http1.send(
            request_head("POST", "/v1/chat/completions", [("content-length", str(len(body)))])
        )
        await http1.send(body)
        head = await http1.head()
        assert head.status == 200
        for _ in range(5):
            assert (await http1.chunk()).startswith(b"data: ")


async def test_a_body_above_the_limit_is_refused_and_a_smaller_one_goes(
    start_stack: StartStack,
) -> None:
    stack = await start_stack([model_server("one")], arguments=["--max-body-bytes", "100000"])
    for mode in MODES:
        gateway = await stack.gateway(response_body_mode=mode)
        async with Http1(gateway.port) as http1:
            assert (await http1.post(ECHO, spread(100_000))).body == spread(100_000)
        async with Http2(gateway.port) as http2:
            refused = await http2.post(ECHO, spread(100_001))
        assert refused.status == 413
        assert b"100000 bytes" in refused.body
    assert (await stack.metrics()).sum("request_refused_early_total", reason="too-large") == 2
    await stack.at_rest()
