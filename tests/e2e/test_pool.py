"""The pool as the gateway and the manifests have it: hints, changes, endpoints that come and go."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1, Response
from .stack import Gateway, Stack, begin_stream, destination, model_server
from .support import HINT_HEADER, completion, eventually, subset_hint

COMPLETIONS = "/v1/completions"
OBJECTIVE = "x-llm-d-inference-objective"


async def served_by(gateway: Gateway, *hint: str, body: bytes | None = None) -> Response:
    async with Http1(gateway.port) as http1:
        if body is None:
            return await http1.request("GET", "/v1/models", [subset_hint(*hint)])
        return await http1.post(COMPLETIONS, body, [subset_hint(*hint)])


def assert_no_endpoint(answer: Response) -> None:
    """Duty: no endpoint is a 503."""
    assert answer.status == 503
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    error = json.loads(answer.body)["error"]
    assert (error["type"], error["code"]) == ("service_unavailable_error", "rejected-no-endpoints")


# The subset hint


@pytest.mark.parametrize("body", [None, completion()])
async def test_only_the_endpoints_of_the_hint_are_picked(stack: Stack, body: bytes | None) -> None:
    """Duty: the subset hint, by address and port; with and without a body."""
    gateway = await stack.gateway(subset_hint_header=HINT_HEADER)
    for number in (0, 1, 2, 0):
        answer = await served_by(gateway, stack.destination(number), body=body)
        assert answer.headers["x-served-by"] == stack.servers[number].options.name
    two = stack.destination(0), stack.destination(2)
    names = {
        (await served_by(gateway, *two, "127.0.0.1:1", body=body)).headers["x-served-by"]
        for _ in range(20)
    }
    assert names == {"one", "three"}


@pytest.mark.parametrize("body", [None, completion()])
async def test_a_hint_without_an_eligible_endpoint_is_a_503(
    stack: Stack, body: bytes | None
) -> None:
    """Duty: present but empty, or none eligible, is a 503; an address alone names no endpoint."""
    gateway = await stack.gateway(subset_hint_header=HINT_HEADER)
    port = stack.destination(0).rpartition(":")[2]
    for hint in ((), ("127.0.0.1:1",), ("127.0.0.1",), (f"127.0.0.2:{port}",), (f"[::1]:{port}",)):
        assert_no_endpoint(await served_by(gateway, *hint, body=body))


async def test_a_hint_that_the_gateway_gives_every_request(stack: Stack) -> None:
    gateway = await stack.gateway(static_subset_hint=(stack.destination(1),))
    for _ in range(10):
        async with Http1(gateway.port) as http1:
            answer = await http1.post(COMPLETIONS, completion())
        assert answer.headers["x-served-by"] == "two"


async def test_endpoints_at_ipv6_addresses(start_stack: StartStack) -> None:
    """Duty: IPv6 in brackets, in the hint and in the destination."""
    six = model_server("six", host="::1")
    stack = await start_stack([model_server("four"), six])
    gateway = await stack.gateway(subset_hint_header=HINT_HEADER)
    assert destination(six).startswith("[::1]:")
    answer = await served_by(gateway, destination(six), body=completion())
    assert answer.headers["x-served-by"] == "six"
    await stack.at_rest()


# Changes


async def test_an_endpoint_that_disappears_with_requests_queued_for_it(
    start_stack: StartStack, reference: ModelServer
) -> None:
    """What waits for it alone gets a 503 at once; what runs there is served to its end."""
    stack = await start_stack([model_server("stays"), model_server("goes")])
    stays, goes = stack.destination(0), stack.destination(1)
    body = completion("go on", 150)
    async with stack.client.post(reference.url + COMPLETIONS, data=body) as response:
        right = await response.read()
    for mode in ("NONE", "FULL_DUPLEX_STREAMED"):
        gateway = await stack.gateway(response_body_mode=mode, subset_hint_header=HINT_HEADER)
        await stack.settle([stays, goes])
        assert (await served_by(gateway, goes, body=completion())).status == 200
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(served_by(gateway, goes, body=body)) for _ in range(2)]
            await eventually(lambda: stack.servers[1].state().in_flight == 2)
            queued = [tasks.create_task(served_by(gateway, goes, body=body)) for _ in range(5)]
            await stack.queued(5)
            either = tasks.create_task(served_by(gateway, goes, stays, body=completion()))
            await stack.settle([stays])
            for task in queued:
                assert_no_endpoint(await task)
            assert not any(task.done() for task in running)
        assert either.result().headers["x-served-by"] == "stays"
        for task in running:
            assert (task.result().status, task.result().body) == (200, right)
        await stack.at_rest()
        assert_no_endpoint(await served_by(gateway, goes, body=completion()))


async def test_an_endpoint_that_is_added_is_used_at_once(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """What waits goes to it without waiting for anything else."""
    stack = await start_stack([model_server("old")])
    gateway = await stack.gateway()
    async with model_server("new") as new, asyncio.TaskGroup() as tasks:
        clients = [await begin_stream(gateway, exits) for _ in range(2)]
        calls = [tasks.create_task(call(gateway)) for _ in range(4)]
        await stack.queued(4)
        stack.manifests.endpoints([stack.destination(0), destination(new)])
        for task in calls:
            assert (await task).status == 200
        assert new.state().finished >= 1
        for client in clients:
            client.close()
        await stack.at_rest()


async def call(gateway: Gateway, objective: str = "") -> Response:
    headers = [(OBJECTIVE, objective)] if objective else []
    async with Http1(gateway.port) as http1:
        return await http1.post(COMPLETIONS, completion(), headers)


async def test_requests_wait_for_the_first_endpoint(start_stack: StartStack) -> None:
    """Scale from zero: an empty pool lets requests wait, up to a budget of their own."""
    server = model_server("first")
    stack = await start_stack([], arguments=["--no-endpoint-ttl", "1.5"])
    gateway = await stack.gateway(fail_open=False)
    async with server, asyncio.TaskGroup() as tasks:
        given_up = tasks.create_task(call(gateway))
        assert_no_endpoint_yet(await given_up)
        waiting = tasks.create_task(call(gateway))
        await stack.queued(1)
        await stack.settle([destination(server)])
        answer = await waiting
    assert (answer.status, answer.headers["x-served-by"]) == (200, "first")
    assert (await stack.metrics()).outcomes() == {"expired-no-endpoints": 1, "dispatched": 1}
    await stack.at_rest()


def assert_no_endpoint_yet(answer: Response) -> None:
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "expired-no-endpoints"
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"


async def test_priorities_change_and_broken_files_do_not(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """A change is taken while traffic runs; a file that does not validate leaves all as it was."""
    stack = await start_stack([model_server("one")])
    gateway = await stack.gateway()
    clients = [await begin_stream(gateway, exits) for _ in range(2)]
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(call(gateway, "interactive"))]
        await stack.queued(1, priority=10)

        stack.manifests.objectives({"interactive": 77, "batch": -10})
        await stack.reloaded(2, "applied")
        calls.append(tasks.create_task(call(gateway, "interactive")))
        await stack.queued(2, priority=77)  # what waited already has moved

        stack.manifests.write("objectives.yaml", "kind: InferenceObjective\nspec: {priority: x}")
        await stack.reloaded(1, "rejected")
        calls.append(tasks.create_task(call(gateway, "interactive")))
        await stack.queued(3, priority=77)
        log = stack.process.log_path.read_text()
        assert "objectives.yaml" in log[log.index("manifests rejected") :]

        stack.manifests.objectives({"interactive": 78})
        await stack.reloaded(3, "applied")
        calls.append(tasks.create_task(call(gateway, "interactive")))
        await stack.queued(4, priority=78)
        for client in clients:
            client.close()
    assert [task.result().status for task in calls] == [200] * 4
    assert (await stack.metrics()).sum("resources_reload_total", result="rejected") == 1
    await stack.at_rest()
