"""Two tenants of one priority: neither can starve the other, whatever it sends."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from epp.gateway.options import BodyMode

from .http1 import Http1
from .stack import Gateway, Stack
from .support import completion
from .test_priority import hold

FAIRNESS_ID = "x-llm-d-inference-fairness-id"
HEAVY, LIGHT, SLOTS = 60, 12, 6
TOKENS = {"heavy": 15, "light": 5}


async def call(gateway: Gateway, tenant: str, finished: list[str]) -> None:
    async with Http1(gateway.port) as http1:
        body = completion("hello", TOKENS[tenant])
        answer = await http1.post("/v1/completions", body, [(FAIRNESS_ID, tenant)])
    assert answer.status == 200
    finished.append(tenant)


@pytest.mark.parametrize("mode", ["NONE", "FULL_DUPLEX_STREAMED"])
async def test_a_flood_of_one_tenant_does_not_make_the_other_wait(
    stack: Stack, mode: BodyMode
) -> None:
    """All slots are taken and 60 requests of a heavy tenant wait when 12 of a light one come.

    First come, first served would answer all 60 before the last of the 12. In turns by cost, the
    light tenant has at least every other dispatch, since none of its requests costs more.
    """
    gateway = await stack.gateway(response_body_mode=mode)
    finished: list[str] = []
    async with AsyncExitStack() as exits:
        running = []
        for _ in range(SLOTS):
            http1 = await exits.enter_async_context(Http1(gateway.port))
            running.append(asyncio.create_task(hold(http1)))
        await stack.in_flight(SLOTS)
        async with asyncio.TaskGroup() as calls:
            for _ in range(HEAVY):
                calls.create_task(call(gateway, "heavy", finished))
            await stack.queued(HEAVY)
            for _ in range(LIGHT):
                calls.create_task(call(gateway, "light", finished))
            await stack.queued(HEAVY + LIGHT)
            for task in running:
                task.cancel()
    last_light = max(place for place, tenant in enumerate(finished) if tenant == "light")
    assert finished[:last_light].count("heavy") <= LIGHT + SLOTS
    served = (await stack.metrics()).sum("flow_control_served_cost_total", fairness_id="light")
    assert served > 0
