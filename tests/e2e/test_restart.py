"""The EPP dies and comes back while requests run and wait."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from .conftest import StartStack
from .http1 import Http1, Response
from .stack import Gateway, Stack, begin_stream, model_server
from .support import completion, eventually

COMPLETIONS = "/v1/completions"
CLIENTS = 8


class Load:
    """Clients that send one request after the other until they are told to stop."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stops = False
        self.sent = 0
        self.phase = "before"
        self.seen: Counter[tuple[str, str]] = Counter()

    async def run(self) -> None:
        while not self._stops:
            phase = self.phase
            self.sent += 1
            result = await self._one()
            if phase == self.phase:  # requests that span a change belong to none
                self.seen[phase, result] += 1

    def stop(self) -> None:
        self._stops = True

    def has(self, result: str, times: int = 1) -> bool:
        """Return whether this result was seen in this phase."""
        return self.seen[self.phase, result] >= times

    async def _one(self) -> str:
        try:
            async with Http1(self._gateway.port) as http1:
                return kind(await http1.post(COMPLETIONS, completion("x", 3)))
        except (EOFError, ConnectionError):
            return "cut"


def kind(answer: Response) -> str:
    by_epp = "by the EPP" if "x-queue-wait-ms" in answer.headers else "without it"
    return f"{answer.status} {by_epp}"


async def test_the_epp_is_killed_and_started_again_under_load(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """No exchange hangs; fail-close refuses meanwhile, fail-open serves; then all is as before.

    Trap: ``failure_mode_allow`` helps only until the first body chunk was sent. So even fail-open
    requests that wait at that moment fail, and responses that run are cut.
    """
    stack = await start_stack([model_server("one"), model_server("two")])
    opens = await stack.gateway(fail_open=True)
    closes = await stack.gateway(fail_open=False, response_body_mode="FULL_DUPLEX_STREAMED")
    loads = {"200 without it": Load(opens), "503 without it": Load(closes)}
    async with asyncio.TaskGroup() as tasks:
        streams = [await begin_stream(gateway, exits) for gateway in (opens, closes)]
        for load in loads.values():
            for _ in range(CLIENTS):
                tasks.create_task(load.run())
        for load in loads.values():
            await eventually(lambda load=load: load.has("200 by the EPP", 10))
        await eventually(lambda: has_waiting(stack))
        await stack.process.kill()
        for load in loads.values():
            load.phase = "down"
        for result, load in loads.items():
            await eventually(lambda load=load, result=result: load.has(result, 5))
        for stream in streams:
            await stream.ended()
        await eventually(lambda: sum(s.state().aborted for s in stack.servers) >= 2)
        await stack.process.start()
        for load in loads.values():
            load.phase = "after"
        for load in loads.values():
            await eventually(lambda load=load: load.has("200 by the EPP", 10))
            load.stop()
    await stack.at_rest()
    assert closes_seen(loads["503 without it"]) == {"503 without it"}
    for gateway in (opens, closes):
        async with Http1(gateway.port) as http1:
            for _ in range(10):
                assert kind(await http1.post(COMPLETIONS, completion())) == "200 by the EPP"


def closes_seen(load: Load) -> set[str]:
    return {result for phase, result in load.seen if phase == "down"}


async def has_waiting(stack: Stack) -> bool:
    return (await stack.metrics()).queued() > 0


async def test_an_epp_that_was_killed_comes_back_with_all_slots_free(
    start_stack: StartStack, exits: AsyncExitStack
) -> None:
    """What ran when the EPP died is not counted for ever: its leases died with it."""
    stack = await start_stack([model_server("one")])
    gateway = await stack.gateway(fail_open=False)
    streams = [await begin_stream(gateway, exits) for _ in range(2)]
    await stack.process.kill()
    await stack.process.start()
    for stream in streams:
        await stream.ended()
    await stack.at_rest()

    async def served_again() -> None:
        async with Http1(gateway.port) as http1:
            assert kind(await http1.post(COMPLETIONS, completion())) == "200 by the EPP"

    await eventually(served_again)
