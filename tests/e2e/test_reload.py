"""A configuration file that changes while requests wait and run."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from .conftest import StartStack
from .http1 import Http1
from .stack import Stack, begin_stream, model_server
from .support import completion, eventually

_CONFIG = """\
plugins:
  - {{type: concurrency-detector, parameters: {{maxConcurrency: {limit}}}}}
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
  priorityBands: [{{priority: 10, requestTTL: {ttl}}}]
"""
_OBJECTIVE = "x-llm-d-inference-objective"


class _File:
    """The file, which is written as a whole, as tools do that know what they are about."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, text: str) -> None:
        scratch = self.path.with_suffix(".new")
        scratch.write_text(text)
        scratch.replace(self.path)

    def says(self, limit: int, ttl: str = "60s") -> None:
        self.write(_CONFIG.format(limit=limit, ttl=ttl))


@pytest.fixture
def file(tmp_path: Path) -> _File:
    file = _File(tmp_path / "picker.yaml")
    file.says(1)
    return file


@pytest_asyncio.fixture(loop_scope="session", params=[(), ("--workers", "2")], ids=["one", "two"])
async def stack(
    request: pytest.FixtureRequest, start_stack: StartStack, file: _File
) -> AsyncIterator[Stack]:
    arguments = ["--config-file", str(file.path), *request.param]
    yield await start_stack([model_server("only", 8)], arguments=arguments, max_concurrency=None)


async def _reloads(stack: Stack, applied: int, rejected: int = 0) -> None:
    async def are() -> None:
        page = await stack.metrics()
        found = [page.sum("config_reload_total", result=each) for each in ("applied", "rejected")]
        assert found == [applied, rejected]

    await eventually(are)


async def _limit(stack: Stack) -> float:
    return (await stack.metrics()).sum("endpoint_concurrency_limit")


async def test_a_new_limit_lets_go_what_waits_and_what_runs_runs_on(
    stack: Stack, file: _File, exits: AsyncExitStack
) -> None:
    gateway = await stack.gateway()
    await begin_stream(gateway, exits)
    async with asyncio.TaskGroup() as tasks:
        http1 = await exits.enter_async_context(Http1(gateway.port))
        waiting = tasks.create_task(http1.post("/v1/completions", completion()))
        await stack.queued(1)
        file.says(2)
        assert (await waiting).status == 200
    await _reloads(stack, 1)
    assert await _limit(stack) == 2
    assert (await stack.metrics()).outcomes() == {"dispatched": 2}
    await exits.aclose()
    await stack.at_rest()


async def test_what_is_wrong_is_refused_and_the_last_good_one_stays(
    stack: Stack, file: _File
) -> None:
    file.write("plugins: [{type: no-such-scorer}]")
    await _reloads(stack, 0, 1)
    assert await _limit(stack) == 1
    said = stack.process.log_path.read_text()
    assert "configuration rejected, the last good one stays: " in said
    assert f"{file.path}:1: plugins[0].type: found" in said
    file.says(3)
    await _reloads(stack, 1, 1)
    assert await _limit(stack) == 3


async def test_sighup_looks_at_once_and_says_so_if_nothing_has_changed(
    stack: Stack, file: _File
) -> None:
    stack.process.process.signal(signal.SIGHUP)
    await eventually(lambda: "configuration unchanged" in stack.process.log_path.read_text())
    file.says(4)
    stack.process.process.signal(signal.SIGHUP)
    await _reloads(stack, 1)
    assert await _limit(stack) == 4


async def test_a_shorter_wait_holds_for_who_waits_already(
    stack: Stack, file: _File, exits: AsyncExitStack
) -> None:
    gateway = await stack.gateway()
    await begin_stream(gateway, exits)
    async with asyncio.TaskGroup() as tasks:
        http1 = await exits.enter_async_context(Http1(gateway.port))
        headers = [(_OBJECTIVE, "interactive")]
        waiting = tasks.create_task(http1.post("/v1/completions", completion(), headers))
        await stack.queued(1)
        file.says(1, ttl="100ms")
        assert (await waiting).status == 429
    await exits.aclose()
    await stack.at_rest()
