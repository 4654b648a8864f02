"""Requests that nobody should send: routed or answered, and the process lives."""

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from .http1 import Http1, chunked, request_head
from .stack import Gateway, Stack
from .support import chat, completion

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
NOT_UTF8 = b"\xff\xfe\x80caf\xe9"
LONG = b"x" * 65_536


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(own: Stack) -> AsyncIterator[Gateway]:
    """The gateway, before an EPP that must be the same process afterwards, in good health."""
    gateway = await own.gateway(response_body_mode="FULL_DUPLEX_STREAMED")
    pid = own.process.process.pid
    yield gateway
    async with Http1(gateway.port) as http1:
        answer = await http1.post(COMPLETIONS, completion())
    assert answer.status == 200
    assert "x-queue-wait-ms" in answer.headers
    assert (own.process.process.pid, own.process.process.exit.done()) == (pid, False)


def assert_bad_request(status: int, body: bytes) -> None:
    """The error body is OpenAI's."""
    assert status == 400
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert isinstance(error["message"], str)
    assert {"code", "param"} <= error.keys()


def nested(depth: int) -> bytes:
    return b'{"model": "m", "x": ' + b"[" * depth + b"]" * depth + b"}"


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        pytest.param(b"{", False, id="cut off"),
        pytest.param(b'{"model": "m", "prompt": "x",}', False, id="malformed"),
        pytest.param(b"hello", False, id="no JSON"),
        pytest.param(b"\x00\xff\xfe" * 100, False, id="binary"),
        pytest.param(b'{"model": "\xff", "prompt": "x"}', False, id="no UTF-8"),
        pytest.param(b"[]", False, id="a list"),
        pytest.param(b"null", False, id="null"),
        pytest.param(b'{"model": 7, "prompt": "x"}', False, id="model a number"),
        pytest.param(b'{"model": null, "prompt": "x"}', False, id="model null"),
        pytest.param(b'{"model": ["m"], "prompt": "x"}', False, id="model a list"),
        pytest.param(b'{"prompt": "x"}', False, id="no model"),
        pytest.param(nested(100), False, id="100 deep"),
        pytest.param(nested(100_000), False, id="100,000 deep"),
        pytest.param(b'{"model": "m", "prompt": "x", "max_tokens": -1}', False, id="negative"),
        pytest.param(b'{"model": "m", "prompt": "x", "max_tokens": 1e999}', False, id="infinite"),
        pytest.param(b'{"model": "a", "model": "m", "prompt": "x"}', True, id="model twice"),
        pytest.param(b'\xef\xbb\xbf{"model": "m", "prompt": "x"}', False, id="byte order mark"),
        pytest.param(
            completion()[:-1] + b', "x": ' + b"[" * 100 + b"]" * 100 + b"}", True, id="right, deep"
        ),
        pytest.param(completion(model="m" * 100_000), True, id="long model"),
        pytest.param(completion(model='\u202e\x00\n"}\\'), True, id="strange model"),
        pytest.param(completion(model=""), True, id="empty model"),
    ],
)
async def test_a_body_is_routed_or_answered_with_400(
    gateway: Gateway, body: bytes, is_right: bool
) -> None:
    async with Http1(gateway.port) as http1:
        answer = await http1.post(COMPLETIONS, body)
        if is_right:
            assert answer.status == 200
            assert json.loads(answer.body)["object"] == "text_completion"
        else:
            assert_bad_request(answer.status, answer.body)
        answer = await http1.post(COMPLETIONS, body, [("content-encoding", "gzip")])
        assert_bad_request(answer.status, answer.body)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("x-long", LONG)], id="64 KB"),
        pytest.param([("x-llm-d-inference-objective", LONG)], id="64 KB objective"),
        pytest.param([("x-llm-d-inference-fairness-id", LONG)], id="64 KB fairness id"),
        pytest.param([("x-request-id", LONG)], id="64 KB request id"),
        pytest.param([("x-strange", NOT_UTF8)], id="no UTF-8"),
        pytest.param([("x-llm-d-inference-objective", NOT_UTF8)], id="objective no UTF-8"),
        pytest.param([("x-llm-d-inference-fairness-id", NOT_UTF8)], id="fairness id no UTF-8"),
        pytest.param([("x-request-id", NOT_UTF8)], id="request id no UTF-8"),
        pytest.param([("content-type", NOT_UTF8)], id="content type no UTF-8"),
        pytest.param([("content-type", "text/plain")], id="content type of something else"),
        pytest.param([("x-gateway-request-ttl-ms", "soon")], id="TTL no number"),
        pytest.param([("x-gateway-request-ttl-ms", "-1")], id="TTL negative"),
        pytest.param([("x-gateway-request-ttl-ms", "nan")], id="TTL not a number"),
        pytest.param([("x-gateway-request-ttl-ms", "1e400")], id="TTL infinite"),
        pytest.param([("x-gateway-request-ttl-ms", NOT_UTF8)], id="TTL no UTF-8"),
        pytest.param([("x-many", "y")] * 60, id="many of one name"),
        pytest.param([("x-empty", "")], id="empty"),
        pytest.param([("x-request-id", "a"), ("x-request-id", "b")], id="two request ids"),
        pytest.param([("x-llm-d-inference-objective", "no-such")], id="unknown objective"),
    ],
)
async def test_a_request_with_hostile_headers_is_routed(
    gateway: Gateway, headers: list[tuple[str, str | bytes]]
) -> None:
    async with Http1(gateway.port) as http1:
        for method, path, body in (("POST", CHAT, chat()), ("GET", "/v1/models", None)):
            answer = await http1.request(method, path, headers, body)
            assert answer.status == 200, answer
            assert answer.headers["x-served-by"] == "fast"


