"""A cluster instead of files: what becomes of pods, pools and objectives becomes of the traffic."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from .cluster import ClusterStack, cluster_of
from .conftest import StartCluster, logged
from .http1 import Http1, Response
from .stack import Gateway, begin_stream
from .support import HINT_HEADER, completion, eventually, subset_hint
from .test_health import probe

COMPLETIONS = "/v1/completions"
OBJECTIVE = "x-llm-d-inference-objective"
POOL = ("inference.networking.k8s.io/v1", "InferencePool", "default")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[ClusterStack]:
    directory = tmp_path_factory.mktemp("cluster")
    with logged(directory):
        async with cluster_of(directory, ["one", "two"]) as stack:
            yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(shared_cluster: ClusterStack) -> AsyncIterator[ClusterStack]:
    """A pool of the pods one and two, which every test must leave as it was and at rest."""
    yield shared_cluster
    await shared_cluster.at_rest()


async def call(gateway: Gateway, *headers: tuple[str, str], **more: object) -> Response:
    async with Http1(gateway.port) as http1:
        return await http1.post(COMPLETIONS, completion(**more), headers)  # type: ignore[arg-type]


async def served_by(gateway: Gateway, calls: int = 12, **more: object) -> set[str]:
    """Return who serves a number of requests that come at once."""
    answers = await asyncio.gather(*(call(gateway, **more) for _ in range(calls)))
    assert {answer.status for answer in answers} == {200}
    return {answer.headers["x-served-by"] for answer in answers}


def assert_refused(answer: Response, reason: str) -> None:
    assert answer.status == 503
    assert answer.headers["x-llm-d-request-dropped-reason"] == reason


# Pods


async def test_pods_come_and_go(cluster: ClusterStack) -> None:
    gateway = await cluster.gateway(fail_open=False)
    assert await served_by(gateway) == {"one", "two"}
    await cluster.add_pod("three")
    await cluster.knows(gateway, ["one", "two", "three"])
    assert "three" in await served_by(gateway)
    cluster.show("one", ready=False)
    cluster.show("two", labels={"app": "another"})
    await cluster.knows(gateway, ["three"])
    assert await served_by(gateway) == {"three"}
    cluster.delete("three")
    cluster.show("one")
    cluster.show("two")
    await cluster.knows(gateway, ["one", "two"])
    assert await served_by(gateway) == {"one", "two"}


async def test_a_terminating_pod_serves_what_runs_there_to_its_end(cluster: ClusterStack) -> None:
    """It gets nothing new from the moment on at which it is to end."""
    gateway = await cluster.gateway(fail_open=False, subset_hint_header=HINT_HEADER)
    hint = subset_hint(cluster.destination(0))
    running = asyncio.create_task(call(gateway, hint, max_tokens=60))
    await eventually(lambda: cluster.pods["one"].server.state().in_flight == 1)
    cluster.api.terminate("default", "one")
    await cluster.knows(gateway, ["two"])
    assert await served_by(gateway, 4) == {"two"}
    assert_refused(await call(gateway, hint), "rejected-no-endpoints")
    assert not running.done()
    answer = await running
    assert (answer.status, answer.headers["x-served-by"]) == (200, "one")
    assert json.loads(answer.body)["usage"]["completion_tokens"] == 60
    cluster.delete("one")
    cluster.show("one")
    await cluster.knows(gateway, ["one", "two"])


async def test_ranks_of_a_pod_by_its_active_ports(cluster: ClusterStack) -> None:
    """The pool gets a second port while it is served; a pod's annotation says which it serves."""
    gateway = await cluster.gateway(fail_open=False)
    cluster.show("one", labels={"app": "another"})
    cluster.show("two", labels={"app": "another"})
    await cluster.add_pod("ranks", ports=2)
    cluster.put_pool(ports=2)
    await cluster.knows(gateway, ["ranks"])
    assert await served_by(gateway) == {"ranks-0", "ranks-1"}
    cluster.show("ranks", annotations={"llm-d.ai/active-ports": str(cluster.ports[1])})
    await eventually(lambda: gateway.knows(1))
    assert await served_by(gateway, 4) == {"ranks-1"}
    cluster.delete("ranks")
    cluster.put_pool()
    cluster.show("one")
    cluster.show("two")
    await cluster.knows(gateway, ["one", "two"])


# Objectives and pools


async def test_a_changed_priority_moves_what_waits(
    cluster: ClusterStack, exits: AsyncExitStack
) -> None:
    gateway = await cluster.gateway(fail_open=False)
    cluster.put_objectives({"late": -1})
    running = [await begin_stream(gateway, exits) for _ in range(4)]
    finished: list[str] = []

    async def named(objective: str) -> None:
        assert (await call(gateway, (OBJECTIVE, objective))).status == 200
        finished.append(objective)

    async with asyncio.TaskGroup() as tasks:
        for objective, priority in (("interactive", 10), ("late", -1)):
            for _ in range(3):
                tasks.create_task(named(objective))
            await cluster.queued(3, priority=priority)
        cluster.put_objectives({"late": 50})
        await cluster.queued(3, priority=50)
        await cluster.queued(3, priority=10)
        running[0].close()  # one slot, for one after the other
    assert finished == ["late"] * 3 + ["interactive"] * 3
    for stream in running[1:]:
        stream.close()
    found = cluster.api.get(
        "inference.networking.x-k8s.io/v1alpha2", "InferenceObjective", "default", "late"
    )
    assert found is not None
    (condition,) = found["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Accepted", "True")


