import asyncio
import json
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from epp.modelserver.errors import ApiError
from epp.modelserver.faults import Fault, FaultPlan, parse_fault

from .conftest import Client, eventually

Start = Callable[..., Awaitable[Client]]


def fault(**fields: object) -> dict[str, str]:
    return {"x_modelserver_fault": json.dumps(fields)}


async def test_an_error_on_demand(start: Start) -> None:
    client = await start()
    async with client.complete(**fault(status=503)) as response:
        assert response.status == 503
        assert (await response.json())["error"]["type"] == "server_error"
    async with client.complete() as response:
        assert response.status == 200
    assert client.server.state().failed == 1


async def test_a_planned_fault_holds_for_so_many_requests(start: Start) -> None:
    client = await start()
    async with client.post("/debug/faults", {"status": 500, "times": 2}) as response:
        assert response.status == 204
    statuses = []
    for _ in range(3):
        async with client.complete() as response:
            statuses.append(response.status)
    assert statuses == [500, 500, 200]


async def test_a_planned_fault_can_be_taken_back(start: Start) -> None:
    client = await start()
    async with client.post("/debug/faults", {"status": 500, "times": None}):
        pass
    for _ in range(3):
        async with client.complete() as response:
            assert response.status == 500
    async with client.session.delete(client.server.url + "/debug/faults") as response:
        assert response.status == 204
    async with client.complete() as response:
        assert response.status == 200


async def test_a_reset_in_the_middle_of_a_stream(start: Start) -> None:
    client = await start()
    async with client.complete(stream=True, **fault(reset_after_tokens=3)) as response:
        assert response.status == 200
        with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
            await response.read()
    state = client.server.state()
    assert (state.failed, state.in_flight, state.running) == (1, 0, 0)


async def test_a_reset_after_some_tokens_lets_those_through(start: Start) -> None:
    client = await start()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    body = json.dumps({"model": "m", "prompt": "x", "stream": True}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-modelserver-fault: {}\r\n"
    head = head.format(json.dumps({"reset_after_tokens": 2}))
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    received = await reader.read(65_536)
    while received.count(b"\n\n") < 2:
        received += await reader.read(65_536)
    assert received.count(b"data: ") == 2
    with pytest.raises(ConnectionResetError):
        await reader.read(65_536)
    writer.close()


async def test_a_reset_instead_of_an_answer(start: Start) -> None:
    client = await start()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with client.complete(**fault(reset_after_tokens=3)):
            pass
    assert client.server.state().failed == 1


async def test_a_reset_beyond_the_last_token_never_comes(start: Start) -> None:
    client = await start()
    async with client.complete(max_tokens=3, **fault(reset_after_tokens=4)) as response:
        assert response.status == 200


async def test_a_request_that_hangs_ends_with_its_client(start: Start) -> None:
    client = await start()
    asked = asyncio.ensure_future(client.complete(**fault(hang=True)).__aenter__())
    await eventually(lambda: client.server.state().in_flight == 1)
    asked.cancel()
    await eventually(lambda: client.server.state().aborted == 1)
    assert client.server.state().in_flight == 0


async def test_a_delay_comes_before_the_first_byte(start: Start) -> None:
    client = await start()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with client.complete(stream=True, **fault(delay_s=0.05)) as response:
        assert loop.time() - begin >= 0.05
        assert response.status == 200


@pytest.mark.parametrize("text", ["{", "[]", '{"status": 200}', '{"statsu": 500}', "\udcff"])
async def test_a_fault_that_is_none_is_refused(start: Start, text: str) -> None:
    with pytest.raises(ApiError, match="Not a fault"):
        parse_fault(text)


def test_the_plan_gives_each_fault_its_times() -> None:
    plan = FaultPlan()
    assert plan.take() is None
    plan.set(Fault(status=500))
    assert plan.take() == Fault(status=500)
    assert plan.take() is None
