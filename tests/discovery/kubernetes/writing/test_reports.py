"""Which Events come of what becomes of the pools and the objectives."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import msgspec

from epp.discovery.kubernetes.objects import InferenceObjective, InferencePool, ObjectMeta
from epp.discovery.kubernetes.view import KnownPool
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName
from epp.discovery.kubernetes.writing.reports import PoolReports
from tests.engines.virtual_time import run_virtual

if TYPE_CHECKING:
    from epp.discovery.kubernetes.writing.events import EventSubject, EventWriter

GROUP = "inference.networking.k8s.io"
OURS = PoolName(GROUP, "InferencePool", "ours")
KNOWN = KnownPools(served={OURS}, wanted={OURS}, existing={OURS}, kinds={(GROUP, "InferencePool")})


class Events:
    """What the writer is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []
        self.subjects: list[EventSubject] = []
        self.endpoints: dict[str, int] = {}

    def follow_pools(self, pools: Any) -> None:
        self.subjects = list(pools)

    def follow_endpoints(self, pool: str, count: int) -> None:
        self.endpoints[pool] = count

    def tell(self, pool: str, reason: str, note: str) -> None:
        self.told.append((pool, reason, note))


class World:
    def __init__(self, **options: str) -> None:
        self.events = Events()
        self.pools: list[KnownPool] = []
        self.reports = PoolReports(
            cast("EventWriter", self.events),
            pools=lambda: iter(self.pools),
            api_version=f"{GROUP}/v1",
            **options,
        )

    def put(self, name: str, *, priority: object = 1, labels: int = 0) -> None:
        found = InferenceObjective(
            metadata=ObjectMeta(name=name, namespace="default", labels={"n": str(labels)}),
            spec={"priority": priority, "poolRef": {"name": "ours"}},
        )
        self.reports.follow_objectives("llm-d.ai", Changes(present=(found,)))


def pool(
    name: str, *, is_wanted: bool = True, problem: str = "", endpoints: int | None = None
) -> KnownPool:
    found = InferencePool(metadata=ObjectMeta(name=name, namespace="default", uid=f"u-{name}"))
    return KnownPool(found=found, is_wanted=is_wanted, problem=problem, endpoints=endpoints)


def virtually(main: Callable[[World], Any], **options: str) -> None:
    async def run() -> None:
        world = World(**options)
        running = asyncio.create_task(world.reports.run())
        try:
            await main(world)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(run())


def test_the_pools_that_are_served_are_followed_with_their_endpoints_once_known() -> None:
    async def main(world: World) -> None:
        world.pools = [pool("ours"), pool("theirs", is_wanted=False, endpoints=7)]
        await asyncio.sleep(1.5)
        [subject] = world.events.subjects
        assert (subject.key, subject.uid) == ("default/ours", "u-ours")
        assert subject.api_version == f"{GROUP}/v1"
        assert world.events.endpoints == {}
        world.pools = [pool("ours", endpoints=0)]
        await asyncio.sleep(1.0)
        assert world.events.endpoints == {"default/ours": 0}

    virtually(main)


def test_events_are_about_imports_where_these_are_served() -> None:
    async def main(world: World) -> None:
        world.pools = [pool("ours")]
        await asyncio.sleep(1.5)
        assert [subject.kind for subject in world.events.subjects] == ["InferencePoolImport"]

    virtually(main, kind="InferencePoolImport")


def test_a_pool_that_is_no_good_is_told_of_once_for_each_reason() -> None:
    async def main(world: World) -> None:
        for problem in ("no ports", "no ports", "", "no ports", "no selector"):
            world.pools = [pool("ours", problem=problem)]
            await asyncio.sleep(1.0)
        assert [note for _, _, note in world.events.told] == ["no ports", "no ports", "no selector"]
        assert {reason for _, reason, _ in world.events.told} == {"PoolRejected"}

    virtually(main)


def test_an_objective_that_is_no_good_is_told_of_when_it_becomes_so() -> None:
    async def main(world: World) -> None:
        world.put("good")
        world.put("bad", priority="high")
        await asyncio.sleep(2.0)
        assert world.events.told == []  # whose they are is not known yet
        world.reports.follow_pools(KNOWN)
        await asyncio.sleep(1.5)
        [(key, reason, note)] = world.events.told
        assert (key, reason) == ("default/ours", "ObjectiveRejected")
        assert note.startswith("InferenceObjective default/bad of llm-d.ai: spec.priority: ")
        for labels in range(3):
            world.put("bad", priority="high", labels=labels)
            world.reports.follow_pools(msgspec.structs.replace(KNOWN, kinds=frozenset()))
            await asyncio.sleep(1.0)
        assert len(world.events.told) == 1
        world.put("bad")
        await asyncio.sleep(1.0)
        world.put("bad", priority="high")
        await asyncio.sleep(1.0)
        assert len(world.events.told) == 2

    virtually(main)


def test_an_objective_that_is_gone_before_it_is_looked_at_is_no_news() -> None:
    async def main(world: World) -> None:
        world.reports.follow_pools(KNOWN)
        await asyncio.sleep(0.5)
        world.put("bad", priority="high")
        [gone] = world.reports._objectives.values()
        world.reports.follow_objectives("llm-d.ai", Changes(gone=(gone,)))
        await asyncio.sleep(2.0)
        assert world.events.told == []

    virtually(main)


def test_a_rejected_configuration_is_told_of_on_all_pools() -> None:
    async def main(world: World) -> None:
        world.pools = [pool("ours"), pool("too"), pool("theirs", is_wanted=False)]
        await asyncio.sleep(0.5)
        world.reports.configuration_rejected("line 3: no such plugin")
        assert world.events.told == [
            ("default/ours", "ConfigurationRejected", "line 3: no such plugin"),
            ("default/too", "ConfigurationRejected", "line 3: no such plugin"),
        ]

    virtually(main)
