import asyncio
import gzip
import json
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from epp.errors import UsageError
from epp.modelserver.engine import EngineOptions
from epp.modelserver.options import ModelServerOptions
from epp.modelserver.server import ModelServer

from .conftest import SLOW, Client, eventually

Start = Callable[..., Awaitable[Client]]


async def events(response: aiohttp.ClientResponse) -> list[str]:
    """Return the data of all server-sent events."""
    text = (await response.read()).decode()
    assert text.endswith("\n\n")
    return [event.removeprefix("data: ") for event in text[:-2].split("\n\n")]


async def test_a_completion(start: Start) -> None:
    client = await start(name="one")
    async with client.complete(max_tokens=5) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        assert response.headers["x-served-by"] == "one"
        answer = await response.json()
    (choice,) = answer["choices"]
    assert answer["object"] == "text_completion"
    assert answer["model"] == "m"
    assert len(choice["text"].split()) == 5
    assert choice["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}


async def test_a_chat(start: Start) -> None:
    client = await start()
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    async with client.post("/v1/chat/completions", body) as response:
        answer = await response.json()
    (choice,) = answer["choices"]
    assert answer["object"] == "chat.completion"
    assert choice["message"]["role"] == "assistant"
    assert len(choice["message"]["content"].split()) == 64
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == 4


async def test_a_streamed_completion_is_the_whole_one_in_pieces(start: Start) -> None:
    client = await start()
    async with client.complete(max_tokens=9) as response:
        whole = (await response.json())["choices"][0]["text"]
    async with client.complete(max_tokens=9, stream=True) as response:
        assert response.content_type == "text/event-stream"
        *chunks, done = await events(response)
    assert done == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert [len(choice["text"]) for choice in choices] == [4] * 9
    assert "".join(choice["text"] for choice in choices) == whole
    assert [choice["finish_reason"] for choice in choices] == [None] * 8 + ["length"]


async def test_a_streamed_chat_with_usage(start: Start) -> None:
    client = await start()
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_completion_tokens": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.post("/v1/chat/completions", body) as response:
        role, *chunks, usage, done = await events(response)
    assert json.loads(role)["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(chunks) == 3
    assert {json.loads(chunk)["object"] for chunk in chunks} == {"chat.completion.chunk"}
    last = json.loads(usage)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}
    assert done == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_two_servers_answer_the_same_bytes(start: Start, stream: bool) -> None:
    answers = set()
    for client in (await start(name="one"), await start(name="two", max_num_seqs=1)):
        for request_id in ("a", "b"):
            async with client.complete(stream=stream, x_request_id=request_id) as response:
                answers.add(await response.read())
    assert len(answers) == 1


async def test_a_stream_of_two_thousand_chunks(start: Start) -> None:
    client = await start()
    async with client.complete(max_tokens=2000, stream=True) as response:
        assert len(await events(response)) == 2001


async def test_the_headers_of_a_stream_come_at_once(start: Start) -> None:
    client = await start(SLOW)
    async with client.complete(stream=True) as response:
        assert response.status == 200
        assert client.server.state().in_flight == 1


async def test_the_headers_of_a_stream_come_with_the_first_token(start: Start) -> None:
    client = await start(SLOW, headers_with_first_token=True)
    asked = asyncio.ensure_future(client.complete(stream=True).__aenter__())
    await eventually(lambda: client.server.state().running == 1)
    # A later exchange of bytes is over: had the headers been sent, they would be here.
    await client.text("/health")
    assert not asked.done()
    asked.cancel()


async def test_with_a_token_the_held_back_headers_come(start: Start) -> None:
    client = await start(headers_with_first_token=True)
    async with client.complete(stream=True) as response:
        assert response.status == 200
        assert len(await events(response)) == 65


async def test_models(start: Start) -> None:
    client = await start(models=("base",), loras=("fine",))
    models = json.loads(await client.text("/v1/models"))
    assert [(model["id"], model["parent"]) for model in models["data"]] == [
        ("base", None),
        ("fine", "base"),
    ]
    async with client.complete(model="other") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"
    async with client.complete(model="fine") as response:
        assert (await response.json())["model"] == "fine"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/v1/nope", 404),
        ("GET", "/v1/completions", 405),
        ("HEAD", "/nope", 404),
        ("HEAD", "/v1/models", 200),
        ("HEAD", "/health", 200),
    ],
)
async def test_routes(start: Start, method: str, path: str, status: int) -> None:
    client = await start()
    async with client.session.request(method, client.server.url + path) as response:
        assert response.status == status
        assert response.headers["x-served-by"] == "modelserver"
        if status >= 400 and method != "HEAD":
            assert (await response.json())["error"]["type"] == "invalid_request_error"
        if status == 405:
            assert response.headers["allow"] == "POST"


