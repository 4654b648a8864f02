"""What a configuration says of bands, flows and limits holds for real requests."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from .conftest import StartStack, logged_stack
from .http1 import Http1, Response
from .stack import Gateway, Stack, model_server
from .support import completion, eventually
from .test_priority import hold

CONFIG = """\
plugins:
  - {type: concurrency-detector, parameters: {maxConcurrency: 5}}
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
  maxRetryAfter: 1s
  priorityBands:
    - {priority: 10}
    - {priority: 5, orderingPolicyRef: edf-ordering-policy}
    - {priority: 3, requestTTL: 200ms}
    - {priority: -10, minShare: 0.2}
  fairness:
    weights: {gold: 3}
"""
OBJECTIVES = {"interactive": 10, "punctual": 5, "fleeting": 3, "batch": -10}
SLOTS = 2

COMPLETIONS = "/v1/completions"
OBJECTIVE = "x-llm-d-inference-objective"
FAIRNESS_ID = "x-llm-d-inference-fairness-id"
TTL = "x-gateway-request-ttl-ms"
URGENT = 20


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    directory = tmp_path_factory.mktemp("configured")
    path = directory / "picker.yaml"
    path.write_text(CONFIG)
    servers = [model_server("only", SLOTS)]
    async with logged_stack(directory, servers, arguments=["--config-file", str(path)]) as stack:
        stack.manifests.objectives(OBJECTIVES)
        await stack.reloaded(2)
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def configured(module_stack: Stack) -> AsyncIterator[Stack]:
    """One server with two slots and an EPP with the file, which every test must leave at rest."""
    yield module_stack
    await module_stack.at_rest()


_numbers = count()


class Caller:
    """Sends requests whose names tell what they were sent as."""

    def __init__(self, stack: Stack, gateway: Gateway, tasks: asyncio.TaskGroup) -> None:
        self._stack = stack
        self._gateway = gateway
        self._tasks = tasks
        self._prefix = f"c{next(_numbers)}-"
        self.answers: list[tuple[str, Response]] = []

    def send(
        self,
        kind: str,
        *headers: tuple[str, str],
        number: int = 1,
        tokens: int = 4,
        until: asyncio.Event | None = None,
    ) -> None:
        """Send so many requests at once, and go on; each again and again ``until`` this is set."""
        for _ in range(number):
            self._tasks.create_task(self._call(kind, headers, tokens, until))

    def started(self) -> list[str]:
        """Return the kinds of the requests that the servers started, in order by server."""
        ids = (each for server in self._stack.servers for each in server.state().started_ids)
        return [each.rsplit("-", 2)[1] for each in ids if each.startswith(self._prefix)]

    async def _call(
        self,
        kind: str,
        headers: Sequence[tuple[str, str]],
        tokens: int,
        until: asyncio.Event | None,
    ) -> None:
        async with Http1(self._gateway.port) as http1:
            while True:
                name = ("x-request-id", f"{self._prefix}{kind}-{next(_numbers)}")
                body = completion("hi", tokens)
                self.answers.append((kind, await http1.post(COMPLETIONS, body, [name, *headers])))
                if until is None or until.is_set():
                    return


async def take_slots(
    stack: Stack, gateway: Gateway, exits: AsyncExitStack
) -> list[asyncio.Task[None]]:
    """Take all slots; each is free again when its task is cancelled."""
    running = []
    for _ in range(SLOTS):
        http1 = await exits.enter_async_context(Http1(gateway.port))
        running.append(asyncio.create_task(hold(http1)))
        exits.callback(running[-1].cancel)
    await stack.in_flight(SLOTS)
    return running


async def limits(stack: Stack) -> set[float]:
    """Return the limits of all endpoints."""
    series = (await stack.metrics()).series("endpoint_concurrency_limit")
    return {value for _, value in series}


async def test_what_is_given_on_the_command_line_wins_over_the_file(
    configured: Stack, start_stack: StartStack
) -> None:
    """``epp serve`` was given ``--max-concurrency 2`` there; the file says 5."""
    assert await limits(configured) == {2.0}
    alone = await start_stack(
        [model_server("one")], arguments=["--config-text", CONFIG], max_concurrency=None
    )
    assert await limits(alone) == {5.0}


async def test_weights_are_shares_while_both_wait(configured: Stack, exits: AsyncExitStack) -> None:
    """Three to one, exactly, by what the responses say that they took."""
    gateway = await configured.gateway(response_body_mode="FULL_DUPLEX_STREAMED")
    running = await take_slots(configured, gateway, exits)
    async with asyncio.TaskGroup() as tasks:
        caller = Caller(configured, gateway, tasks)
        caller.send("bronze", (FAIRNESS_ID, "bronze"), number=30)
        await configured.queued(30, priority=0)
        caller.send("gold", (FAIRNESS_ID, "gold"), number=30)
        await configured.queued(60, priority=0)
        for task in running:
            task.cancel()
    started = caller.started()
    assert len(started) == 60
    assert 22 <= started[:32].count("gold") <= 26, started
    assert 14 <= started[:20].count("gold") <= 16, started


async def test_a_band_with_a_share_goes_on_under_a_flood_of_a_higher_one(
    configured: Stack, exits: AsyncExitStack
) -> None:
    """Every fifth dispatch is its, as long as the other has any; the metrics say why."""
    gateway = await configured.gateway()
    running = await take_slots(configured, gateway, exits)
    labels = {"priority": -10, "rule": "min-share"}
    before = (await configured.metrics()).sum("flow_control_out_of_turn_total", **labels)
    async with asyncio.TaskGroup() as tasks:
        caller = Caller(configured, gateway, tasks)
        caller.send("batch", (OBJECTIVE, "batch"), number=20)
        caller.send("interactive", (OBJECTIVE, "interactive"), number=40)
        await configured.queued(20, priority=-10)
        await configured.queued(40, priority=10)
        for task in running:
            task.cancel()
    started = caller.started()
    assert 7 <= started[:40].count("batch") <= 9, started
    assert "interactive" not in started[53:], started
    after = (await configured.metrics()).sum("flow_control_out_of_turn_total", **labels)
    assert 9 <= after - before <= 10


async def test_a_band_has_its_own_longest_wait(configured: Stack, exits: AsyncExitStack) -> None:
    gateway = await configured.gateway()
    running = await take_slots(configured, gateway, exits)
    async with asyncio.TaskGroup() as tasks:
        caller = Caller(configured, gateway, tasks)
        caller.send("patient", (OBJECTIVE, "batch"))
        await configured.queued(1, priority=-10)
        caller.send("fleeting", (OBJECTIVE, "fleeting"))
        await eventually(lambda: caller.answers)
        assert (await configured.metrics()).queued(priority=-10) == 1
        for task in running:
            task.cancel()
    (first, refusal), (second, answer) = caller.answers
    assert (first, second) == ("fleeting", "patient")
    assert (refusal.status, answer.status) == (429, 200)
    assert json.loads(refusal.body)["error"]["code"] == "expired"


async def test_advice_is_not_longer_than_the_file_says(
    configured: Stack, exits: AsyncExitStack
) -> None:
    """As much as thirty requests of 9000 tokens have to wait for, some would be told more."""
    gateway = await configured.gateway()
    await take_slots(configured, gateway, exits)
    async with asyncio.TaskGroup() as tasks:
        caller = Caller(configured, gateway, tasks)
        caller.send("fleeting", (OBJECTIVE, "fleeting"), number=30, tokens=9000)
    answers = [answer for _, answer in caller.answers]
    assert [answer.status for answer in answers] == [429] * 30
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}


async def test_the_earliest_deadline_goes_first_in_a_band_that_says_so(
    configured: Stack, exits: AsyncExitStack
) -> None:
    """And by arrival in one that does not, whatever the requests say."""
    gateway = await configured.gateway()
    running = await take_slots(configured, gateway, exits)
    async with asyncio.TaskGroup() as tasks:
        caller = Caller(configured, gateway, tasks)
        for objective, priority in (("punctual", 5), ("", 0)):
            for number, ttl_s in enumerate((35, 20, 40, 25, 30), 1):
                headers = (OBJECTIVE, objective), (TTL, str(1000 * ttl_s))
                caller.send(f"{objective}{ttl_s}", *headers)
                await configured.queued(number, priority=priority)
        running[0].cancel()  # so there is one slot, and no tie
        await eventually(lambda: len(caller.answers) == 10)
        running[1].cancel()
    punctual = [f"punctual{ttl_s}" for ttl_s in (20, 25, 30, 35, 40)]
    assert caller.started() == [*punctual, "35", "20", "40", "25", "30"]


async def test_a_file_that_is_wrong_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "picker.yaml"
    path.write_text(CONFIG.replace("minShare: 0.2", "minShare: 1.2"))
    command = ("-m", "epp", "serve", "--manifests", str(tmp_path), "--config-file", str(path))
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed, said = await process.communicate()
    assert (process.returncode, printed) == (2, b"")
    line, *more = said.decode().splitlines()
    assert not more
    where = f"epp: {path}:10: flowControl.priorityBands[3].minShare: "
    assert line == f"{where}found 1.2; expected a number from 0 to 1"


async def test_the_default_finds_limits_that_use_every_slot_and_keep_the_queue_at_the_epp(
    start_stack: StartStack,
) -> None:
    """Two servers with four slots each, of which nobody told the EPP, and forty clients.

    Both get to run four requests while one or two wait there, and never had more than a few in
    their own queues; so what is urgent need not wait for what was dispatched before it.
    """
    slots = 4
    stack = await start_stack(
        [model_server(name, slots, step_s=0.02) for name in ("one", "two")],
        arguments=["--metrics-scrape-interval", "0.05"],
        max_concurrency=None,
    )

    async def settled() -> None:
        states = [server.state() for server in stack.servers]
        assert all(state.running == slots and state.waiting <= 2 for state in states)
        assert max(await limits(stack)) <= slots + 2
        assert (await stack.metrics()).queued()

    gateway = await stack.gateway()
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        caller = Caller(stack, gateway, tasks)
        caller.send("batch", (OBJECTIVE, "batch"), number=40, tokens=15, until=enough)
        await eventually(settled)
        caller.send("urgent", (OBJECTIVE, "interactive"), number=URGENT, tokens=15)
        await no_batch_before_the_last_urgent(stack)
        enough.set()
    assert {answer.status for _, answer in caller.answers} == {200}
    for server in stack.servers:
        state = server.state()
        assert state.peak_running == slots
        assert state.peak_in_flight <= 3 * slots


async def no_batch_before_the_last_urgent(stack: Stack) -> None:
    """Wait until all urgent requests have gone; once all have come, no batch one goes before."""
    held: float | None = None
    while True:
        page = await stack.metrics()
        waiting = page.queued(priority=10)
        gone = page.outcomes(priority=10).get("dispatched", 0)
        if gone == URGENT:
            break
        if gone + waiting == URGENT:
            batch = page.outcomes(priority=-10)["dispatched"]
            assert held in (None, batch)
            held = batch
    assert held is not None
