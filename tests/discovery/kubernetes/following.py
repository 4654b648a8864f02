"""A reflector at work, for tests: time that passes at once, and all that it told of."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watch.reflector import Reflector
from tests.discovery.kubernetes.scripted import DEADLINE_S, ScriptedServer, kubeconfig

PATH = "/apis/example.com/v1/namespaces/ns/things"


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    resource_version: str = ""


class Thing(msgspec.Struct, frozen=True):
    metadata: Meta
    value: int = 0


class Following:
    """A reflector of things, what it told of, and the pauses that it made.

    Each pause is over at once, and moves the clock on; a watch seems to last ``watch_lasts_s``.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        *,
        pace: Pace = Pace(),  # noqa: B008
        watch_lasts_s: float = 5.0,
        rng: random.Random | None = None,
        **options: Any,
    ) -> None:
        self.told: list[tuple[dict[str, int], list[str]]] = []
        self.values: dict[str, int] = {}
        self.pauses_s: list[float] = []
        self.now_s = 1000.0
        self._watch_lasts_s = watch_lasts_s
        self.reflector = Reflector(
            connection,
            PATH,
            Thing,
            self._take,
            pace=pace,
            rng=rng or random.Random(7),
            clock=self._clock,
            sleep=self._sleep,
            **options,
        )

    def _clock(self) -> float:
        self.now_s += self._watch_lasts_s
        return self.now_s

    def _take(self, changes: Changes[Thing]) -> None:
        present = {item.metadata.name: item.value for item in changes.present}
        gone = [item.metadata.name for item in changes.gone]
        self.told.append((present, gone))
        self.values |= present
        for name in gone:
            del self.values[name]

    async def _sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(url: str, directory: Path, **options: Any) -> AsyncIterator[ClusterConnection]:
    path = directory / "kubeconfig"
    path.write_bytes(msgspec.json.encode(kubeconfig(url)))
    connection = ClusterConnection(path, **options)
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def following(
    server: ScriptedServer, directory: Path, *, limits: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Following]:
    """A reflector that runs against this server."""
    async with connected(server.url, directory, **(limits or {})) as connection:
        seen = Following(connection, **options)
        running = asyncio.create_task(seen.reflector.run())
        try:
            yield seen
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.wait([running], timeout=DEADLINE_S)