async def test_bad_requests_get_an_error_object(start: Start) -> None:
    client = await start()
    for body in (b"{", b"", b'{"prompt":"x"}', b'{"model":1,"prompt":"x"}'):
        async with client.post("/v1/completions", body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["message"]
    assert client.server.state().failed == 4


async def test_too_large_a_body_is_refused(start: Start) -> None:
    client = await start(max_body_bytes=1000)
    async with client.post("/v1/completions", b"x" * 2000) as response:
        assert response.status == 413
        assert "Too Large" in (await response.json())["error"]["message"]


async def test_a_compressed_body_is_understood(start: Start) -> None:
    client = await start()
    body = json.dumps({"model": "m", "prompt": "Hello"}).encode()
    async with client.post("/v1/completions", body) as response:
        plain = await response.read()
    packed = gzip.compress(body)
    async with client.post("/v1/completions", packed, content_encoding="gzip") as response:
        assert await response.read() == plain
    for encoding in ("gzip", "br", "none-such"):
        async with client.post("/v1/completions", body, content_encoding=encoding) as response:
            assert response.status == 400
            assert "decompressed" in (await response.json())["error"]["message"]


@pytest.mark.parametrize("size", [0, 1, 62_000, 62_001, 1_000_000, 20_000_000])
async def test_echo_returns_the_very_bytes(start: Start, size: int) -> None:
    client = await start()
    body = bytes(range(256)) * (size // 256 + 1)
    async with client.post("/debug/echo", body[:size], content_type="x/y") as response:
        assert response.content_type == "x/y"
        assert response.headers["x-echo-bytes"] == str(size)
        assert await response.read() == body[:size]


async def test_echo_leaves_compressed_bytes_alone(start: Start) -> None:
    client = await start()
    body = gzip.compress(b"x" * 1000)
    async with client.post("/debug/echo", body, content_encoding="gzip") as response:
        assert await response.read() == body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_slot(start: Start, stream: bool) -> None:
    client = await start(SLOW, max_num_seqs=1)
    state = client.server.state
    asked = [
        asyncio.ensure_future(client.complete(stream=stream, x_request_id=name).__aenter__())
        for name in "abc"
    ]
    await eventually(lambda: (state().running, state().waiting) == (1, 2))
    await eventually(lambda: state().peak_in_flight == 3)
    assert state().in_flight == 3
    for done, task in enumerate(asked, start=1):
        if stream:
            (await task).close()
        else:
            task.cancel()
        await eventually(lambda done=done: state().aborted == done)
        assert state().in_flight == 3 - done
        assert state().running + state().waiting == 3 - done
    assert "aborted_requests_total" in (page := await client.text("/metrics"))
    assert 'aborted_requests_total{engine="0",model_name="simulated-model"} 3.0' in page
    assert state().finished_ids == []
    assert {record.outcome for record in state().requests} == {"aborted"}


async def test_a_client_that_leaves_in_the_middle_of_a_stream(start: Start) -> None:
    client = await start()
    async with client.complete(max_tokens=50_000, stream=True) as response:
        await response.content.readline()
        assert client.server.state().running == 1
        response.close()
    await eventually(lambda: client.server.state().running == 0)
    assert client.server.state().aborted == 1


async def test_the_state_tells_what_happened(start: Start) -> None:
    client = await start(max_num_seqs=1, name="one")
    for name in "ab":
        async with client.complete(x_request_id=name, x_hostile="\u00fc") as response:
            await response.read()
    state = json.loads(await client.text("/debug/state"))
    assert state["name"] == "one"
    assert (state["finished"], state["failed"], state["aborted"]) == (2, 0, 0)
    assert (state["running"], state["waiting"], state["in_flight"]) == (0, 0, 0)
    assert (state["peak_running"], state["peak_in_flight"]) == (1, 1)
    assert state["started_ids"] == state["finished_ids"] == ["a", "b"]
    first, second = state["requests"]
    assert (first["method"], first["path"]) == ("POST", "/v1/completions")
    assert (first["request_id"], second["request_id"]) == ("a", "b")
    assert first["outcome"] == "finished"
    assert ["x-hostile", "\u00c3\u00bc"] in first["headers"]


async def test_the_state_tells_of_the_caches(start: Start) -> None:
    """Two adapters take turns in the one slot; blocks of 16 tokens, all but the last are found."""
    client = await start(loras=("one", "two"), max_loras=1)
    for model in ("one", "one", "two", "one"):
        async with client.complete(model=model, prompt="x" * 160, max_tokens=1) as response:
            await response.read()
    state = client.server.state()
    assert (state.prefix_queried_tokens, state.prefix_hit_tokens) == (160, 64)
    assert state.adapter_loads == 3


async def test_long_headers_are_accepted_and_their_heads_kept(start: Start) -> None:
    client = await start()
    async with client.complete(x_long="y" * 65_536) as response:
        assert response.status == 200
    (record,) = client.server.state().requests
    assert dict(record.headers)["x-long"] == "y" * 4096


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"content-length: 5\r\n", b"bytes"),
        (b"transfer-encoding: chunked\r\n", b"2\r\nby\r\n3\r\ntes\r\n0\r\n\r\n"),
        (
            b"transfer-encoding: chunked\r\ntrailer: x-end\r\n",
            b"5\r\nbytes\r\n0\r\nx-end: 1\r\n\r\n",
        ),
        (b"content-length: 5\r\nx-odd: \xff\xfe\r\n", b"bytes"),
    ],
)
async def test_bodies_and_headers_as_a_proxy_may_send_them(
    start: Start, head: bytes, body: bytes
) -> None:
    client = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    # Twice on one connection: what is left over from the first would spoil the second.
    for _ in range(2):
        writer.write(b"POST /debug/echo HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n" + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(5) == b"bytes"
    writer.close()
    state = json.loads(await client.text("/debug/state"))
    assert state["finished"] == 2
    assert (["x-odd", "\u00ff\u00fe"] in state["requests"][0]["headers"]) == (b"x-odd" in head)


async def test_a_client_that_expects_to_be_asked_for_its_body(start: Start) -> None:
    client = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    head = (
        b"POST /debug/echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
    )
    writer.write(head)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"bytes")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_the_last_thousand_requests_are_kept(start: Start) -> None:
    client = await start()
    for number in range(1002):
        async with client.post("/debug/echo", b"", x_request_id=str(number)) as response:
            await response.read()
    state = client.server.state()
    assert state.finished == 1002
    assert [record.request_id for record in state.requests] == [str(n) for n in range(2, 1002)]


