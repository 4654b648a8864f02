"""Ten times more than the servers can take: priority is what decides, and refusals are honest."""

import asyncio
import random
from collections import Counter
from itertools import count

from epp.modelserver.server import ModelServer

from .conftest import StartStack
from .http1 import Http1
from .stack import Gateway, model_server
from .support import chat

OBJECTIVE = "x-llm-d-inference-objective"
SLOTS, STEP_S = 8, 0.05
TOKENS = (10, 50)
"""From and to. Were all answers of one length, all slots would become free at the same moment, and
who comes just after it would wait a whole service time for the next."""
SERVICE_S = sum(TOKENS) / 2 * STEP_S
CAPACITY_PER_S = 2 * SLOTS / SERVICE_S
SHARES = {"interactive": 0.5, "": 4.5, "batch": 5.0}
"""Of the capacity, what is asked for at priorities 10, 0 and -10."""
SECONDS = 8.0


class Arrivals:
    """Requests that come at their own pace, whatever becomes of them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.statuses: dict[str, Counter[int]] = {objective: Counter() for objective in SHARES}
        self.waits_s: dict[str, list[float]] = {objective: [] for objective in SHARES}
        self.advice_s: list[int] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for objective in SHARES:
                tasks.create_task(self._arrive(objective, tasks))

    async def _arrive(self, objective: str, tasks: asyncio.TaskGroup) -> None:
        loop, rng = asyncio.get_running_loop(), random.Random(objective)
        began_s, gap_s = loop.time(), 1.0 / (SHARES[objective] * CAPACITY_PER_S)
        for number in count():
            due_s = number * gap_s
            if due_s > SECONDS:
                return
            await asyncio.sleep(began_s + due_s - loop.time())
            tasks.create_task(self._call(objective, rng.randint(*TOKENS)))

    async def _call(self, objective: str, tokens: int) -> None:
        headers = [(OBJECTIVE, objective)] if objective else []
        async with Http1(self._gateway.port) as http1:
            answer = await http1.post("/v1/chat/completions", chat("hi", tokens), headers)
        self.statuses[objective][answer.status] += 1
        if answer.status == 200:
            self.waits_s[objective].append(int(answer.headers["x-queue-wait-ms"]) / 1000)
        else:
            self.advice_s.append(int(answer.headers["retry-after"]))


def servers() -> list[ModelServer]:
    return [model_server(name, slots=SLOTS, step_s=STEP_S) for name in ("one", "two")]


async def test_who_is_urgent_hardly_waits_at_ten_times_the_capacity(
    start_stack: StartStack,
) -> None:
    """Priority 10 asks for half of what there is: all of it is served, after less than one mean
    service time in the queue for 99 of 100. Nobody sees an error of the server's kind, and who is
    refused is told when to come back."""
    arguments = ["--max-concurrency", str(SLOTS), "--request-ttl", "3"]
    stack = await start_stack(servers(), arguments=arguments)
    arrivals = Arrivals(await stack.gateway())
    await arrivals.run()
    await stack.at_rest()

    assert set(arrivals.statuses["interactive"]) == {200}
    waits_s = sorted(arrivals.waits_s["interactive"])
    assert waits_s[int(0.99 * len(waits_s))] <= SERVICE_S
    statuses = Counter[int]()
    for counted in arrivals.statuses.values():
        statuses += counted
    assert set(statuses) == {200, 429}
    assert statuses[429] > statuses[200]
    assert all(1 <= advice_s <= 300 for advice_s in arrivals.advice_s)
    assert max(arrivals.advice_s) > 1
    # The second priority gets what the first leaves, the last next to nothing.
    served = {objective: counted[200] for objective, counted in arrivals.statuses.items()}
    assert served[""] > 3 * served["batch"]
