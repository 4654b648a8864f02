"""Resources from an API server: what is asked of it, and when what of it is told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from epp.discovery.cluster import ClusterOptions
from epp.discovery.declared import EXPERIMENTAL_GROUP, POOL_GROUP
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.source import KubernetesSource
from epp.discovery.kubernetes.writing.acceptance import KnownPools, PoolName
from epp.errors import UsageError
from tests.apiserver import ApiServer, model_rewrite, objective, pod, pool, pool_v1alpha2
from tests.discovery.kubernetes.sourcing import COALESCE_S, serving, source_of
from tests.discovery.support import wait_until

_V1 = f"{POOL_GROUP}/v1"


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


async def test_load_returns_when_all_is_known(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    api.put(pool("unwanted", selector={"app": "x"}))
    api.put(pool_v1alpha2())
    api.put(pod("one", "10.0.0.1"))
    api.put(pod("two", "10.0.0.2", labels={"app": "x"}))
    api.put(pod("away", "10.0.0.3", namespace="away"))
    api.put(objective("a", 3))
    api.put(model_rewrite("r", [{"targets": [{"modelRewrite": "m"}]}], group="llm-d.ai"))
    async with source_of(api, tmp_path) as served:
        await served.source.load(served.told)
        [(what, _, resources)] = served.told.calls
    assert what == "applied"
    assert [found.destination for found in resources.endpoints] == ["10.0.0.1:8000"]
    assert resources.objectives["a"].priority == 3
    assert len(resources.rewrites) == 1
    assert all("/namespaces/default/" in request.path for request in api.requests)
    [pods] = api.asked_for("list", "pods")
    assert pods.query["labelSelector"] == "app=model"


async def test_changes_are_told_together(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    pauses_s: list[float] = []
    may_go_on = asyncio.Event()

    async def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)
        await may_go_on.wait()

    async with serving(api, tmp_path, sleep=sleep) as served:
        served.told.take()
        for number in range(1, 41):
            api.put(pod(f"p{number}", f"10.0.0.{number}"))
        api.delete("v1", "Pod", "default", "p40")
        await wait_until(lambda: _events(served.source) == 41)
        assert served.told.calls == []
        may_go_on.set()
        await wait_until(lambda: served.told.calls != [])
        [(what, _, changes)] = served.told.calls
        assert (what, len(changes.present), changes.gone) == ("changed", 39, ())
        assert pauses_s == [COALESCE_S]


async def test_pods_and_objectives_come_and_go(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    async with serving(api, tmp_path) as served:
        for number in range(1, 41):
            api.put(pod(f"p{number}", f"10.0.0.{number}"))
        await wait_until(lambda: len(served.told.endpoints()) == 40)
        api.terminate("default", "p1")
        api.delete("v1", "Pod", "default", "p2")
        api.put(pod("p3", "10.0.0.3", labels={"app": "x"}))
        await wait_until(lambda: len(served.told.endpoints()) == 37)
        api.put(objective("a", 5))
        await wait_until(lambda: "a" in served.told.pools["default/pool"].objectives)


async def test_a_pool_that_is_not_there_is_waited_for(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(pod("one", "10.0.0.1"))
    async with serving(api, tmp_path, pool_names=("pool", "later")) as served:
        assert served.told.calls == []
        assert [line for line in caplog.messages if "there is no" in line] == [
            f"there is no InferencePool default/{name} ({POOL_GROUP}); it is served as soon as "
            "there is"
            for name in ("later", "pool")
        ]
        api.put(pool())
        await wait_until(lambda: served.has("one"))
        assert served.told.pools.keys() == {"default/pool"}
        assert len([line for line in caplog.messages if "there is no" in line]) == 2


async def test_another_selector_is_another_list(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    api.put(pod("one", "10.0.0.1"))
    api.put(pod("two", "10.0.0.2", labels={"app": "new"}))
    async with serving(api, tmp_path) as served:
        api.put(pod("one", "10.0.0.9"))
        await wait_until(lambda: _events(served.source) == 1)
        fault = api.fail(500, times=None, verb="list", resource="pods")
        api.put(pool(selector={"app": "new"}, ports=(9000,)))
        await wait_until(lambda: fault.hits >= 2)
        assert served.has("one")
        fault.cancel()
        await wait_until(lambda: served.has("two"))
        assert served.told.endpoints() == {"default/two": "10.0.0.2:9000"}
        await wait_until(lambda: len(_selectors(api)) == 1)
        assert _selectors(api) == ["app=new"]
        api.put(pod("one", "10.0.0.3"))
        api.put(pod("three", "10.0.0.4", labels={"app": "new"}))
        await wait_until(lambda: served.has("two", "three"))
        assert _events(served.source) == 2


async def test_pools_come_and_go_by_their_labels(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool("a", labels={"team": "x"}))
    api.put(pool("b"))
    api.put(pod("one", "10.0.0.1"))
    async with serving(api, tmp_path, pool_selector="team=x") as served:
        assert served.told.pools.keys() == {"default/a"}
        api.put(pool("b", labels={"team": "x"}, selector={"app": "x"}))
        await wait_until(lambda: served.told.pools.keys() == {"default/a", "default/b"})
        before = _events(served.source)
        api.delete(_V1, "InferencePool", "default", "a")
        await wait_until(lambda: served.told.pools.keys() == {"default/b"})
        await wait_until(lambda: _selectors(api) == ["app=x"])
        assert _events(served.source) >= before
        api.put(pool("a", labels={"team": "x"}))
        await wait_until(lambda: served.has("one", key="default/a"))


async def test_pools_of_version_v1alpha2(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    api.put(pool_v1alpha2(port=9000))
    api.put(pod("one", "10.0.0.1"))
    async with serving(api, tmp_path, pool_group=EXPERIMENTAL_GROUP) as served:
        assert served.told.endpoints() == {"default/one": "10.0.0.1:9000"}


async def test_pods_without_a_pool_object(api: ApiServer, tmp_path: Path) -> None:
    api.put(pod("one", "10.0.0.1"))
    api.put(pod("two", "10.0.0.2", labels={"app": "other"}))
    api.put(objective("a", 3, pool="mine"))
    options = {"endpoint_selector": "app notin (other)", "endpoint_target_ports": (1, 2)}
    async with serving(api, tmp_path, standalone_name="mine", **options) as served:
        assert served.told.endpoints("default/mine") == {
            "default/one-rank-0": "10.0.0.1:1",
            "default/one-rank-1": "10.0.0.1:2",
        }
        assert list(served.told.pools["default/mine"].objectives) == ["a"]
        mine = frozenset({PoolName(POOL_GROUP, "InferencePool", "mine")})
        assert served.known == [KnownPools(served=mine, wanted=mine)]
    assert api.asked_for("list", "inferencepools") == []
    assert api.asked_for("list", "pods")[0].query["labelSelector"] == "app notin (other)"


async def test_what_is_known_is_told_to_who_writes_status(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool("other"))
    api.put(objective("a", 3, pool="other"))
    async with serving(api, tmp_path) as served:
        assert f"{EXPERIMENTAL_GROUP}/a" in served.heard
        wanted = frozenset({PoolName(POOL_GROUP, "InferencePool", "pool")})
        other = frozenset({PoolName(POOL_GROUP, "InferencePool", "other")})
        kinds = frozenset({(POOL_GROUP, "InferencePool")})
        assert served.known[-1] == KnownPools(wanted=wanted, existing=other, kinds=kinds)
        api.put(pool())
        api.put(objective("b", 3, group="llm-d.ai"))
        await wait_until(lambda: served.has() and "llm-d.ai/b" in served.heard)
        assert served.known[-1] == KnownPools(
            served=wanted, wanted=wanted, existing=other | wanted, kinds=kinds
        )
        found = {each.found.metadata.name: each for each in served.source.pools()}
        assert (found["pool"].is_wanted, found["other"].is_wanted) == (True, False)


async def test_a_bad_object_is_told_and_counted(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(pool())
    async with serving(api, tmp_path) as served:
        bad = pool(annotations={"inference-epp/authorities": "no host"})
        api.put(bad)
        await wait_until(lambda: served.told.rejections == 1)
        assert served.source.statistics().problems["InferencePool"] == 1
        assert served.has()
    [line] = [line for line in caplog.messages if line.startswith("rejected")]
    assert line == (
        "rejected, what it was before stays: InferencePool.inference.networking.k8s.io "
        'default/pool: metadata.annotations["inference-epp/authorities"]: found "no host"; '
        "expected host names or IP addresses, without port, with commas"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"pool_group": "x"}, f'--pool-group: found "x"; expected {POOL_GROUP} or '),
        ({"pool_selector": "a in"}, "--pool-selector: found 'a in'"),
        ({"endpoint_selector": "=a"}, "--endpoint-selector: found '=a'"),
    ],
)
async def test_options_that_mean_nothing(options: dict[str, str], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        KubernetesSource(ClusterConnection(), ClusterOptions(**options))  # type: ignore[arg-type]
    assert str(caught.value).startswith(expected)


def _events(source: KubernetesSource) -> int:
    watches = source.statistics().watches
    return sum(watch.events for watch in watches if watch.kind == "Pod")


def _selectors(api: ApiServer) -> list[str]:
    return [watch.query["labelSelector"] for watch in api.open_watches if watch.resource == "pods"]
