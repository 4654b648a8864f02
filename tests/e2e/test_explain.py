"""``epp explain-pick`` tells where the next request goes, and the next request goes there."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from epp.observability.explain import PickAnswer

from .http1 import Http1
from .stack import Stack
from .support import chat
from .test_routing import CHAT, SESSIONS, TOKEN, caching_server, routing_stack

NAMES = ("one", "two", "three")


async def explain(stack: Stack, file: Path, *more: str) -> str:
    """Return what the command says of the body in a file, asked where the metrics are."""
    server = f"http://127.0.0.1:{stack.process.metrics_port}"
    command = ("-m", "epp", "explain-pick", "--server", server, str(file), *more)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaint = await process.communicate()
    assert (process.returncode, complaint) == (0, b"")
    return said.decode()


async def explained(stack: Stack, file: Path, *more: str) -> PickAnswer:
    return msgspec.json.decode(await explain(stack, file, "--json", *more), type=PickAnswer)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_one_that_has_the_prompt_is_told_and_taken(
    tmp_path: Path, exits: AsyncExitStack, workers: str
) -> None:
    """For each of several prompts, and asking changes nothing."""
    servers = [caching_server(name) for name in NAMES]
    texts = [f"{topic}: " + f"more about {topic}. " * 300 for topic in "abc"]
    file = tmp_path / "request.json"
    async with routing_stack(tmp_path, servers, "", "--workers", workers) as stack:
        gateway = await stack.gateway()
        http1 = await exits.enter_async_context(Http1(gateway.port))
        for text in texts:
            served = (await http1.post(CHAT, chat(text, 1))).headers["x-served-by"]
            body = chat(text + "And then?", 1)
            file.write_bytes(body)
            await stack.at_rest()
            before = await counted(stack)
            answer = await explained(stack, file)
            assert await counted(stack) == before

            first = answer.candidates[0]
            assert first.destination == stack.destination(NAMES.index(served))
            assert [each.fate for each in answer.candidates] == ["picked", *["outscored"] * 2]
            uncached = [each.scores[0].parts["uncached"] for each in answer.candidates]
            assert uncached[0] < 0.2 * answer.prompt_tokens < answer.prompt_tokens <= uncached[1]
            assert f"{first.endpoint} is picked: it scores " in answer.verdict
            assert (await http1.post(CHAT, body)).headers["x-served-by"] == served


async def test_the_table_is_for_people(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(chat("hello", model="adapter"))
    async with routing_stack(tmp_path, [caching_server(name) for name in NAMES]) as stack:
        said = await explain(stack, file)
        destinations = map(stack.destination, range(3))
    request, pool, profile, verdict, *_ = said.splitlines()
    assert request.startswith("request: model adapter, about ")
    assert pool == "pool: default/pool"
    assert (profile, " is picked" in verdict) == ("profile: default, max-score-picker", True)
    assert all(said.count(destination) == 1 for destination in destinations)


async def counted(stack: Stack) -> list[float]:
    """Return what requests have been counted, in several ways."""
    page = await stack.metrics()
    names = ("request_total", "prefix_indexer_looked_up_blocks_total", "prefix_indexer_size")
    return [page.sum(name) for name in names]


async def test_a_header_of_the_request_counts(tmp_path: Path, exits: AsyncExitStack) -> None:
    servers = [caching_server(name) for name in NAMES]
    file = tmp_path / "request.json"
    file.write_bytes(chat())
    async with routing_stack(tmp_path, servers, SESSIONS) as stack:
        http1 = await exits.enter_async_context(Http1((await stack.gateway()).port))
        session = (await http1.post(CHAT, chat())).headers
        answer = await explained(stack, file, "-H", f"{TOKEN}: {session[TOKEN]}")
    first, *others = answer.candidates
    assert first.destination == stack.destination(NAMES.index(session["x-served-by"]))
    assert answer.verdict == f"{first.endpoint} is picked: it is the only one left."
    assert {(each.fate, each.by) for each in others} == {("filtered", "session-affinity-filter")}
