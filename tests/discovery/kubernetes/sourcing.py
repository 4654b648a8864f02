"""A source at work on the emulator, for tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from epp.discovery.cluster import ClusterOptions
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.source import KubernetesSource
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.writing.acceptance import KnownPools
from tests.apiserver import ApiServer
from tests.discovery.kubernetes.world import Told

PACE = Pace(first_pause_s=0.01, longest_pause_s=0.02, relist_spread_s=0.01)
COALESCE_S = 0.005


class Served:
    """A source of the emulator's objects, and what it told."""

    def __init__(self, source: KubernetesSource, known: list[KnownPools], heard: list[str]) -> None:
        self.source = source
        self.told = Told()
        self.known = known
        self.heard = heard

    def has(self, *names: str, key: str = "default/pool") -> bool:
        return key in self.told.pools and set(self.told.endpoints(key)) == {
            f"default/{name}" for name in names
        }


@contextlib.asynccontextmanager
async def source_of(api: ApiServer, directory: Path, **options: Any) -> AsyncIterator[Served]:
    """A source that follows nothing yet."""
    connection = ClusterConnection(api.kubeconfig(directory))
    await connection.open()
    known: list[KnownPools] = []
    heard: list[str] = []
    more = {"sleep": options.pop("sleep")} if "sleep" in options else {}
    chosen = {"pool_names": ("pool",)} | options
    if "endpoint_selector" in options or "pool_selector" in options:
        del chosen["pool_names"]
    source = KubernetesSource(
        connection,
        ClusterOptions(**chosen),
        coalesce_s=COALESCE_S,
        pace=PACE,
        on_pools=known.append,
        on_objectives=lambda group, changes: heard.extend(
            f"{group}/{found.metadata.name}" for found in (*changes.present, *changes.gone)
        ),
        **more,
    )
    try:
        yield Served(source, known, heard)
    finally:
        await source.close()
        await connection.close()


@contextlib.asynccontextmanager
async def serving(api: ApiServer, directory: Path, **options: Any) -> AsyncIterator[Served]:
    """A source that has loaded and runs."""
    async with source_of(api, directory, **options) as served:
        async with asyncio.timeout(10):
            await served.source.load(served.told)
        running = asyncio.create_task(served.source.run(served.told))
        try:
            yield served
        finally:
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
