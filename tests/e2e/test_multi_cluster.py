"""A pool of two clusters behind one gateway: pods of both serve, whatever becomes of one of them.

The EPP acts as the exporting controller as well, so all that is put into the clusters are the pools
with their annotations, and pods.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.apiserver import ApiServer, objective, pool
from tests.apiserver.kubeconfig import Context, write_kubeconfig

from .cluster import ClusterStack
from .conftest import logged
from .epp_process import EppProcess
from .support import eventually
from .test_cluster import call, served_by

EXPORT = {"inference.networking.x-k8s.io/export": "ClusterSet"}
GROUP = "inference.networking.x-k8s.io"
POOL = ("inference.networking.k8s.io/v1", "InferencePool", "default", "pool")
BOTH = ("east-one", "west-one")


class TwoClusters(ClusterStack):
    """The clusters ``east``, in which the EPP runs, and ``west``. A pod whose name begins with
    ``west`` is in that one."""

    def __init__(self, directory: Path, exits: AsyncExitStack, east: ApiServer, west: ApiServer):
        super().__init__(directory, exits, east)
        self.west = west

    def show(
        self,
        name: str,
        *,
        ready: bool = True,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        east = self.api
        self.api = self.west if name.startswith("west") else east
        super().show(name, ready=ready, labels=labels, annotations=annotations)
        self.api = east

    def export(self, api: ApiServer, *, is_exported: bool = True) -> None:
        """Put the pool into a cluster, exported or not."""
        api.put(pool(ports=self.ports[:1], annotations=EXPORT if is_exported else None))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwoClusters]:
    directory = tmp_path_factory.mktemp("two")
    async with AsyncExitStack() as exits:
        exits.enter_context(logged(directory))
        east, west = [await exits.enter_async_context(ApiServer()) for _ in range(2)]
        stack = TwoClusters(directory, exits, east, west)
        stack.client = await exits.enter_async_context(aiohttp.ClientSession())
        for api in (east, west):
            stack.export(api)
        for name in BOTH:
            await stack.add_pod(name)
        contexts = {"east": Context(url=east.url), "west": Context(url=west.url)}
        kubeconfig = write_kubeconfig(directory / "kubeconfig", contexts)
        process = EppProcess(
            directory,
            (
                *("--pool-name", "pool", "--pool-namespace", "default"),
                *("--pool-kind", "InferencePoolImport", "--member-clusters", "east,west"),
                *("--kubeconfig", str(kubeconfig), "--context", "east"),
                "--act-as-exporting-controller",
            ),
            (
                *("--secure-serving=false", "--metrics-endpoint-auth=false"),
                *("--handover-timeout", "0", "--shutdown-grace", "0.5"),
            ),
            2,
        )
        exits.push_async_callback(process.stop)
        await process.start()
        stack.epp = process
        stack.epps = [process]
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def two(shared_two: TwoClusters) -> AsyncIterator[TwoClusters]:
    """Both clusters export the pool and have a pod, which every test must leave so."""
    await shared_two.knows(None, BOTH)
    yield shared_two
    await shared_two.at_rest()


async def test_pods_of_both_clusters_serve(two: TwoClusters) -> None:
    """Priorities are those of the cluster that the EPP runs in."""
    gateway = await two.gateway(fail_open=False)
    assert await served_by(gateway) == set(BOTH)
    urgent = objective("urgent", 7)
    urgent["spec"]["poolRef"] |= {"group": GROUP, "kind": "InferencePoolImport"}
    two.api.put(urgent)

    async def is_accepted() -> bool:
        found = two.api.get(f"{GROUP}/v1alpha2", "InferenceObjective", "default", "urgent") or {}
        conditions = found.get("status", {}).get("conditions", [{}])
        return bool(conditions[0].get("status") == "True")

    async def is_heeded() -> bool:
        answer = await call(gateway, ("x-llm-d-inference-objective", "urgent"))
        assert answer.status == 200
        return (await two.metrics()).sum("request_total", priority=7) > 0

    await eventually(is_accepted)
    await eventually(is_heeded)
    await two.add_pod("west-two")
    two.show("west-one", ready=False)
    await two.knows(gateway, ["east-one", "west-two"])
    assert await served_by(gateway) == {"east-one", "west-two"}
    two.west.delete("v1", "Pod", "default", "west-two")
    two.show("west-one")
    await two.knows(gateway, BOTH)


async def test_a_cluster_without_its_api_server_goes_on_serving(two: TwoClusters) -> None:
    gateway = await two.gateway(fail_open=False)
    await two.west.stop()

    async def is_noticed() -> bool:
        metrics = await two.metrics()
        unreachable = {"cluster": "west", "code": "unreachable"}
        return metrics.sum("kubernetes_requests_total", **unreachable) > 0

    await eventually(is_noticed)
    assert await served_by(gateway) == set(BOTH)
    ages = (await two.metrics()).series("kubernetes_last_contact_age_seconds", cluster="west")
    assert {labels["kind"].partition(".")[0] for labels, _ in ages} == {
        "InferencePool",
        "InferencePoolImport",
        "Pod",
    }
    two.show("east-one", ready=False)  # the other cluster is followed meanwhile
    await two.knows(gateway, ["west-one"])
    assert await served_by(gateway, 4) == {"west-one"}
    two.show("east-one")
    await two.knows(gateway, BOTH)
    await two.west.start()
    two.show("west-one", ready=False)
    await two.knows(gateway, ["east-one"])
    two.show("west-one")
    await two.knows(gateway, BOTH)


async def test_a_pool_that_is_exported_no_more_is_used_no_more(two: TwoClusters) -> None:
    gateway = await two.gateway(fail_open=False)
    two.export(two.west, is_exported=False)
    await two.knows(gateway, ["east-one"])
    assert await served_by(gateway, 4) == {"east-one"}
    two.export(two.api, is_exported=False)
    await two.knows(gateway, [])
    answer = await call(gateway)
    assert (answer.status, answer.headers["x-llm-d-request-dropped-reason"]) == (
        503,
        "rejected-no-endpoints",
    )
    for api in (two.api, two.west):
        two.export(api)
    await two.knows(gateway, BOTH)
    assert await served_by(gateway) == set(BOTH)

    def is_exported() -> bool:
        """Whether the pools say so."""
        for api in (two.api, two.west):
            found = api.get(*POOL) or {}
            (parent,) = found.get("status", {}).get("parents") or [{"conditions": [{}]}]
            if parent["conditions"][0].get("status") != "True":
                return False
        return True

    await eventually(is_exported)
