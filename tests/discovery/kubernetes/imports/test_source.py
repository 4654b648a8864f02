"""Imported pools through the API servers of several clusters."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from epp.core.resources import Endpoint
from epp.discovery.cluster import ClusterOptions
from epp.discovery.declared import EXPERIMENTAL_GROUP, POOL_GROUP
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.imports.pools import CLUSTER_LABEL
from epp.discovery.kubernetes.imports.source import ImportSource
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName
from epp.errors import UsageError
from tests.apiserver import ApiServer, model_rewrite, objective, pod, pool, pool_import
from tests.apiserver.kubeconfig import Context, write_kubeconfig
from tests.discovery.kubernetes.world import Told
from tests.discovery.support import wait_until

_PACE = Pace(first_pause_s=0.01, longest_pause_s=0.02, relist_spread_s=0.01, absent_s=0.02)
_EXPORT = {"inference.networking.x-k8s.io/export": "ClusterSet"}
_POOL = (f"{POOL_GROUP}/v1", "InferencePool", "default", "pool")
_IMPORT = (f"{EXPERIMENTAL_GROUP}/v1alpha1", "InferencePoolImport", "default", "pool")


class Clusters:
    """Two clusters, ``east`` and ``west``; the EPP runs in ``east``, which is a member as well."""

    def __init__(self, east: ApiServer, west: ApiServer) -> None:
        self.east = east
        self.west = west
        for number, api in enumerate((east, west), 1):
            api.put(pool(annotations=_EXPORT))
            api.put(pod("one", f"10.0.{number}.1"))
        east.put(pool_import(clusters=("east", "west")))

    def kubeconfig(self, directory: Path) -> Path:
        contexts = {"east": Context(url=self.east.url), "west": Context(url=self.west.url)}
        return write_kubeconfig(directory / "kubeconfig", contexts)


@pytest.fixture
async def clusters() -> AsyncIterator[Clusters]:
    async with ApiServer() as east, ApiServer() as west:
        yield Clusters(east, west)


class Served:
    """A source, and what it told."""

    def __init__(self, source: ImportSource, known: list[KnownPools]) -> None:
        self.source = source
        self.told = Told()
        self.known = known

    @property
    def names(self) -> set[str]:
        return set(self.told.endpoints()) if "default/pool" in self.told.pools else set()


@contextlib.asynccontextmanager
async def source_of(
    clusters: Clusters, directory: Path, members: Sequence[str] = ("east", "west"), **options: Any
) -> AsyncIterator[Served]:
    """A source that follows nothing yet."""
    file = clusters.kubeconfig(directory)
    connection = ClusterConnection(file, "east")
    others = {name: ClusterConnection(file, name) for name in members}
    for each in (connection, *others.values()):
        await each.open()
    known: list[KnownPools] = []
    wait_s = options.pop("member_wait_s", 5.0)
    sleep = options.pop("sleep", asyncio.sleep)
    chosen = {"pool_names": ("pool",), "pool_group": EXPERIMENTAL_GROUP} | options
    source = ImportSource(
        connection,
        others,
        ClusterOptions(pool_kind="InferencePoolImport", **chosen),
        coalesce_s=0.005,
        member_wait_s=wait_s,
        pace=_PACE,
        on_pools=known.append,
        sleep=sleep,
    )
    try:
        yield Served(source, known)
    finally:
        await source.close()
        for each in (connection, *others.values()):
            await each.close()


@contextlib.asynccontextmanager
async def serving(
    clusters: Clusters, directory: Path, *members: str, **options: Any
) -> AsyncIterator[Served]:
    """A source that has loaded and runs."""
    async with source_of(clusters, directory, members or ("east", "west"), **options) as served:
        async with asyncio.timeout(10):
            await served.source.load(served.told)
        running = asyncio.create_task(served.source.run(served.told))
        try:
            yield served
        finally:
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()


async def test_load_returns_when_all_clusters_have_told(clusters: Clusters, tmp_path: Path) -> None:
    clusters.east.put(pool_import("unwanted", clusters=("east",)))
    clusters.west.put(pool("unwanted", annotations=_EXPORT))
    clusters.west.put(pool(ports=(9000,), selector={"app": "w"}, annotations=_EXPORT))
    clusters.west.put(pod("two", "10.0.2.2", labels={"app": "w"}))
    async with source_of(clusters, tmp_path) as served:
        await served.source.load(served.told)
        [(what, _, resources)] = served.told.calls
    assert what == "applied"
    assert resources.endpoints == (
        Endpoint(
            name="east/default/one",
            address="10.0.1.1",
            port=8000,
            labels={"app": "model", CLUSTER_LABEL: "east"},
        ),
        Endpoint(
            name="west/default/two",
            address="10.0.2.2",
            port=9000,
            labels={"app": "w", CLUSTER_LABEL: "west"},
        ),
    )
    assert [request.resource for request in clusters.west.asked_for("list")] == [
        "inferencepools",
        "pods",
    ]
    wanted = frozenset({PoolName(EXPERIMENTAL_GROUP, "InferencePoolImport", "pool")})
    assert served.known[-1].served == wanted == served.known[-1].wanted
    assert served.known[-1].kinds == {(EXPERIMENTAL_GROUP, "InferencePoolImport")}
    assert {name for _, _, name in served.known[-1].existing} == {"pool", "unwanted"}
    pools = {each.found.metadata.name: each for each in served.source.pools()}
    assert (pools["pool"].is_wanted, pools["pool"].endpoints) == (True, 2)
    assert (pools["unwanted"].is_wanted, pools["unwanted"].endpoints) == (False, None)


async def test_objectives_rewrites_and_annotations_are_of_the_local_cluster(
    clusters: Clusters, tmp_path: Path
) -> None:
    """And the pool that they refer to is the import, not the InferencePool of the same name."""
    mine = {"group": EXPERIMENTAL_GROUP, "kind": "InferencePoolImport", "name": "pool"}
    for name, reference in (("mine", mine), ("local", mine | {"kind": "InferencePool"})):
        made = objective(name, 3)
        made["spec"]["poolRef"] = reference
        clusters.east.put(made)
    rewrite = model_rewrite("r", [{"targets": [{"modelRewrite": "m"}]}])
    rewrite["spec"]["poolRef"] = mine
    clusters.east.put(rewrite)
    clusters.west.put(objective("remote", 3))
    found = pool_import(clusters=("east",))
    found["metadata"]["annotations"] = {"inference-epp/models": "small, big"}
    clusters.east.put(found)
    async with serving(clusters, tmp_path) as served:
        resources = served.told.pools["default/pool"]
        assert list(resources.objectives) == ["mine"]
        assert len(resources.rewrites) == 1
        assert resources.pool.models == ("small", "big")
        found["metadata"]["annotations"] = {"inference-epp/authorities": "no host"}
        found["status"]["controllers"][0]["exportingClusters"] = [{"name": "west"}]
        clusters.east.put(found)
        await wait_until(lambda: served.names == {"west/default/one"})
        assert served.told.pools["default/pool"].pool.models == ("small", "big")
        assert served.told.rejections == 1
        assert served.source.statistics().problems["InferencePoolImport"] == 1
        clusters.east.delete(*_IMPORT)
        await wait_until(lambda: not served.told.pools)
        await wait_until(
            lambda: not [w for w in clusters.west.open_watches if w.resource == "pods"]
        )


async def test_pods_of_both_clusters_come_and_go(clusters: Clusters, tmp_path: Path) -> None:
    async with serving(clusters, tmp_path) as served:
        served.told.take()
        clusters.west.put(pod("two", "10.0.2.2"))
        clusters.east.put(pod("one", "10.0.1.1", ready=False))
        await wait_until(lambda: served.names == {"west/default/one", "west/default/two"})
        clusters.west.terminate("default", "one")
        await wait_until(lambda: served.names == {"west/default/two"})
        assert {what for what, _, _ in served.told.calls} == {"changed"}


async def test_one_destination_in_two_clusters(
    clusters: Clusters, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(clusters, tmp_path) as served:
        clusters.west.put(pod("same", "10.0.1.1"))
        await wait_until(lambda: "several clusters" in caplog.text)
        assert served.told.endpoints() == {
            "east/default/one": "10.0.1.1:8000",
            "west/default/one": "10.0.2.1:8000",
        }
        assert "the first of which counts: 10.0.1.1:8000" in caplog.text
        clusters.east.delete("v1", "Pod", "default", "one")
        await wait_until(lambda: served.names == {"west/default/one", "west/default/same"})


async def test_only_what_is_exported_is_used(
    clusters: Clusters, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(clusters, tmp_path) as served:
        assert len(served.names) == 2
        clusters.west.put(pool())
        await wait_until(lambda: served.names == {"east/default/one"})
        await wait_until(lambda: "not used" in caplog.text)
        assert (
            "cluster west: InferencePool default/pool is not used: it is without the annotation "
            "inference.networking.x-k8s.io/export: ClusterSet"
        ) in caplog.messages
        clusters.west.put(pool(annotations=_EXPORT))
        await wait_until(lambda: len(served.names) == 2)
        clusters.west.delete(*_POOL)
        await wait_until(lambda: served.names == {"east/default/one"})
        await wait_until(lambda: "it does not exist" in caplog.text)
        clusters.east.put(pool_import(clusters=("west", "far")))
        await wait_until(lambda: not served.names)
        await wait_until(lambda: "not among --member-clusters, so not used: far" in caplog.text)
        assert list(served.told.pools) == ["default/pool"]


async def test_a_pool_of_a_member_that_is_no_good(
    clusters: Clusters, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it was before stays; where it was nothing, it is not used."""
    bad = pool(ports=(9000,), annotations=_EXPORT | {"inference-epp/authorities": "no host"})
    clusters.west.put(bad)
    async with serving(clusters, tmp_path) as served:
        assert served.names == {"east/default/one"}
        assert "InferencePool default/pool is not used: it is no good: metadata" in caplog.text
        assert "stays: cluster west: InferencePool.inference.networking.k8s.io" in caplog.text
        clusters.west.put(pool(annotations=_EXPORT))
        await wait_until(lambda: len(served.names) == 2)
        clusters.west.put(bad)
        await wait_until(lambda: served.told.rejections == 2)
        assert served.told.endpoints()["west/default/one"] == "10.0.2.1:8000"
        assert served.source.statistics().problems["InferencePool"] == 1


