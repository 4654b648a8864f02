"""Electors in virtual time, which all have the same API server."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.election.leader import LeaderElector
from tests.discovery.kubernetes.election.lease_api import LeaseApi, LeaseConnection

DURATION_S = 8.0
INTERVAL_S = 2.0
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
NAME = "epp-default-llm.llm-d.ai"


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Electors:
    """Electors that run, each with a connection of its own; what ``on_change`` told of each."""

    def __init__(self) -> None:
        self.api = LeaseApi()
        self.all: dict[str, LeaderElector] = {}
        self.connections: dict[str, LeaseConnection] = {}
        self.told: dict[str, list[bool]] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, identity: str, connection: LeaseConnection | None = None) -> LeaderElector:
        connection = connection or LeaseConnection(self.api)
        made = elector(cast("ClusterConnection", connection), identity)
        self.connections[identity] = connection
        self.all[identity] = made
        told: list[bool] = []
        self.told[identity] = told
        made.on_change = told.append
        self.tasks[identity] = asyncio.create_task(made.run())
        return made

    async def kill(self, identity: str) -> None:
        self.tasks[identity].cancel()
        await asyncio.gather(self.tasks[identity], return_exceptions=True)
        del self.all[identity]

    @property
    def leaders(self) -> list[str]:
        return [name for name, each in self.all.items() if each.is_leader]

    async def leader(self) -> tuple[str, float]:
        """Wait for a leader; return who it is and how long it took."""
        began_s = now_s()
        while not self.leaders:  # noqa: ASYNC110 - as another process would see it
            await asyncio.sleep(0.01)
        return self.leaders[0], now_s() - began_s

    async def stop(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


def elector(connection: ClusterConnection, identity: str, **options: Any) -> LeaderElector:
    return LeaderElector(
        connection,
        namespace="default",
        name=NAME,
        identity=identity,
        rng=random.Random(identity),
        **{
            "lease_duration_s": DURATION_S,
            "renew_interval_s": INTERVAL_S,
            "clock": now_s,
            "utc_now": lambda: START + timedelta(seconds=now_s()),
            **options,
        },
    )


@asynccontextmanager
async def electors(*identities: str) -> AsyncIterator[Electors]:
    made = Electors()
    for identity in identities:
        made.start(identity)
        await made.leader()
    try:
        yield made
    finally:
        await made.stop()
