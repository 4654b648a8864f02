"""Reflectors against the emulated API server: whatever happens, they come to what it has."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.objects import Pod
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watch.reflector import Reflector
from tests.apiserver import ApiServer, pod
from tests.discovery.kubernetes.scripted import DEADLINE_S

PODS = "/api/v1/namespaces/models/pods"
# As long as they are, for people; the order of magnitude between them stays.
BRISK = Pace(
    first_pause_s=0.01,
    longest_pause_s=0.05,
    idle_limit_s=0.5,
    shortest_watch_s=0.0,
    relist_spread_s=0.01,
    absent_s=0.02,
    doubtful_s=0.01,
)


class Follower:
    """What a reflector of pods tells of, by name: which version there is."""

    def __init__(self, connection: ClusterConnection, **options: object) -> None:
        self.versions: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._paused = asyncio.Event()
        self.reflector = Reflector(
            connection,
            PODS,
            Pod,
            self._take,
            pace=BRISK,
            rng=random.Random(3),
            sleep=self._sleep,
            **options,
        )

    async def _sleep(self, pause_s: float) -> None:
        self._paused.set()
        await asyncio.sleep(pause_s)

    async def next_pause(self) -> None:
        self._paused.clear()
        await self._paused.wait()

    def _take(self, changes: Changes[Pod]) -> None:
        for item in changes.present:
            self.versions[item.metadata.name] = item.metadata.resource_version
        for item in changes.gone:
            del self.versions[item.metadata.name]
        self._changed.set()

    async def until(self, is_so: Callable[[dict[str, str]], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so(self.versions):
                self._changed.clear()
                await self._changed.wait()


@contextlib.asynccontextmanager
async def followed(api: ApiServer, directory: Path, **options: object) -> AsyncIterator[Follower]:
    connection = ClusterConnection(api.kubeconfig(directory))
    await connection.open()
    follower = Follower(connection, **options)
    running = asyncio.create_task(follower.reflector.run())
    try:
        await asyncio.wait_for(follower.reflector.known(), DEADLINE_S)
        yield follower
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.wait([running])
        await connection.close()


def versions(api: ApiServer) -> dict[str, str]:
    items = api.items("v1", "Pod", "models")
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}


def put(api: ApiServer, name: str, **changes: object) -> None:
    api.put(pod(name, namespace="models", **changes))


async def test_many_pages(tmp_path: Path) -> None:
    async with ApiServer() as api:
        for number in range(501):
            put(api, f"pod-{number}")
        async with followed(api, tmp_path) as follower:
            assert follower.versions == versions(api)
            assert len(api.asked_for("list", "pods")) == 2


async def test_an_api_server_that_was_away_is_not_asked_for_lists(tmp_path: Path) -> None:
    async with ApiServer() as api:
        put(api, "a")
        async with followed(api, tmp_path) as follower:
            await api.stop()
            put(api, "b")
            assert follower.versions.keys() == {"a"}
            await api.start()
            await follower.until(lambda now: now == versions(api))
            assert len(api.asked_for("list", "pods")) == 1


async def test_a_past_that_was_forgotten_meanwhile(tmp_path: Path) -> None:
    async with ApiServer() as api:
        put(api, "a")
        put(api, "b")
        async with followed(api, tmp_path) as follower:
            await api.stop()
            api.delete("v1", "Pod", "models", "a")
            put(api, "c")
            api.compact()
            await api.start()
            await follower.until(lambda now: now == versions(api))
            assert len(api.asked_for("list", "pods")) == 2
            assert follower.reflector.statistics.restarts["expired"] == 1


async def test_a_half_open_watch_is_left_and_misses_nothing(tmp_path: Path) -> None:
    async with ApiServer() as api, followed(api, tmp_path) as follower:
        api.half_open()
        put(api, "a")
        async with asyncio.timeout(DEADLINE_S):
            while len(api.asked_for("watch", "pods")) < 2:
                await follower.next_pause()
        api.half_open(False)
        await follower.until(lambda now: now == versions(api))
        assert len(api.asked_for("list", "pods")) == 1


async def test_only_what_is_selected(tmp_path: Path) -> None:
    async with ApiServer() as api:
        put(api, "a", labels={"app": "x"})
        put(api, "b", labels={"app": "y"})
        selected = {"labelSelector": "app=x"}
        async with followed(api, tmp_path, params=selected) as follower:
            assert follower.versions.keys() == {"a"}
            put(api, "b", labels={"app": "x"})
            await follower.until(lambda now: now.keys() == {"a", "b"})
            put(api, "a", labels={"app": "y"})
            await follower.until(lambda now: now.keys() == {"b"})


async def test_a_kind_that_comes_and_goes(tmp_path: Path) -> None:
    async with ApiServer() as api:
        api.uninstall("v1", "Pod")
        async with followed(api, tmp_path) as follower:
            assert follower.versions == {}
            assert "there is no such kind" in follower.reflector.problem
            api.install("v1", "Pod")
            put(api, "a")
            await follower.until(lambda now: now.keys() == {"a"})
            assert follower.reflector.problem == ""
            api.uninstall("v1", "Pod")
            await follower.until(lambda now: not now)


async def stopped_for_a_moment(api: ApiServer) -> None:
    await api.stop()
    put(api, "meanwhile")
    await api.start()


names = st.sampled_from(("a", "b", "c", "d"))
steps = st.one_of(
    st.tuples(st.just("put"), names, st.booleans()),
    st.tuples(st.just("put"), names, st.booleans()),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("settle")),
    st.tuples(st.just("drop"), st.booleans()),
    st.tuples(st.just("expire")),
    st.tuples(st.just("compact")),
    st.tuples(st.just("bookmark")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("duplicates"), st.integers(0, 2)),
    st.tuples(st.just("split"), st.sampled_from((0, 1, 100))),
    st.tuples(st.just("fail"), st.sampled_from((401, 403, 404, 429, 500, 503, 504))),
    st.tuples(st.just("break off")),
)


async def carry_out(api: ApiServer, follower: Follower, step: tuple) -> None:
    match step:
        case "put", name, ready:
            put(api, name, ready=ready)
        case "delete", name:
            if api.get("v1", "Pod", "models", name) is not None:
                api.delete("v1", "Pod", "models", name)
        case ("settle",):
            await follower.until(lambda now: now == versions(api))
        case "drop", reset:
            api.drop_watches(reset=reset)
        case ("expire",):
            api.expire_watches()
        case ("compact",):
            api.compact()
        case ("bookmark",):
            api.bookmark()
        case ("restart",):
            await stopped_for_a_moment(api)
        case "duplicates", times:
            api.duplicate_events(times)
        case "split", limit_bytes:
            api.split_chunks(limit_bytes)
        case "fail", status:
            api.fail(status, resource="pods")
        case ("break off",):
            api.break_off(resource="pods")


@settings(max_examples=60)
@given(script=st.lists(steps, max_size=30))
def test_any_history_converges(
    script: list[tuple], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        async with (
            ApiServer() as api,
            followed(api, tmp_path_factory.mktemp("config")) as follower,
        ):
            for step in script:
                await carry_out(api, follower, step)
            put(api, "last")
            await follower.until(lambda now: now == versions(api))
            assert follower.reflector.objects.keys() == {("models", name) for name in versions(api)}

    asyncio.run(run())
