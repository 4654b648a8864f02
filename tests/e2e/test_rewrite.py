"""Rewritten models through a real Envoy: the server sees the target, the client its own name."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from epp.gateway.options import BodyMode

from .conftest import logged_stack
from .http1 import Http1, chunked, request_head
from .stack import Gateway, Stack, model_server
from .support import chat, spread

CHAT = "/v1/chat/completions"
ECHO = "/debug/echo"
DUPLEX = "FULL_DUPLEX_STREAMED"
SEEN_MODES = (DUPLEX, "BUFFERED", "BUFFERED_PARTIAL")
RESTORED_MODES = (DUPLEX, "STREAMED", "BUFFERED", "BUFFERED_PARTIAL")
REWRITES = """\
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: canary}
spec:
  poolRef: {name: pool}
  rules:
  - matches: [{model: {value: alias}}]
    targets: [{modelRewrite: the/target}]
  - matches: [{model: {value: split}}]
    targets: [{modelRewrite: blue, weight: 50}, {modelRewrite: green, weight: 50}]
"""


@asynccontextmanager
async def rewriting_stack(
    tmp_path_factory: pytest.TempPathFactory, *arguments: str, more_endpoints: Sequence[str] = ()
) -> AsyncIterator[Stack]:
    """Start a stack whose servers know the targets, and not the names that clients use."""
    server = model_server("fast", step_s=0.0002, models=("the/target", "blue", "green", "plain"))
    directory = tmp_path_factory.mktemp("rewrite")
    servers = [] if more_endpoints else [server]
    async with logged_stack(
        directory, servers, arguments=arguments, more_endpoints=more_endpoints
    ) as stack:
        stack.manifests.write("rewrites.yaml", REWRITES)
        await stack.reloaded(2)
        yield stack
        await stack.at_rest()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with rewriting_stack(tmp_path_factory) as stack:
        yield stack


async def gateway_of(stack: Stack, request_mode: str, response_mode: str) -> Gateway:
    trailers = "SEND" if DUPLEX in (request_mode, response_mode) else "SKIP"
    return await stack.gateway(
        request_body_mode=request_mode,
        response_body_mode=response_mode,
        request_trailer_mode=trailers,
        response_trailer_mode=trailers,
    )


async def right_answer(stack: Stack, body: bytes, client: str = "alias") -> bytes:
    """Return what the server says when it is asked for the target, with the client's name."""
    url = f"http://{stack.destination(0)}{CHAT}"
    asked = body.replace(json.dumps(client).encode(), b'"the/target"', 1)
    async with stack.client.post(url, data=asked) as response:
        assert response.status == 200
        return (await response.read()).replace(b'"the/target"', json.dumps(client).encode())


@pytest.mark.parametrize("response_mode", RESTORED_MODES)
@pytest.mark.parametrize("request_mode", SEEN_MODES)
async def test_the_server_sees_the_target_and_the_client_its_own_name(
    stack: Stack, request_mode: BodyMode, response_mode: BodyMode
) -> None:
    gateway = await gateway_of(stack, request_mode, response_mode)
    async with Http1(gateway.port) as http1:
        for stream in (False, True):
            body = chat("hello", 20, model="alias", stream=stream)
            answer = await http1.post(CHAT, body, [("accept-encoding", "gzip")])
            assert (answer.status, answer.body) == (200, await right_answer(stack, body))
            await http1.send(
                request_head("POST", CHAT, [("transfer-encoding", "chunked")])
                + chunked([body[:9], body[9:]])
            )
            answer = await http1.response()
            assert (answer.status, answer.body) == (200, await right_answer(stack, body))
        headers = dict(stack.servers[0].state().requests[-2].headers)
        assert headers["accept-encoding"] == "identity"