async def test_hostile_header_values_arrive_as_they_were_sent(gateway: Gateway, own: Stack) -> None:
    """Trap: header values come in ``raw_value`` or ``value``, several of a name are all kept."""
    request_id = str(uuid4())
    async with Http1(gateway.port) as http1:
        headers = [("x-request-id", request_id), ("x-raw", NOT_UTF8), ("x-raw", b"second")]
        assert (await http1.post(CHAT, chat(), headers)).status == 200
    (record,) = (r for r in own.servers[0].state().requests if r.request_id == request_id)
    values = [value.encode("latin-1") for name, value in record.headers if name == "x-raw"]
    assert values in ([NOT_UTF8, b"second"], [NOT_UTF8 + b",second"])


async def test_a_hundred_requests_with_one_request_id(stack: Stack) -> None:
    """Nothing is keyed by what a client chooses: each of them is a request of its own."""
    gateway = await stack.gateway()
    before = (await stack.metrics()).outcomes().get("dispatched", 0)

    async def call(number: int) -> bytes:
        async with Http1(gateway.port) as http1:
            headers = [("x-request-id", "the-same")]
            answer = await http1.post("/debug/echo", b"body %d" % number, headers)
        assert answer.status == 200
        return answer.body

    bodies = await asyncio.gather(*map(call, range(100)))
    assert bodies == [b"body %d" % number for number in range(100)]
    await stack.at_rest()
    assert (await stack.metrics()).outcomes()["dispatched"] == before + 100


NONSENSE = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\nhello",
    "two lengths": b"POST / HTTP/1.1\r\nhost: a\r\n"
    b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "bad chunk": b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    "NUL": request_head("GET", "/", [("x-null", b"a\x00b")]),
    "200 KB": request_head("GET", "/", [("x-too-long", b"x" * 200_000)]),
}


async def test_what_is_no_http_is_turned_away_by_the_gateway(gateway: Gateway) -> None:
    async def say(nonsense: bytes) -> bytes:
        async with Http1(gateway.port) as http1:
            await http1.send(nonsense)
            return await http1.first_bytes()

    for answer in await asyncio.gather(*map(say, NONSENSE.values())):
        assert not answer or answer.split(b" ")[1][:1] == b"4"


async def test_a_path_that_no_server_has_is_routed_too(gateway: Gateway) -> None:
    async with Http1(gateway.port) as http1:
        for path in ("/v1/no-such", "/", "/v1/completions/%2e%2e/x", "/" + "a" * 10_000):
            answer = await http1.post(path, completion())
            assert answer.status == 404
            assert "error" in json.loads(answer.body)


async def test_a_body_in_one_byte_chunks(gateway: Gateway) -> None:
    body = chat()
    async with Http1(gateway.port) as http1:
        await http1.send(request_head("POST", CHAT, [("transfer-encoding", "chunked")]))
        await http1.send(chunked(body[i : i + 1] for i in range(len(body))))
        assert (await http1.response()).status == 200
