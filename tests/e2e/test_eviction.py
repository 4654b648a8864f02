"""Running batch work makes room for urgent work: with a real Envoy, before and after the response
has begun."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest
import pytest_asyncio

from epp.gateway.options import BodyMode

from .conftest import StartStack
from .http1 import Http1, Response, request_head
from .stack import Gateway, Stack, in_process_options, model_server, stack_of
from .support import completion

SLOTS = 2
BATCH = ("x-llm-d-inference-objective", "batch")
URGENT = ("x-llm-d-inference-objective", "interactive")
HANG = ("x-modelserver-fault", '{"hang": true}')
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
flowControl: {enableEviction: true}
"""
MODES = pytest.mark.parametrize("mode", ["NONE", "FULL_DUPLEX_STREAMED"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def evicting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One server with two slots, and an EPP in this process that evicts."""
    directory = tmp_path_factory.mktemp("evicting")
    options = in_process_options(directory)
    options = msgspec.structs.replace(
        options, flow=msgspec.structs.replace(options.flow, eviction=True)
    )
    async with stack_of(directory, [model_server("one", SLOTS)], in_process=options) as stack:
        yield stack


async def batch(gateway: Gateway, name: str) -> Response:
    """Send a request that no server ever answers."""
    async with Http1(gateway.port) as http1:
        return await http1.post("/v1/completions", completion(name), [BATCH, HANG])


async def urgent(gateway: Gateway) -> Response:
    async with Http1(gateway.port) as http1:
        return await http1.post("/v1/completions", completion("urgent", 3), [URGENT])


async def batch_stream(gateway: Gateway, exits: AsyncExitStack) -> Http1:
    """Let an answer to a batch request begin that takes longer than any test."""
    body = completion("go on", 100_000, stream=True)
    http1 = await exits.enter_async_context(Http1(gateway.port))
    length = ("content-length", str(len(body)))
    await http1.send(request_head("POST", "/v1/completions", [BATCH, length]) + body)
    assert (await http1.head()).status == 200
    await http1.chunk()
    return http1


@MODES
async def test_a_batch_request_gives_way_to_an_urgent_one(evicting: Stack, mode: BodyMode) -> None:
    gateway = await evicting.gateway(response_body_mode=mode)
    before = (await evicting.metrics()).sum("flow_control_evictions_total", priority=-10)
    running = [asyncio.create_task(batch(gateway, f"batch-{n}")) for n in range(SLOTS)]
    await evicting.in_flight(SLOTS)
    answer = await urgent(gateway)
    assert answer.status == 200
    (done,), pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    refused = done.result()
    assert refused.status == 429
    assert refused.headers["x-llm-d-request-dropped-reason"] == "evicted"
    assert int(refused.headers["retry-after"]) >= 1
    assert msgspec.json.decode(refused.body)["error"]["code"] == "evicted"
    assert len(pending) == 1
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    await evicting.at_rest()
    page = await evicting.metrics()
    assert page.sum("flow_control_evictions_total", priority=-10) == before + 1
    assert page.sum("request_error_total", error_code="evicted") == before + 1


@MODES
async def test_a_stream_that_has_begun_is_cut(
    evicting: Stack, exits: AsyncExitStack, mode: BodyMode
) -> None:
    gateway = await evicting.gateway(response_body_mode=mode)
    streams = [await batch_stream(gateway, exits) for _ in range(SLOTS)]
    await evicting.in_flight(SLOTS)
    assert (await urgent(gateway)).status == 200
    cut = [asyncio.create_task(stream.ended()) for stream in streams]
    (done,), _ = await asyncio.wait(cut, return_when=asyncio.FIRST_COMPLETED)
    assert not done.result().endswith(b"0\r\n\r\n")  # no whole answer, and the client can tell
    for stream in streams:
        stream.close()
    await asyncio.gather(*cut, return_exceptions=True)
    await evicting.at_rest()


@pytest.mark.parametrize("mode", ["BUFFERED", "STREAMED"])
async def test_it_works_in_other_modes_of_the_request_body(evicting: Stack, mode: BodyMode) -> None:
    gateway = await evicting.gateway(request_body_mode=mode, response_body_mode=mode)
    running = [asyncio.create_task(batch(gateway, f"batch-{n}")) for n in range(SLOTS)]
    await evicting.in_flight(SLOTS)
    answers = await asyncio.gather(*(urgent(gateway) for _ in range(2 * SLOTS)))
    assert [answer.status for answer in answers] == [200] * 2 * SLOTS
    assert [answer.status for answer in await asyncio.gather(*running)] == [429] * SLOTS
    await evicting.at_rest()


@MODES
async def test_many_urgent_requests_take_one_slot_after_the_other(
    evicting: Stack, mode: BodyMode
) -> None:
    gateway = await evicting.gateway(response_body_mode=mode)
    running = [asyncio.create_task(batch(gateway, f"batch-{n}")) for n in range(SLOTS)]
    await evicting.in_flight(SLOTS)
    answers = await asyncio.gather(*(urgent(gateway) for _ in range(10)))
    assert [answer.status for answer in answers] == [200] * 10
    refused = await asyncio.gather(*running)
    assert [answer.status for answer in refused] == [429] * SLOTS
    await evicting.at_rest()


async def test_nothing_is_evicted_where_it_is_off(inside: Stack) -> None:
    gateway = await inside.gateway()
    leases = inside.occupy(spare=1)
    running = asyncio.create_task(batch(gateway, "batch"))
    await inside.in_flight(1)
    waiting = asyncio.create_task(urgent(gateway))
    await inside.queued(1, priority=10)
    assert not running.done()
    inside.give_back(leases)
    assert (await waiting).status == 200
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await inside.metrics()).sum("flow_control_evictions_total") == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_process_evicts_where_its_configuration_says_so(
    start_stack: StartStack, workers: str
) -> None:
    """With several workers, a victim and who takes its place may be at different ones."""
    servers = [model_server("one", SLOTS), model_server("two", SLOTS)]
    arguments = ("--workers", workers, "--config-text", CONFIG)
    stack = await start_stack(servers, arguments=arguments)
    gateway = await stack.gateway(ext_proc_connection_streams=1)
    slots = SLOTS * len(servers)
    running = [asyncio.create_task(batch(gateway, f"batch-{n}")) for n in range(slots)]
    await stack.in_flight(slots)
    answers = await asyncio.gather(*(urgent(gateway) for _ in range(4 * slots)))
    assert [answer.status for answer in answers] == [200] * 4 * slots
    refused = await asyncio.gather(*running)
    assert [answer.status for answer in refused] == [429] * slots
    assert {answer.headers["x-llm-d-request-dropped-reason"] for answer in refused} == {"evicted"}
    await stack.at_rest()
    assert (await stack.metrics()).sum("flow_control_evictions_total") == slots
