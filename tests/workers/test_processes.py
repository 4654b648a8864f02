"""``epp serve --workers 2`` as it is run, behind a real Envoy: what happens when parts die."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from epp.config import ServeOptions

from ..e2e.http1 import Http1, Response
from ..e2e.stack import Gateway, Stack, model_server, stack_of
from ..e2e.support import completion, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVERS, SLOTS = 4, 4
GAP_S = ServeOptions(manifests=()).core_gap_timeout_s
COMPLETIONS = "/v1/completions"
OBJECTIVE = "x-llm-d-inference-objective"
ARGUMENTS = ["--workers", "2", "--transport", "http2"]


@asynccontextmanager
async def workers_of(directory: Path, slots: int) -> AsyncIterator[Stack]:
    """Start servers with so many slots each and an EPP of two workers for them."""
    servers = [model_server(f"server-{number}", slots) for number in range(SERVERS)]
    arguments = [*ARGUMENTS, "--max-concurrency", str(slots)]
    async with stack_of(directory, servers, arguments=arguments) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with workers_of(tmp_path_factory.mktemp("workers"), SLOTS) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def stack(shared: Stack) -> AsyncIterator[Stack]:
    """The shared stack, which every test must leave at rest, all of it there."""
    yield shared
    await shared.at_rest()
    await is_whole(shared)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_orderly(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with workers_of(tmp_path_factory.mktemp("orderly"), 1) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def orderly(shared_orderly: Stack) -> AsyncIterator[Stack]:
    """Servers with one slot each.

    What is dispatched at the same moment by way of different workers may overtake on its way to a
    server. With one slot, one follows the other.
    """
    yield shared_orderly
    await shared_orderly.at_rest()
    await is_whole(shared_orderly)


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(stack: Stack) -> Gateway:
    return await gateway_of(stack)


async def gateway_of(stack: Stack, **options: object) -> Gateway:
    """Return an Envoy that opens a connection for each request, so that each worker gets some."""
    return await stack.gateway(ext_proc_connection_streams=1, **options)


async def is_whole(stack: Stack) -> None:
    async def holds() -> None:
        metrics = await stack.metrics()
        assert (metrics.sum("workers"), metrics.sum("degraded")) == (2, 0)

    await eventually(holds)


def pid_of(stack: Stack, name: str) -> int:
    """Return the process id of the core or of a worker, as the log has it."""
    log = stack.process.log_path.read_text()
    return int(re.findall(rf"started {name} pid=(\d+)", log)[-1])


class Calls:
    """Requests that run at the same time."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.tasks: dict[str, asyncio.Task[Response | None]] = {}

    def start(self, name: str, tokens: int, objective: str = "") -> None:
        self.tasks[name] = asyncio.create_task(self._call(name, tokens, objective))

    async def answers(self) -> dict[str, Response | None]:
        """Return what became of them; None for one that was cut off."""
        answers = await asyncio.gather(*self.tasks.values())
        return dict(zip(self.tasks, answers, strict=True))

    async def _call(self, name: str, tokens: int, objective: str) -> Response | None:
        headers = [("x-request-id", name), (OBJECTIVE, objective)]
        body = completion(name, tokens, stream=True)
        with suppress(EOFError, ConnectionError):
            async with Http1(self._gateway.port) as http1:
                return await http1.post(COMPLETIONS, body, headers)
        return None


async def streams_of_workers(stack: Stack) -> dict[str, int]:
    """Return how many streams are open at each worker, once all have told of theirs."""
    series = (await stack.metrics()).series("worker_streams_inflight")
    return {labels["worker"]: int(value) for labels, value in series}


async def both_have_streams(stack: Stack, total: int) -> None:
    async def have() -> None:
        streams = await streams_of_workers(stack)
        assert sum(streams.values()) == total
        assert all(streams.values())

    await eventually(have)


# ---- one whole ----


async def test_what_is_urgent_overtakes_whichever_worker_it_is_at(orderly: Stack) -> None:
    stack, gateway = orderly, await gateway_of(orderly)
    held, calls = Calls(gateway), Calls(gateway)
    for number in range(SERVERS):
        held.start(f"held-{number}", 10_000, "batch")
    await stack.in_flight(SERVERS)
    for number in range(24):
        calls.start(f"batch-{number}", 8, "batch")
    await stack.queued(24, priority=-10)
    for number in range(12):
        calls.start(f"urgent-{number}", 8, "interactive")
    await stack.queued(12, priority=10)
    await both_have_streams(stack, SERVERS + 36)
    for task in held.tasks.values():
        task.cancel()
    await asyncio.gather(*held.tasks.values(), return_exceptions=True)
    answers = await calls.answers()
    assert {answer and answer.status for answer in answers.values()} == {200}
    for server in stack.servers:
        started = [name for name in server.state().started_ids if name in answers]
        assert started == sorted(started, key=lambda name: not name.startswith("urgent"))
        assert server.state().peak_in_flight == 1