async def test_a_large_body_is_spliced_and_not_written_anew(stack: Stack) -> None:
    """The echo is not restored where its body does not pass the EPP: it shows what was sent."""
    gateway = await gateway_of(stack, DUPLEX, "NONE")
    body = b'{ "big":12345678901234567890.10, "model" : "al\\u0069as", "input":"%s" }'
    body %= spread(400_000).replace(b"\n", b" ")
    async with Http1(gateway.port) as http1:
        for sent, headers in (
            (body, []),
            (gzip.compress(body, 1), [("content-encoding", "gzip")]),
        ):
            answer = await http1.post(ECHO, sent, headers)
            assert answer.status == 200
            assert answer.body == body.replace(b'"al\\u0069as"', b'"the/target"'), "it differs"
    assert "content-encoding" not in dict(stack.servers[0].state().requests[-1].headers)


async def test_a_compressed_body_goes_on_plain_where_it_is_buffered(stack: Stack) -> None:
    gateway = await gateway_of(stack, "BUFFERED", "BUFFERED")
    body = chat("hello", 20, model="alias")
    async with Http1(gateway.port) as http1:
        headers = [("content-encoding", "gzip")]
        answer = await http1.post(CHAT, gzip.compress(body), headers)
    assert (answer.status, answer.body) == (200, await right_answer(stack, body))


async def model_of(
    http1: Http1, messages: list[object], headers: Sequence[tuple[str, str]] = ()
) -> str:
    """Return which model serves these messages, where the response is not restored."""
    body = {"model": "split", "max_tokens": 2, "messages": messages}
    answer = await http1.post(CHAT, json.dumps(body).encode(), headers)
    assert answer.status == 200
    return str(json.loads(answer.body)["model"])


async def models_of_a_conversation(http1: Http1, number: int) -> set[str]:
    """Return which models serve the turns of a conversation."""
    messages: list[object] = [{"role": "user", "content": f"question {number}"}]
    seen = set()
    for turn in range(3):
        seen.add(await model_of(http1, messages))
        messages += [
            {"role": "assistant", "content": "answer"},
            {"role": "user", "content": f"turn {turn}"},
        ]
    return seen


async def test_all_turns_of_a_conversation_go_to_the_same_model(stack: Stack) -> None:
    gateway = await gateway_of(stack, DUPLEX, "NONE")
    async with Http1(gateway.port) as http1:
        seen = [await models_of_a_conversation(http1, number) for number in range(16)]
        assert all(len(models) == 1 for models in seen)
        assert set().union(*seen) == {"blue", "green"}
        texts: list[list[object]] = [[{"role": "user", "content": text}] for text in "abcdefgh"]
        session = [("x-session-id", "s-1")]
        assert len({await model_of(http1, text, session) for text in texts}) == 1


@pytest.mark.parametrize("mode", ["STREAMED", "NONE"])
async def test_where_the_body_is_not_seen_the_clients_model_stays(stack: Stack, mode: str) -> None:
    gateway = await gateway_of(stack, mode, "NONE")
    before = (await stack.metrics()).sum("model_rewrites_skipped_total", reason="model-unknown")
    async with Http1(gateway.port) as http1:
        answer = await http1.post(CHAT, chat("hello", 4, model="plain"))
        assert (answer.status, json.loads(answer.body)["model"]) == (200, "plain")
        answer = await http1.post(CHAT, chat("hello", 4, model="alias"))
        assert answer.status == 404
    metrics = await stack.metrics()
    assert metrics.sum("model_rewrites_skipped_total", reason="model-unknown") == before + 2


async def test_rewrites_are_counted_by_target_and_so_is_what_keeps_its_name(stack: Stack) -> None:
    gateway = await gateway_of(stack, DUPLEX, "NONE")
    before = await stack.metrics()
    async with Http1(gateway.port) as http1:
        answer = await http1.post(CHAT, chat("hello", 4, model="alias"))
    assert json.loads(answer.body)["model"] == "the/target"
    after = await stack.metrics()
    for name, labels in (
        ("model_rewrites_total", {"target_model_name": "the/target"}),
        ("request_total", {"model_name": "alias", "target_model_name": "the/target"}),
        ("model_rewrites_skipped_total", {"reason": "response-not-seen"}),
    ):
        assert after.sum(name, **labels) == before.sum(name, **labels) + 1


