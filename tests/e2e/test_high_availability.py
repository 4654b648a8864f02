"""Two EPPs, of which one leads: it is killed, or told to stop, while requests run.

``pytest -s tests/e2e/test_high_availability.py`` prints what that costs.
"""

import asyncio
import time
from collections import Counter

from .cluster import ClusterStack
from .conftest import StartCluster
from .epp_process import EppProcess
from .http1 import Http1
from .stack import Gateway
from .support import Metrics, completion, eventually

LEASE_S = 3
ARGUMENTS = (
    "--ha-enable-leader-election",
    *("--ha-lease-duration", str(LEASE_S), "--ha-renew-interval", "1"),
    *("--handover-timeout", "1.5"),
)
CLIENTS = 8
TOKENS = 5
BY_EPP, WITHOUT, LOST = "by the EPP", "without it", "lost"


class Load:
    """Clients that send one request after the other, and what became of each request."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._stops = False
        self.seen: Counter[str] = Counter()
        self.picked_s: list[float] = []
        self.problems: Counter[str] = Counter()

    async def run(self) -> None:
        while not self._stops:
            result = await self._one()
            self.seen[result] += 1
            if result == BY_EPP:
                self.picked_s.append(time.monotonic())

    def stop(self) -> None:
        self._stops = True

    def longest_gap_s(self) -> float:
        """Return the longest time in which no answer came that the EPP had picked a server for."""
        pairs = zip(self.picked_s, self.picked_s[1:], strict=False)
        return max(later - earlier for earlier, later in pairs)

    async def picks_again(self) -> None:
        """Wait until an EPP has picked for requests that were sent from now on."""
        already = self.seen[BY_EPP]
        await eventually(lambda: self.seen[BY_EPP] >= already + 5 * CLIENTS)

    def told(self, what: str, took_over_s: float) -> str:
        """Return what there is to say."""
        return (
            f"\n{what}: of {self.seen.total()} requests {self.seen[LOST]} lost, "
            f"{self.seen[WITHOUT]} served without the EPP; the follower leads after "
            f"{took_over_s:.2f} s, no picks for {self.longest_gap_s():.2f} s"
        )

    async def _one(self) -> str:
        try:
            async with Http1(self._gateway.port) as http1:
                answer = await http1.post("/v1/completions", completion("x", TOKENS))
        except (EOFError, ConnectionError):
            self.problems["cut"] += 1
            return LOST
        if answer.status != 200:
            self.problems[f"{answer.status} {answer.body[:200]!r}"] += 1
            return LOST
        return BY_EPP if "x-queue-wait-ms" in answer.headers else WITHOUT


async def leads(cluster: ClusterStack, epp: EppProcess) -> bool:
    return Metrics(await epp.page(cluster.client)).sum("leader") == 1


async def leader_and_follower(cluster: ClusterStack) -> tuple[EppProcess, EppProcess]:
    """Wait until there is a leader; return both, it first."""

    async def exists() -> bool:
        return sum([await leads(cluster, epp) for epp in cluster.epps]) == 1

    await eventually(exists)
    first, second = cluster.epps
    return (first, second) if await leads(cluster, first) else (second, first)


async def gateway_of_both(cluster: ClusterStack, *, fail_open: bool) -> Gateway:
    """Return a gateway that has found out who leads."""
    replica = ("127.0.0.1", cluster.epps[1].ext_proc_port)
    gateway = await cluster.gateway(ext_proc_replicas=(replica,), fail_open=fail_open)

    async def knows_the_leader() -> bool:
        return await gateway.stat("cluster.ext_proc.membership_healthy") == 1

    await eventually(knows_the_leader)
    return gateway


async def test_the_follower_takes_over_when_the_leader_is_killed(
    start_cluster: StartCluster,
) -> None:
    """It leads when the lease is over, and picks until then as well: there is nobody else to ask.

    Fail-close, so that whatever found no EPP would be lost. What the leader held is lost, and
    hardly anything else.
    """
    cluster = await start_cluster(["one", "two"], arguments=ARGUMENTS, epps=2, max_concurrency=8)
    leader, follower = await leader_and_follower(cluster)
    gateway = await gateway_of_both(cluster, fail_open=False)
    load = Load(gateway)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(load.run())
        await load.picks_again()
        began_s = time.monotonic()
        await leader.kill()
        took_over_s = await eventually(lambda: leads(cluster, follower)) - began_s
        await load.picks_again()
        load.stop()
    print(load.told("leader killed, fail-close", took_over_s))
    assert took_over_s <= LEASE_S + 1.0  # and up to half an interval, and the way there
    assert load.seen[LOST] <= 2 * CLIENTS, load.problems


async def test_an_orderly_restart_loses_no_request(start_cluster: StartCluster) -> None:
    """The leader is stopped and started again, and follows then.

    Fail-close, so that whatever found no EPP would be lost.
    """
    cluster = await start_cluster(["one", "two"], arguments=ARGUMENTS, epps=2, max_concurrency=8)
    gateway = await gateway_of_both(cluster, fail_open=False)
    leader, follower = await leader_and_follower(cluster)
    load = Load(gateway)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CLIENTS):
            tasks.create_task(load.run())
        await load.picks_again()
        began_s = time.monotonic()
        leader.terminate()
        took_over_s = await eventually(lambda: leads(cluster, follower)) - began_s
        assert await leader.process.exit == 0
        await leader.start()
        await load.picks_again()
        load.stop()
    print(load.told("leader restarted in good order, fail-close", took_over_s))
    assert took_over_s < 1.0
    assert not load.seen[LOST], load.problems
    assert not load.seen[WITHOUT]