async def test_a_pool_that_is_deleted_and_comes_back(
    cluster: ClusterStack, exits: AsyncExitStack
) -> None:
    """What runs is served to its end, what waits is told the truth, readiness follows."""
    gateway = await cluster.gateway(fail_open=False)
    running = [asyncio.create_task(call(gateway, max_tokens=60)) for _ in range(4)]
    await cluster.in_flight(4)
    waiting = asyncio.create_task(call(gateway))
    await cluster.queued(1)
    cluster.api.delete(*POOL, "pool")
    assert (await waiting).status == 503
    await eventually(lambda: is_ready(cluster, 503))
    assert_refused(await call(gateway), "rejected-no-endpoints")
    assert [(await task).status for task in running] == [200] * 4
    cluster.put_pool(selector={"app": "model"})
    await eventually(lambda: is_ready(cluster, 200))
    await cluster.knows(gateway, ["one", "two"])
    assert await served_by(gateway) == {"one", "two"}


async def is_ready(cluster: ClusterStack, status: int) -> bool:
    return await probe(cluster.process.metrics_port, "/readyz") == status


async def test_two_pools_of_one_epp(start_cluster: StartCluster) -> None:
    """The model says which; each has its own queue, so a full one does not hold up the other."""
    source = ("--pool-name", "pool", "--pool-name", "other")
    cluster = await start_cluster(["one"], source=source)
    models = "inference-epp/models"
    cluster.put_pool(annotations={models: "small"})
    cluster.put_pool("other", selector={"app": "big"}, annotations={models: "big"})
    await cluster.add_pod("big-one", labels={"app": "big"})
    await cluster.knows(None, ["one", "big-one"])
    gateway = await cluster.gateway(fail_open=False)
    assert await served_by(gateway, 2, model="small") == {"one"}
    assert await served_by(gateway, 2, model="big") == {"big-one"}
    unknown = await call(gateway, model="other")
    assert unknown.status == 404
    assert json.loads(unknown.body)["error"]["code"] == "model_not_found"
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(call(gateway, model="big", max_tokens=40)) for _ in range(3)]
        await cluster.queued(1, inference_pool="other")
        await cluster.queued(0, inference_pool="pool")
        assert await served_by(gateway, 2, model="small") == {"one"}
        assert not any(task.done() for task in calls)
    assert [task.result().status for task in calls] == [200] * 3
    cluster.api.delete(*POOL, "other")
    await cluster.knows(gateway, ["one"])
    assert await served_by(gateway, 2, model="big") == {"one"}  # there is only one pool now


async def test_pods_without_a_pool(start_cluster: StartCluster) -> None:
    """Standalone: a selector and ports in place of an InferencePool."""
    cluster = await start_cluster(
        ["one", "two"],
        source=lambda stack: (
            *("--endpoint-selector", "app in (model)"),
            *("--endpoint-target-ports", str(stack.port)),
        ),
    )
    cluster.api.delete(*POOL, "pool")
    gateway = await cluster.gateway(fail_open=False)
    assert await served_by(gateway) == {"one", "two"}
    cluster.show("two", ready=False)
    await cluster.knows(gateway, ["one"])
    assert await served_by(gateway, 4) == {"one"}
    assert not cluster.api.asked_for("list", "inferencepools")


# The API server


async def test_traffic_goes_on_without_an_api_server(cluster: ClusterStack) -> None:
    """How old the knowledge is, shows; what was missed is caught up with by watches alone."""
    gateway = await cluster.gateway(fail_open=False)
    await cluster.api.stop()
    assert await served_by(gateway) == {"one", "two"}
    cluster.show("two", ready=False)  # nobody hears of it yet
    age_s = "kubernetes_last_contact_age_seconds"

    async def is_stale() -> bool:
        ages = (await cluster.metrics()).series(age_s)
        return len(ages) >= 4 and all(age > 1.5 for _, age in ages)

    await eventually(is_stale)
    assert await served_by(gateway) == {"one", "two"}
    assert await is_ready(cluster, 200)
    asked = len(cluster.api.requests)
    await cluster.api.start()
    await cluster.knows(gateway, ["one"])

    async def is_fresh() -> bool:
        cluster.api.bookmark()  # for those that have come back by now
        ages = (await cluster.metrics()).series(age_s)
        return all(age < 1.0 for _, age in ages)

    await eventually(is_fresh, timeout_s=60.0)  # kinds come back one by one
    since = [each for each in cluster.api.requests[asked:] if each.query.get("limit") != "1"]
    assert {request.verb for request in since} == {"watch"}  # but for a look at the version
    cluster.show("two")
    await cluster.knows(gateway, ["one", "two"])


async def test_an_api_server_that_has_forgotten_the_past(cluster: ClusterStack) -> None:
    """As after its restart: each kind is listed once, and nobody notices but the metrics."""
    gateway = await cluster.gateway(fail_open=False)
    await cluster.api.stop()
    cluster.show("two", ready=False)
    cluster.api.compact()
    asked = len(cluster.api.requests)
    await cluster.api.start()
    await cluster.knows(gateway, ["one"])
    assert await served_by(gateway, 4) == {"one"}
    since = [each for each in cluster.api.requests[asked:] if each.query.get("limit") != "1"]
    lists = [request.path for request in since if request.verb == "list"]
    assert len(lists) == len(set(lists))
    assert (await cluster.metrics()).sum("kubernetes_relists_total", kind="Pod") == 1
    cluster.show("two")
    await cluster.knows(gateway, ["one", "two"])
