"""The talk with the cluster as a whole, against the emulated API server: what one EPP writes, and
what becomes of it when it leads, when it hands over, and when it is told of bad configuration."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from epp.cluster import Cluster
from epp.config import ServeOptions
from epp.core.resources import EndpointChanges, PoolResources
from epp.discovery.cluster import ClusterOptions, LeaderLabelOptions
from epp.errors import UsageError
from epp.observability.metrics import Metrics
from epp.service import Service
from tests.apiserver import ApiServer, objective, pod, pool, pool_import
from tests.discovery.support import wait_until

LABEL = "inference-epp/leader"
LEASE = "epp-default-llm.llm-d.ai"


class Listener:
    """What the cluster hands over."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolResources] = {}

    def pool_applied(self, resources: PoolResources) -> None:
        self.pools[resources.pool.key] = resources

    def pool_removed(self, key: str) -> None:
        del self.pools[key]

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        pass


class Running:
    """A cluster at work."""

    def __init__(self, cluster: Cluster, metrics: Metrics) -> None:
        self.cluster = cluster
        self.metrics = metrics
        self.listener = Listener()
        self.standings = 0
        self.tasks: list[asyncio.Task[None]] = []

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"llm_d_epp_{name}", labels)


def options(api: ApiServer, directory: Path, **more: Any) -> ClusterOptions:
    found = ClusterOptions(
        pool_names=("llm",),
        kubeconfig=api.kubeconfig(directory),
        identity="epp-1",
        lease_name=LEASE,
        lease_duration_s=2.0,
        renew_interval_s=0.5,
    )
    return msgspec.structs.replace(found, **more)


def elected(name: str) -> dict[str, Any]:
    label = LeaderLabelOptions(key=LABEL, value="epp", pod=name, namespace="default")
    return {"identity": name, "leader_election": True, "leader_label": label}


@asynccontextmanager
async def at_work(found: ClusterOptions) -> AsyncIterator[Running]:
    """Open, load and run a cluster as the service does; leaving stops it, with no hand-over."""
    metrics = Metrics()

    def on_standing() -> None:
        running.standings += 1

    running = Running(Cluster(found, metrics, on_standing), metrics)
    cluster = running.cluster
    await cluster.open()
    try:
        await cluster.load(running.listener)
        work = {"watch": cluster.run(running.listener), **cluster.work()}
        running.tasks += [asyncio.create_task(each, name=name) for name, each in work.items()]
        yield running
    finally:
        for task in running.tasks:
            task.cancel()
        await asyncio.gather(*running.tasks, return_exceptions=True)
        await cluster.close()


def conditions(api: ApiServer, name: str) -> list[tuple[str, str]]:
    group = "inference.networking.x-k8s.io/v1alpha2"
    found = api.get(group, "InferenceObjective", "default", name)
    assert found is not None
    told = found.get("status", {}).get("conditions", [])
    return [(each["type"], each["status"]) for each in told]


def events(api: ApiServer) -> dict[str, dict[str, Any]]:
    return {each["reason"]: each for each in api.items("events.k8s.io/v1", "Event", "default")}


def bearers(api: ApiServer) -> list[str]:
    pods = [each["metadata"] for each in api.items("v1", "Pod", "default")]
    return [each["name"] for each in pods if LABEL in each.get("labels", {})]


async def test_one_that_is_alone_serves_and_writes(tmp_path: Path) -> None:
    async with ApiServer() as api:
        api.put(pool("llm"))
        api.put(pod("one"))
        api.put(objective("batch", -1, pool="llm"))
        api.put(objective("theirs", pool="other"))
        bad = objective("bad", pool="llm")
        bad["spec"]["poolRef"]["group"] = "example.com"
        api.put(bad)
        async with at_work(options(api, tmp_path)) as running:
            [resources] = running.listener.pools.values()
            assert resources.pool.key == "default/llm"
            assert len(resources.endpoints) == 1
            assert running.cluster.is_leader
            await wait_until(lambda: conditions(api, "batch") == [("Accepted", "True")])
            await wait_until(lambda: "ObjectiveRejected" in events(api))
            running.cluster.configuration_rejected("picker.yaml: found no profile")
            await wait_until(lambda: "ConfigurationRejected" in events(api))
            rejected = events(api)["ConfigurationRejected"]
            assert rejected["note"] == "picker.yaml: found no profile"
            assert rejected["regarding"]["name"] == "llm"
            assert rejected["regarding"]["apiVersion"] == "inference.networking.k8s.io/v1"
            assert rejected["reportingInstance"] == "epp-1"
            await wait_until(
                lambda: running.metric("kubernetes_events_written_total", result="ok") == 2
            )
            assert (running.metric("status_writes_total", result="ok") or 0) >= 1
            assert running.metric("leader") is None
            assert running.metric("leader_label_requests_total", result="ok") is None
            assert not api.asked_for("patch", "pods")