async def test_a_change_of_the_rules_takes_effect(stack: Stack) -> None:
    gateway = await gateway_of(stack, DUPLEX, "NONE")
    reloads = int((await stack.metrics()).sum("resources_reload_total", result="applied"))
    stack.manifests.write("rewrites.yaml", REWRITES.replace("the/target", "green"))
    await stack.reloaded(reloads + 1)
    async with Http1(gateway.port) as http1:
        answer = await http1.post(CHAT, chat("hello", 4, model="alias"))
        assert json.loads(answer.body)["model"] == "green"
    stack.manifests.write("rewrites.yaml", REWRITES)
    await stack.reloaded(reloads + 2)


async def test_workers_rewrite_as_well(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with rewriting_stack(tmp_path_factory, "--workers", "2") as stack:
        gateway = await gateway_of(stack, DUPLEX, DUPLEX)
        async with Http1(gateway.port) as http1:
            body = chat("hello", 20, model="alias", stream=True)
            answer = await http1.post(CHAT, body)
            assert (answer.status, answer.body) == (200, await right_answer(stack, body))
        metrics = await stack.metrics()
        assert metrics.sum("model_rewrites_total", target_model_name="the/target") == 1
        gateway = await gateway_of(stack, DUPLEX, "NONE")
        for number in range(8):
            async with Http1(gateway.port) as http1:
                assert len(await models_of_a_conversation(http1, number)) == 1


class Torn:
    """A server that sends its answer in pieces of so many bytes, each for itself."""

    def __init__(self) -> None:
        self.destination = ""
        self.answer = b""
        self.encoding = "identity"

    async def __aenter__(self) -> "Torn":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address, port = self._server.sockets[0].getsockname()
        self.destination = f"{address}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
        writer.write(f"{head}content-encoding: {self.encoding}\r\n\r\n".encode())
        for start in range(0, len(self.answer), 3):
            await asyncio.sleep(0.001)  # so that it is a packet of its own, as far as it goes
            piece = self.answer[start : start + 3]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        writer.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def torn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stack, Torn]]:
    async with (
        Torn() as server,
        rewriting_stack(tmp_path_factory, more_endpoints=[server.destination]) as stack,
    ):
        yield stack, server


@pytest.mark.parametrize("mode", RESTORED_MODES)
async def test_a_name_that_is_torn_apart_is_found(torn: tuple[Stack, Torn], mode: BodyMode) -> None:
    stack, server = torn
    event = b'data: {"id":"1","model":"the\\/target","text":"\\"model\\":\\"the/target\\""}\n\n'
    server.answer, server.encoding = event * 5, "identity"
    gateway = await gateway_of(stack, DUPLEX, mode)
    async with Http1(gateway.port) as http1:
        answer = await http1.post(CHAT, chat(model="alias", stream=True))
    assert answer.status == 200
    assert answer.body == event.replace(b'"the\\/target"', b'"alias"', 1) * 5


async def test_an_answer_that_is_compressed_all_the_same_goes_on_as_it_is(
    torn: tuple[Stack, Torn],
) -> None:
    stack, server = torn
    server.answer, server.encoding = gzip.compress(b'{"model":"the/target"}'), "gzip"
    gateway = await gateway_of(stack, DUPLEX, DUPLEX)
    async with Http1(gateway.port) as http1:
        answer = await http1.post(CHAT, chat(model="alias"))
    assert (answer.status, answer.body) == (200, server.answer)
    metrics = await stack.metrics()
    assert metrics.sum("model_rewrites_skipped_total", reason="response-compressed") == 1
