"""Many more clients than slots, for a while."""

import asyncio
import random
from collections import Counter

from .conftest import StartStack
from .http1 import Http1, request_head
from .stack import Gateway, Stack, model_server
from .support import chat

CHAT = "/v1/chat/completions"
PRIORITIES = {"interactive": 10, "": 0, "batch": -10}


class Crowd:
    """Clients that send one request after the other; some kinds may be impatient and hang up."""

    def __init__(self, gateway: Gateway, clients: int, seconds: float) -> None:
        self._gateway = gateway
        self._clients = clients
        self._ends_s = asyncio.get_running_loop().time() + seconds
        self.sent: Counter[int] = Counter()
        self.results: Counter[tuple[int, str]] = Counter()

    async def run(self, *, impatient: bool = False) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._clients):
                objective = tuple(PRIORITIES)[number % 3]
                rng = random.Random(number)
                tasks.create_task(self._client(rng, objective, impatient and number % 2 == 0))

    def count(self, priority: int, result: str) -> int:
        return self.results[priority, result]

    async def _client(self, rng: random.Random, objective: str, impatient: bool) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(rng.uniform(0, 0.5))
        while loop.time() < self._ends_s:
            async with Http1(self._gateway.port) as http1:
                # Until something goes wrong, all on one connection.
                while loop.time() < self._ends_s:
                    patience_s = rng.uniform(0.005, 0.3) if impatient else None
                    if not await self._one(http1, rng, objective, patience_s):
                        break

    async def _one(
        self, http1: Http1, rng: random.Random, objective: str, patience_s: float | None
    ) -> bool:
        """Send a request; return whether the connection is still good."""
        priority = PRIORITIES[objective]
        body = chat("hello", rng.randint(1, 5), stream=rng.random() < 0.5)
        headers = [("content-length", str(len(body)))]
        headers += [("x-llm-d-inference-objective", objective)] if objective else []
        self.sent[priority] += 1
        await http1.send(request_head("POST", CHAT, headers) + body)
        try:
            async with asyncio.timeout(patience_s):
                answer = await http1.response()
        except TimeoutError:
            assert patience_s is not None, "a request hangs"
            (http1.reset if rng.random() < 0.5 else http1.close)()
            self.results[priority, "hung up"] += 1
            return False
        is_whole = answer.status != 200 or b"[DONE]" in answer.body or b'"usage"' in answer.body
        self.results[priority, str(answer.status) if is_whole else "cut"] += 1
        if answer.status != 200:
            assert 1 <= int(answer.headers["retry-after"]) <= 300
            await asyncio.sleep(rng.uniform(0.5, 1.5))
        return True


async def two_servers(start_stack: StartStack) -> Stack:
    servers = [model_server(name, step_s=0.005) for name in ("one", "two")]
    arguments = ["--request-ttl", "3", "--max-queued-requests", "300"]
    return await start_stack(servers, arguments=arguments)


def is_refusal(outcome: str) -> bool:
    return outcome not in ("dispatched", "cancelled")


async def test_five_hundred_clients_share_four_slots_for_twenty_seconds(
    start_stack: StartStack,
) -> None:
    """Each request has one outcome, and no server ever has more than its limit.

    The sum of outcomes is that of the requests, by priority, at the clients and at the EPP; the
    limit is checked at the servers.
    """
    stack = await two_servers(start_stack)
    crowd = Crowd(await stack.gateway(), clients=500, seconds=20.0)
    await crowd.run()
    await stack.at_rest()

    for server in stack.servers:
        state = server.state()
        assert state.peak_in_flight <= 2
        assert (state.aborted, state.failed) == (0, 0)
    metrics = await stack.metrics()
    assert set(crowd.sent) == set(PRIORITIES.values())
    for priority, sent in crowd.sent.items():
        outcomes = metrics.outcomes(priority=priority)
        assert sum(outcomes.values()) == sent
        assert outcomes.get("dispatched", 0) == crowd.count(priority, "200")
        refused = sum(count for name, count in outcomes.items() if is_refusal(name))
        assert refused == crowd.count(priority, "429")
        assert refused + crowd.count(priority, "200") == sent
    finished = sum(server.state().finished for server in stack.servers)
    assert finished == metrics.outcomes()["dispatched"] > 200
    # Capacity goes to the highest first: who is urgent is served far more than who is not.
    assert crowd.count(10, "200") > 2 * crowd.count(-10, "200")


async def test_clients_that_come_and_go_leave_nothing_behind(start_stack: StartStack) -> None:
    """Half of them hang up at any moment: before, in, and after the queue.

    A request whose client is gone before it was whole never enters, so here outcomes may be fewer.
    """
    stack = await two_servers(start_stack)
    crowd = Crowd(await stack.gateway(), clients=60, seconds=2.5)
    await crowd.run(impatient=True)
    await stack.at_rest()

    assert sum(crowd.results.values()) == sum(crowd.sent.values())
    assert sum(crowd.count(priority, "hung up") for priority in crowd.sent) > 20
    metrics = await stack.metrics()
    for priority, sent in crowd.sent.items():
        outcomes = metrics.outcomes(priority=priority)
        assert sum(outcomes.values()) <= sent
        assert outcomes.get("dispatched", 0) >= crowd.count(priority, "200")
    assert metrics.outcomes()["cancelled"] > 0
    assert sum(server.state().aborted for server in stack.servers) > 0