async def test_the_leader_alone_writes_and_its_pod_bears_the_label(tmp_path: Path) -> None:
    async with AsyncExitStack() as exits:
        api = await exits.enter_async_context(ApiServer())
        api.put(pool("llm"))
        for name in ("epp-1", "epp-2"):
            api.put(pod(name, labels={"app": "epp"}))
        first = await exits.enter_async_context(at_work(options(api, tmp_path, **elected("epp-1"))))
        await wait_until(lambda: bearers(api) == ["epp-1"])
        second = await exits.enter_async_context(
            at_work(options(api, tmp_path, **elected("epp-2")))
        )
        assert (first.cluster.is_leader, second.cluster.is_leader) == (True, False)
        second.cluster.configuration_rejected("of a follower")
        first.cluster.configuration_rejected("of the leader")
        await wait_until(lambda: events(api))
        assert [each["note"] for each in events(api).values()] == ["of the leader"]

        await first.cluster.hand_over()
        assert not first.cluster.is_leader
        assert first.standings == 2
        assert bearers(api) == ["epp-1"]  # it serves until the other one is found
        await wait_until(lambda: second.cluster.is_leader)
        await wait_until(lambda: bearers(api) == ["epp-2"])
        assert second.standings == 1
        assert (first.metric("leader"), second.metric("leader")) == (0, 1)
        assert second.metric("leader_transitions_total") == 1
        assert (second.metric("leader_election_requests_total", result="ok") or 0) >= 1
        assert (second.metric("leader_label_requests_total", result="ok") or 0) >= 1


async def test_the_label_goes_with_the_last_one(tmp_path: Path) -> None:
    async with ApiServer() as api:
        api.put(pool("llm"))
        api.put(pod("epp-1", labels={"app": "epp"}))
        async with at_work(options(api, tmp_path, **elected("epp-1"))) as running:
            await wait_until(lambda: bearers(api) == ["epp-1"])
            await running.cluster.hand_over()
        assert bearers(api) == []


async def test_without_a_pool_object_there_are_no_events(tmp_path: Path) -> None:
    more = {"endpoint_selector": "app=model", "endpoint_target_ports": (8000,), "pool_names": ()}
    async with ApiServer() as api, at_work(options(api, tmp_path, **more)) as running:
        running.cluster.configuration_rejected("picker.yaml: found no profile")
        assert "report on pools" not in {each.get_name() for each in running.tasks}
        api.put(objective("batch", pool="llm"))
        await wait_until(lambda: conditions(api, "batch"))
        assert events(api) == {}


async def test_events_on_imports_are_about_imports(tmp_path: Path) -> None:
    group = "inference.networking.x-k8s.io"
    more = {"pool_kind": "InferencePoolImport", "pool_group": group, "member_contexts": ("test",)}
    async with ApiServer() as api:
        api.put(pool_import("llm", ["test"]))
        async with at_work(options(api, tmp_path, **more)) as running:
            await asyncio.sleep(0)  # it has looked at what there is
            running.cluster.configuration_rejected("picker.yaml: found no profile")
            await wait_until(lambda: "ConfigurationRejected" in events(api))
            regarding = events(api)["ConfigurationRejected"]["regarding"]
            assert regarding["kind"] == "InferencePoolImport"
            assert regarding["apiVersion"] == f"{group}/v1alpha1"


async def test_a_configuration_that_the_service_rejects_is_told_on_the_pool(tmp_path: Path) -> None:
    config = tmp_path / "picker.yaml"
    config.write_text("before")

    def refuse() -> ServeOptions:
        raise UsageError("picker.yaml: found no profile")

    async with ApiServer() as api:
        api.put(pool("llm"))
        given = ServeOptions(
            manifests=(),
            cluster=options(api, tmp_path),
            config_file=config,
            reread=refuse,
            host="127.0.0.1",
            grpc_port=0,
            health_port=0,
            metrics_port=0,
        )
        async with Service(given) as service:
            config.write_text("after")
            service.reload()
            await wait_until(lambda: "ConfigurationRejected" in events(api))
            told = events(api)["ConfigurationRejected"]
            assert told["note"] == "picker.yaml: found no profile"
