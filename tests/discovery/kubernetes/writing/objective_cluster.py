"""Objectives in virtual time, and the writers of their conditions."""

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec

from epp.discovery.kubernetes.api.errors import ApiError
from epp.discovery.kubernetes.objects import (
    Condition,
    InferenceObjective,
    ObjectiveStatus,
    ObjectMeta,
)
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName
from epp.discovery.kubernetes.writing.status import StatusWriter
from tests.engines.virtual_time import run_virtual

if TYPE_CHECKING:
    from epp.discovery.kubernetes.api.connection import ClusterConnection

GROUP = "inference.networking.k8s.io"
API = "inference.networking.x-k8s.io"
START = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATENCY_S = 0.01
KINDS = frozenset({(GROUP, "InferencePool")})


def now_s() -> float:
    return asyncio.get_running_loop().time()


def pool(name: str, group: str = GROUP) -> PoolName:
    return PoolName(group, "InferencePool", name)


def knows(*existing: str, wants: str = "") -> KnownPools:
    """What an EPP knows that serves the pools with these letters, where they exist."""
    return KnownPools(
        served=frozenset(pool(name) for name in wants if name in existing),
        wanted=frozenset(pool(name) for name in wants),
        existing=frozenset(pool(name) for name in existing),
        kinds=KINDS,
    )


class Cluster:
    """Objectives in virtual time, and the writers that see them ``lag_s`` later.

    ``writes`` are the requests to change something: when, which object, what was wanted.
    """

    def __init__(self) -> None:
        self.objectives: dict[str, InferenceObjective] = {}
        self.writes: list[tuple[float, str, Condition]] = []
        self.watchers: list[tuple[StatusWriter, float]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.fault: Callable[[], Exception | None] = lambda: None

    def writer(
        self, *, lag_s: float = LATENCY_S, may_write: Callable[[], bool] = lambda: True
    ) -> StatusWriter:
        made = StatusWriter(
            cast("ClusterConnection", self),
            may_write=may_write,
            rng=random.Random(1),
            clock=now_s,
            utc_now=lambda: START + timedelta(seconds=now_s()),
        )
        self.watchers.append((made, lag_s))
        made.follow_objectives(API, Changes(present=tuple(self.objectives.values())))
        self.tasks.append(asyncio.create_task(made.run()))
        return made

    def put(self, name: str, pool_name: PoolName) -> None:
        known = self.objectives.get(name)
        generation = 1 if known is None else known.metadata.generation + 1
        reference = {"group": pool_name.group, "kind": pool_name.kind, "name": pool_name.name}
        self.store(
            InferenceObjective(
                metadata=ObjectMeta(name=name, namespace="default", generation=generation),
                spec={"poolRef": reference},
                status=ObjectiveStatus() if known is None else known.status,
            )
        )

    def delete(self, name: str) -> None:
        gone = self.objectives.pop(name)
        for writer, _ in self.watchers:
            writer.follow_objectives(API, Changes(gone=(gone,)))

    def accepted(self, name: str) -> Condition:
        [found] = self.objectives[name].status.conditions
        return found

    def said(self, name: str) -> tuple[str, str]:
        found = self.accepted(name)
        assert found.observed_generation == self.objectives[name].metadata.generation
        return found.status, found.reason

    async def apply(self, path: str, body: Any, *, field_manager: str, force: bool = True) -> bytes:
        assert (field_manager, force) == ("epp", True)
        name = body["metadata"]["name"]
        assert path == (
            f"/apis/{API}/v1alpha2/namespaces/default/inferenceobjectives/{name}/status"
        )
        [wanted] = body["status"]["conditions"]
        self.writes.append((now_s(), name, wanted))
        await asyncio.sleep(LATENCY_S)
        error = self.fault()
        if error is not None:
            raise error
        known = self.objectives.get(name)
        if known is None:
            raise ApiError("PATCH", 404, "NotFound")
        status = ObjectiveStatus(conditions=(wanted,))
        self.store(msgspec.structs.replace(known, status=status))
        return b"{}"

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def store(self, objective: InferenceObjective) -> None:
        self.objectives[objective.metadata.name] = objective
        for writer, lag_s in self.watchers:
            changes = Changes(present=(objective,))
            asyncio.get_running_loop().call_later(lag_s, writer.follow_objectives, API, changes)


def virtually(main: Callable[[Cluster], Any]) -> None:
    async def run() -> None:
        cluster = Cluster()
        try:
            await main(cluster)
        finally:
            await cluster.stop()

    run_virtual(run())
