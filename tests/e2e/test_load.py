"""Many more clients than slots, for a while."""

import asyncio
import random
from collections import Counter

from .conftest import StartStack
from .http1 import Http1, request_head
from .stack import Gateway, model_server
from .support import chat

CLIENTS = 500
SECONDS = 20.0
CHAT = "/v1/chat/completions"
PRIORITIES = {"interactive": 10, "": 0, "batch": -10, "impatient": 5}


class Crowd:
    """Five hundred clients; one in ten is impatient and hangs up at some moment."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ends_s = asyncio.get_running_loop().time() + SECONDS
        self.sent: Counter[int] = Counter()
        self.results: Counter[tuple[int, str]] = Counter()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                kind = (*(("interactive", "", "batch") * 3), "impatient")[number % 10]
                tasks.create_task(self._client(number, kind))

    async def _client(self, number: int, objective: str) -> None:
        rng = random.Random(number)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(rng.uniform(0, 0.5))
        while loop.time() < self._ends_s:
            async with Http1(self._gateway.port) as http1:
                # Until something goes wrong, all on one connection.
                while loop.time() < self._ends_s and await self._one(http1, rng, objective):
                    pass

    async def _one(self, http1: Http1, rng: random.Random, objective: str) -> bool:
        """Send a request; return whether the connection is still good."""
        priority = PRIORITIES[objective]
        body = chat("hello", rng.randint(1, 5), stream=rng.random() < 0.5)
        headers = [("content-length", str(len(body)))]
        headers += [("x-llm-d-inference-objective", objective)] if objective else []
        self.sent[priority] += 1
        await http1.send(request_head("POST", CHAT, headers) + body)
        if objective == "impatient":
            return await self._wait_impatiently(http1, rng)
        answer = await http1.response()
        whole = b"[DONE]" in answer.body or b'"usage"' in answer.body or answer.status != 200
        self.results[priority, str(answer.status) if whole else "cut"] += 1
        if answer.status != 200:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            await asyncio.sleep(rng.uniform(0.5, 1.5))
        return True

    async def _wait_impatiently(self, http1: Http1, rng: random.Random) -> bool:
        try:
            async with asyncio.timeout(rng.uniform(0.2, 0.8)):
                answer = await http1.response()
        except TimeoutError:
            (http1.reset if rng.random() < 0.5 else http1.close)()
            self.results[PRIORITIES["impatient"], "hung up"] += 1
            return False
        self.results[PRIORITIES["impatient"], str(answer.status)] += 1
        return True


async def test_five_hundred_clients_share_four_slots_for_twenty_seconds(
    start_stack: StartStack,
) -> None:
    """Every request has exactly one outcome, and no server ever has more than its limit.

    The limit is checked at the servers. Those that hang up are counted apart, because a request
    whose client is gone before it was whole never enters.
    """
    servers = [model_server(name, step_s=0.005) for name in ("one", "two")]
    arguments = ["--request-ttl", "3", "--max-queued-requests", "300"]
    stack = await start_stack(servers, arguments=arguments)
    stack.manifests.objectives({name: p for name, p in PRIORITIES.items() if name})
    await stack.reloaded(2)
    crowd = Crowd(await stack.gateway())
    await crowd.run()
    await stack.at_rest()

    for server in servers:
        state = server.state()
        assert max(state.peak_in_flight, state.peak_running) <= 2
        assert state.finished > 50
    metrics = await stack.metrics()
    assert sum(crowd.results.values()) == sum(crowd.sent.values())
    for priority, sent in crowd.sent.items():
        outcomes = metrics.outcomes(priority=priority)
        refused = sum(count for name, count in outcomes.items() if is_refusal(name))
        if priority == PRIORITIES["impatient"]:
            assert crowd.results[priority, "hung up"] > 0
            assert sum(outcomes.values()) <= sent
            assert refused >= crowd.results[priority, "429"]
            assert outcomes["dispatched"] >= crowd.results[priority, "200"]
        else:
            assert sum(outcomes.values()) == sent
            assert refused == crowd.results[priority, "429"]
            assert outcomes.get("dispatched", 0) == crowd.results[priority, "200"]
    seen = metrics.outcomes(); print(seen, crowd.results)
    assert {"dispatched", "cancelled"} < seen.keys(), seen
    assert seen["dispatched"] > 200, seen
    # Capacity goes to the highest first: who is urgent is served far more than who is not.
    assert crowd.results[10, "200"] > 2 * crowd.results[-10, "200"]


def is_refusal(outcome: str) -> bool:
    return outcome not in ("dispatched", "cancelled")