async def test_hundreds_of_streams_at_once(start: Start) -> None:
    client = await start(max_num_seqs=50)

    async def ask(number: int) -> str:
        async with client.complete(prompt=f"Number {number}", stream=True) as response:
            chunks = await events(response)
        return "".join(json.loads(chunk)["choices"][0]["text"] for chunk in chunks[:-1])

    texts = await asyncio.gather(*map(ask, range(300)))
    assert {len(text) for text in texts} == {256}
    state = client.server.state()
    assert state.finished == 300
    assert state.peak_running <= 50
    assert state.peak_in_flight <= 300


async def test_a_stopped_server_cuts_what_is_open() -> None:
    options = ModelServerOptions(port=0, engine=EngineOptions(latency=SLOW))
    async with aiohttp.ClientSession() as session:
        async with ModelServer(options) as server:
            asked = asyncio.ensure_future(Client(server, session).complete().__aenter__())
            await eventually(lambda: server.state().running == 1)
        with pytest.raises(aiohttp.ClientError):
            await asked


async def test_a_port_that_is_taken_is_a_usage_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127.0.0.1:{port}, .*: Address already in use"):
            await ModelServer(ModelServerOptions(port=port)).start()


def test_adapters_without_slots_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--max-loras is 0"):
        ModelServer(ModelServerOptions(loras=("a",), engine=EngineOptions(max_loras=0)))
