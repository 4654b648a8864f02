"""Streams end in two processes, one process decides: priority and fairness hold across both.

What happens when a worker or the core dies is in ``tests/workers/test_processes.py``.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1, Response
from .stack import Gateway, Stack, model_server
from .support import completion, eventually
from .test_priority import hold, urgent_requests_overtake

SLOTS = 6
FAIRNESS_ID = "x-llm-d-inference-fairness-id"
COMPLETIONS = "/v1/completions"


@pytest_asyncio.fixture(loop_scope="session")
async def workers(start_stack: StartStack) -> AsyncIterator[Stack]:
    """Two workers, and servers with one slot each.

    What is dispatched at the same moment by way of different workers may overtake on its way to a
    server. With one slot, one follows the other.
    """
    servers = [model_server(f"server-{number}", 1) for number in range(SLOTS)]
    arguments = ["--workers", "2", "--max-concurrency", "1"]
    stack = await start_stack(servers, arguments=arguments)
    yield stack
    await stack.at_rest()


async def gateway_of(stack: Stack) -> Gateway:
    """Return an Envoy that opens a connection for each request, so that each worker gets some."""
    return await stack.gateway(ext_proc_connection_streams=1)


async def both_have_streams(stack: Stack) -> None:
    async def have() -> None:
        series = (await stack.metrics()).series("worker_streams_inflight")
        assert len(series) == 2
        assert all(value for _, value in series)

    await eventually(have)


@pytest.mark.parametrize("protocol", ["h1", "h2"])
async def test_twenty_urgent_requests_overtake_sixty_queued_batch_requests(
    workers: Stack, reference: ModelServer, protocol: str
) -> None:
    gateway = await gateway_of(workers)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(urgent_requests_overtake(workers, gateway, reference, protocol))
        await both_have_streams(workers)


async def test_a_tenant_that_floods_does_not_keep_another_from_its_turns(workers: Stack) -> None:
    """60 requests of one tenant wait when 12 of another come, with the same priority: while both
    wait, each gets every second slot."""
    gateway = await gateway_of(workers)

    async def call(name: str) -> Response:
        headers = [("x-request-id", name), (FAIRNESS_ID, name.partition("-")[0])]
        async with Http1(gateway.port) as http1:
            return await http1.post(COMPLETIONS, completion(name, 10), headers)

    async with AsyncExitStack() as exits:
        running = []
        for _ in range(SLOTS):
            http1 = await exits.enter_async_context(Http1(gateway.port))
            running.append(asyncio.create_task(hold(http1)))
        await workers.in_flight(SLOTS)
        async with asyncio.TaskGroup() as tasks:
            calls = [tasks.create_task(call(f"greedy-{number}")) for number in range(60)]
            await workers.queued(60)
            calls += [tasks.create_task(call(f"modest-{number}")) for number in range(12)]
            await workers.queued(72)
            await both_have_streams(workers)
            for task in running:
                task.cancel()
    assert [task.result().status for task in calls] == [200] * 72
    orders = [before_the_last(server.state().started_ids, "modest") for server in workers.servers]
    greedy = sum(name.startswith("greedy") for order in orders for name in order)
    # As many as there are of the other, and what the servers start in parallel.
    assert greedy <= 12 + 2 * SLOTS, orders


def before_the_last(names: Iterable[str], prefix: str) -> list[str]:
    """Return the names that stand before the last one that begins so."""
    found = [name for name in names if name.startswith(("greedy", "modest"))]
    while found and not found.pop().startswith(prefix):
        pass
    return found