async def test_a_worker_that_is_killed_loses_its_own_streams_and_no_others(stack: Stack) -> None:
    """The gateway is one that cuts off what the EPP has left, so that the loss is seen."""
    gateway = await gateway_of(stack, fail_open=False)
    calls = Calls(gateway)
    for number in range(SERVERS * SLOTS):
        calls.start(f"call-{number}", 300)
    await stack.in_flight(SERVERS * SLOTS)
    await both_have_streams(stack, SERVERS * SLOTS)
    streams = await streams_of_workers(stack)
    for number in range(4):
        calls.start(f"waiting-{number}", 5)
    await stack.queued(4)
    restarts = (await stack.metrics()).sum("worker_restarts_total")
    os.kill(pid_of(stack, "worker-0"), signal.SIGKILL)
    answers = await calls.answers()
    lost = [name for name, answer in answers.items() if answer is None or answer.status != 200]
    running = [name for name in lost if name.startswith("call")]
    assert len(running) == streams["0"]
    assert len(lost) < len(answers)
    await is_whole(stack)
    metrics = await stack.metrics()
    assert metrics.sum("worker_restarts_total") == restarts + 1
    # A server that an answer was cut off at may still be busy with it when the slot is given on.
    assert max(metrics.leases().values()) <= SLOTS


async def test_a_core_that_is_killed_loses_no_stream(orderly: Stack) -> None:
    stack, calls = orderly, Calls(await gateway_of(orderly))
    for number in range(SERVERS):
        calls.start(f"before-{number}", 200)
    await stack.in_flight(SERVERS)
    for number in range(20):
        calls.start(f"low-{number}", 5, "batch")
    await stack.queued(20)
    os.kill(pid_of(stack, "core"), signal.SIGKILL)
    for number in range(20):
        calls.start(f"high-{number}", 5, "interactive")

    async def adopted() -> None:
        metrics = await stack.metrics()
        assert sum(metrics.leases().values()) == SERVERS
        assert metrics.queued() == 40
        assert metrics.sum("core_restarts_total") == 1

    await eventually(adopted)
    answers = await calls.answers()
    assert {answer and answer.status for answer in answers.values()} == {200}
    for server in stack.servers:
        assert server.state().peak_in_flight == 1
        started = [name for name in server.state().started_ids if name in answers]
        order = ["before", "high", "low"]
        assert started == sorted(started, key=lambda name: order.index(name.split("-")[0]))
    assert (await stack.metrics()).sum("degraded_picks_total") == 0


async def test_without_a_core_workers_decide_until_there_is_one(
    stack: Stack, gateway: Gateway
) -> None:
    pool = stack.manifests.directory / "pool.yaml"
    good = pool.read_text()
    stack.manifests.write("pool.yaml", "kind: Nonsense")
    calls = Calls(gateway)
    calls.start("running", 400)
    await stack.in_flight(1)
    core = pid_of(stack, "core")
    os.kill(core, signal.SIGKILL)
    for number in range(4):
        calls.start(f"newcomer-{number}", 5)
    early = {name: task for name, task in calls.tasks.items() if name != "running"}
    answers = await asyncio.gather(*early.values())
    assert [answer and answer.status for answer in answers] == [200] * 4
    stack.manifests.write("pool.yaml", good)
    await is_whole(stack)
    running = calls.tasks["running"]
    metrics = await stack.metrics()
    assert metrics.sum("degraded_picks_total") == 4
    assert metrics.sum("degraded_seconds_total") >= GAP_S
    assert sum(metrics.leases().values()) == (not running.done())
    answer = await running
    assert answer is not None
    assert answer.status == 200


async def test_a_drain_serves_what_runs_and_waits_and_all_end_well(
    tmp_path: Path,
) -> None:
    async with workers_of(tmp_path, 1) as stack:
        gateway = await gateway_of(stack, fail_open=False)
        calls = Calls(gateway)
        for number in range(SERVERS):
            calls.start(f"running-{number}", 60)
        await stack.in_flight(SERVERS)
        for number in range(3):
            calls.start(f"waiting-{number}", 60)
        await stack.queued(3)
        pids = [pid_of(stack, name) for name in ("core", "worker-0", "worker-1")]
        stack.process.terminate()
        await eventually(lambda: "drain begins" in stack.process.log_path.read_text())
        late = Calls(gateway)
        late.start("late", 5)
        refused = (await late.answers())["late"]
        assert refused is not None
        assert (refused.status, "retry-after" in refused.headers) == (503, True)
        answers = await calls.answers()
        assert {answer and answer.status for answer in answers.values()} == {200}
        assert await stack.process.process.exit == 0
        assert not any(is_alive(pid) for pid in pids)


# ---- the parent ----


async def test_nobody_outlives_the_parent(tmp_path: Path) -> None:
    async with stack_of(tmp_path, [model_server("one")], arguments=ARGUMENTS) as stack:
        pids = [pid_of(stack, name) for name in ("core", "worker-0", "worker-1")]
        await stack.process.kill()
        await eventually(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_taken_port_is_one_clear_error(stack: Stack) -> None:
    """Also one that is taken by workers of another EPP, who would share it."""
    names = ("grpc", "health", "metrics")
    taken = zip(names, stack.process.ports, strict=True)
    await asyncio.gather(*(cannot_start(stack, name, port) for name, port in taken))


async def cannot_start(stack: Stack, name: str, port: int) -> None:
    ports = {"grpc": 0, "health": 0, "metrics": 0} | {name: port}
    manifests = str(stack.manifests.directory)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "epp", "serve", *ARGUMENTS, "--log-level", "error"),
        *("--host", "127.0.0.1", "--manifests", manifests),
        *(f"--{option}-port={value}" for option, value in ports.items()),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2, said.decode()
    # grpcio says something, too, where it is the one that does not get its port.
    (line,) = [line for line in said.decode().splitlines() if not re.match(r"E\d{4} ", line)]
    assert line.startswith("epp: cannot listen on ")
    assert str(port) in line


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False
