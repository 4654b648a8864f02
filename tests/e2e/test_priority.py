"""The main job: with every slot taken, what is urgent goes first."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from epp.gateway.options import BodyMode
from epp.modelserver.server import ModelServer

from .http1 import Http1, Response
from .http2 import Http2
from .stack import Gateway, Stack
from .support import Metrics, chat, completion

BATCH, URGENT, SLOTS = 60, 20, 6
OBJECTIVE = "x-llm-d-inference-objective"
HANG = ("x-modelserver-fault", '{"hang": true}')


class Caller:
    """Sends requests over HTTP/1.1 or HTTP/2 and keeps the order in which they were answered."""

    def __init__(self, gateway: Gateway, http2: Http2 | None) -> None:
        self._gateway = gateway
        self._http2 = http2
        self.finished: list[str] = []
        self.answers: dict[str, Response] = {}

    async def call(self, name: str, path: str, body: bytes) -> None:
        headers = [("x-request-id", name), (OBJECTIVE, objective_of(name))]
        if self._http2 is not None:
            answer = await self._http2.post(path, body, headers)
        else:
            async with Http1(self._gateway.port) as http1:
                answer = await http1.post(path, body, headers)
        self.finished.append(name)
        self.answers[name] = answer


def objective_of(name: str) -> str:
    return "interactive" if name.startswith("urgent") else "batch"


def request_of(name: str, number: int) -> tuple[str, bytes]:
    """Return path and body: four kinds in turn; a batch request takes three times as long."""
    kind, path = ((chat, "/v1/chat/completions"), (completion, "/v1/completions"))[number % 2]
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    tokens = 5 if name.startswith("urgent") else 15
    return path, kind(name, tokens, **(streamed if number % 4 < 2 else {}))


@pytest.mark.parametrize("mode", ["NONE", "FULL_DUPLEX_STREAMED"])
@pytest.mark.parametrize("protocol", ["h1", "h2"])
async def test_twenty_urgent_requests_overtake_sixty_queued_batch_requests(
    stack: Stack, reference: ModelServer, mode: BodyMode, protocol: str
) -> None:
    """3 servers with 2 slots each, all taken by batch requests; 60 more wait, then come 20 urgent.

    When the running ones end, the EPP dispatches no batch request while an urgent one waits; each
    server starts all of its urgent requests first; over all servers every urgent one is answered
    before any batch one that waited. Nothing is lost, and every answer is the model server's byte
    for byte.
    """
    gateway = await stack.gateway(response_body_mode=mode)
    await urgent_requests_overtake(stack, gateway, reference, protocol)


async def urgent_requests_overtake(
    stack: Stack, gateway: Gateway, reference: ModelServer, protocol: str
) -> None:
    """See the test; ``stack`` has six slots, whatever its EPP is made of."""
    before = await stack.metrics()
    suffix = f"{protocol}-{gateway.port}"
    batch, urgent = (
        {(name := f"{kind}-{suffix}-{n}"): request_of(name, n) for n in range(count)}
        for kind, count in (("batch", BATCH), ("urgent", URGENT))
    )
    async with AsyncExitStack() as exits:
        http2 = await exits.enter_async_context(Http2(gateway.port)) if protocol == "h2" else None
        caller = Caller(gateway, http2)
        running = []
        for _ in range(SLOTS):
            http1 = await exits.enter_async_context(Http1(gateway.port))
            running.append(asyncio.create_task(hold(http1)))
        await stack.in_flight(SLOTS)
        async with asyncio.TaskGroup() as calls:
            for name, request in batch.items():
                calls.create_task(caller.call(name, *request))
            await stack.queued(BATCH, priority=-10)
            for name, request in urgent.items():
                calls.create_task(caller.call(name, *request))
            await stack.queued(URGENT, priority=10)
            await stack.queued(BATCH, priority=-10)
            for task in running:
                task.cancel()
            await no_batch_before_the_last_urgent(stack, before)
    requests = batch | urgent
    states = [server.state() for server in stack.servers]
    started, finished = (
        [[name for name in names if name in requests] for names in lists]
        for lists in ([s.started_ids for s in states], [s.finished_ids for s in states])
    )
    assert all(by_priority(but_for_a_tie(names)) for names in started), started
    assert all(by_priority(names) for names in finished), finished
    for lists in (started, finished):
        assert sorted(name for names in lists for name in names) == sorted(requests)
    assert by_priority(caller.finished), caller.finished
    assert sorted(caller.finished) == sorted(requests)
    await assert_as_served(stack, reference, caller.answers, requests)
    after = await stack.metrics()
    for priority, count in ((10, URGENT), (-10, BATCH + SLOTS)):
        dispatched = after.outcomes(priority=priority)["dispatched"]
        assert dispatched - before.outcomes(priority=priority).get("dispatched", 0) == count


async def hold(http1: Http1) -> None:
    """Take a slot until this is cancelled."""
    try:
        await http1.post("/v1/completions", completion(), [(OBJECTIVE, "batch"), HANG])
    finally:
        http1.close()


async def no_batch_before_the_last_urgent(stack: Stack, before: Metrics) -> None:
    """Look at the EPP's metrics again and again until no urgent request waits.

    A page shows one moment. Where urgent requests wait at a moment, they have waited ever since all
    of them had come; so up to it, no batch request may have been dispatched but those that ran.
    """
    held = before.outcomes(priority=-10).get("dispatched", 0) + SLOTS
    while (page := await stack.metrics()).queued(priority=10):
        assert page.outcomes(priority=-10)["dispatched"] == held


def but_for_a_tie(names: list[str]) -> list[str]:
    """Return the order of a server's starts with its last tie undone.

    Two slots that are free at the same moment can take the last urgent request and the first batch
    one. They go out in this order, but on two connections, so the server may see the second first.
    """
    last_urgent = max(n for n, name in enumerate(names) if name.startswith("urgent"))
    if last_urgent and names[last_urgent - 1].startswith("batch"):
        names = names.copy()
        names.insert(last_urgent - 1, names.pop(last_urgent))
    return names


def by_priority(names: list[str]) -> bool:
    return names == sorted(names, key=lambda name: not name.startswith("urgent"))


async def assert_as_served(
    stack: Stack,
    reference: ModelServer,
    answers: dict[str, Response],
    requests: dict[str, tuple[str, bytes]],
) -> None:
    for name, (path, body) in requests.items():
        answer = answers[name]
        async with stack.client.post(reference.url + path, data=body) as response:
            assert answer.body == await response.read(), name
            assert answer.headers["content-type"] == response.headers["content-type"]
        assert answer.status == 200
        assert answer.headers["x-served-by"] in {s.options.name for s in stack.servers}
        assert int(answer.headers["x-queue-wait-ms"]) > 0