async def test_a_member_that_is_away_keeps_what_was_known(
    clusters: Clusters, tmp_path: Path
) -> None:
    """And loses it when the import does not name it any more, though nobody can be asked."""
    async with serving(clusters, tmp_path) as served:
        await clusters.west.stop()
        clusters.west.put(pod("two", "10.0.2.2"))
        clusters.east.put(pod("two", "10.0.1.2"))
        await wait_until(lambda: len(served.names) == 3)
        assert "west/default/one" in served.names

        def is_seen() -> bool:
            watches = served.source.statistics().watches
            return any(each.cluster == "west" and each.restarts["unreachable"] for each in watches)

        await wait_until(is_seen)
        clusters.east.put(pool_import(clusters=("east",)))
        await wait_until(lambda: served.names == {"east/default/one", "east/default/two"})
        clusters.east.put(pool_import(clusters=("east", "west")))
        await clusters.west.start()
        await wait_until(lambda: len(served.names) == 4)


async def test_a_member_that_is_not_there_at_the_start_joins_later(
    clusters: Clusters, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await clusters.west.stop()
    async with serving(clusters, tmp_path, member_wait_s=0.05) as served:
        assert "a member is not there, others are served: cluster west: " in caplog.text
        await wait_until(lambda: served.names == {"east/default/one"})
        assert "not used" not in caplog.text
        await clusters.west.start()
        await wait_until(lambda: len(served.names) == 2)


async def test_watches_are_told_apart_by_cluster(clusters: Clusters, tmp_path: Path) -> None:
    async with serving(clusters, tmp_path, "west") as served:
        watches = served.source.statistics().watches
        assert {each.cluster for each in watches} == {"", "west"}
        pools = {each.kind for each in watches if each.cluster == "west"}
        assert pools == {f"InferencePool.{POOL_GROUP}", "Pod"}
        assert all(each.last_contact_s for each in watches if each.objects)
        assert served.names == {"west/default/one"}


async def test_a_failure_of_our_own_is_no_silence(
    clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with source_of(clusters, tmp_path) as served:
        await served.source.load(served.told)

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(served.source.members["west"].state, "pools_changed", fail)
        clusters.west.put(pool())
        with pytest.raises(RuntimeError, match="a bug"):
            async with asyncio.timeout(10):
                await served.source.run(served.told)


async def test_a_failure_while_changes_are_gathered_is_no_silence(
    clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering, may_go_on = asyncio.Event(), asyncio.Event()

    async def sleep(_pause_s: float) -> None:
        gathering.set()
        await may_go_on.wait()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with source_of(clusters, tmp_path, sleep=sleep) as served, asyncio.timeout(10):
        await served.source.load(served.told)
        running = asyncio.create_task(served.source.run(served.told))
        clusters.west.put(pod("two", "10.0.2.2"))
        await gathering.wait()
        west = served.source.members["west"]
        followers = len(west.watching._tasks)
        monkeypatch.setattr(west.state, "pools_changed", fail)
        clusters.west.put(pool())
        await wait_until(lambda: len(west.watching._tasks) == followers - 1)
        may_go_on.set()
        with pytest.raises(RuntimeError, match="a bug"):
            await running


def test_imports_have_a_group_of_their_own() -> None:
    with pytest.raises(UsageError, match='--pool-group: found "x"; expected inference'):
        ImportSource(ClusterConnection(), {}, ClusterOptions(pool_group="x"))
