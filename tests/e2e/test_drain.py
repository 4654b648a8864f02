"""SIGTERM: nothing new, what waits goes on, what runs is served to its end."""

import asyncio
import json
from contextlib import AsyncExitStack

from grpc_health.v1 import health_pb2

from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1, Response
from .stack import Gateway, Stack, begin_stream, model_server
from .support import completion, eventually
from .test_health import NAMES, check, probe

COMPLETIONS = "/v1/completions"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def call(gateway: Gateway, body: bytes) -> Response:
    async with Http1(gateway.port) as http1:
        return await http1.post(COMPLETIONS, body)


async def right_answer(stack: Stack, reference: ModelServer, body: bytes) -> bytes:
    async with stack.client.post(reference.url + COMPLETIONS, data=body) as response:
        return await response.read()


def assert_shutting_down(answer: Response) -> None:
    assert answer.status == 503
    assert 1 <= int(answer.headers["retry-after"]) <= 300
    assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-shutting-down"
    assert json.loads(answer.body)["error"]["code"] == "shutting-down"


async def ended(stack: Stack) -> int:
    async with asyncio.timeout(20):
        return await stack.process.process.exit


async def test_sigterm_drains(start_stack: StartStack, reference: ModelServer) -> None:
    """R15: not ready; new ones get 503 with Retry-After; queued ones go; running ones end well.

    New ones are refused in good order until the very end, also when only running ones are left.
    """
    stack = await start_stack([model_server("one")])
    # With a health check, fail-open would soon let new ones go where Envoy's own policy says.
    gateway = await stack.gateway(fail_open=True, ext_proc_health_check=False)
    first, second, last = (completion(name, 60, stream=True) for name in ("a", "b", "last"))
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(call(gateway, body)) for body in (first, second)]
        await stack.in_flight(2)
        queued = [tasks.create_task(call(gateway, body)) for body in (first, second, last)]
        await stack.queued(3)
        stack.process.terminate()
        await eventually(lambda: is_draining(stack))
        assert_shutting_down(await call(gateway, first))
        async with Http1(gateway.port) as http1:
            assert_shutting_down(await http1.request("GET", "/v1/models"))
        await stack.queued(0)
        assert not queued[-1].done()
        assert_shutting_down(await call(gateway, first))
    right = {body: await right_answer(stack, reference, body) for body in (first, second, last)}
    for task, body in zip([*running, *queued], [first, second, first, second, last], strict=True):
        assert (task.result().status, task.result().body) == (200, right[body])
    assert await ended(stack) == 0


async def is_draining(stack: Stack) -> bool:
    statuses = {name: await check(stack.process.health_port, name) for name in NAMES}
    expected = {name: SERVING if name == "liveness" else NOT_SERVING for name in NAMES}
    assert await probe(stack.process.metrics_port, "/healthz") == 200
    return statuses == expected and await probe(stack.process.metrics_port, "/readyz") == 503


async def test_what_waits_longer_than_the_drain_is_refused(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """The rest gets shutting-down; what runs has the grace period, and then it is over."""
    arguments = ["--drain-timeout", "0.5", "--shutdown-grace", "1"]
    stack = await start_stack([model_server("one")], arguments=arguments)
    gateway = await stack.gateway(fail_open=False)
    body = completion()
    async with asyncio.TaskGroup() as tasks:
        streams = [await begin_stream(gateway, exits) for _ in range(2)]
        queued = [tasks.create_task(call(gateway, body)) for _ in range(3)]
        await stack.queued(3)
        stack.process.terminate()
        for task in queued:
            assert_shutting_down(await task)
        for http1 in streams:
            await http1.ended()
    assert await ended(stack) == 0


async def test_an_idle_epp_stops_at_once(start_stack: StartStack) -> None:
    stack = await start_stack([])
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    stack.process.terminate()
    assert await ended(stack) == 0
    assert loop.time() - began_s < 5
