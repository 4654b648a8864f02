"""The same resources, from files and from an API server, are the same pools and the same picks."""

import json
import random
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.core.claims import RequestClaims
from epp.core.resources import PoolResources
from epp.core.scheduling.default import default_scheduler
from epp.discovery.cluster import ClusterOptions
from epp.discovery.declared import LLM_D_GROUP, POOL_GROUP
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.source import KubernetesSource
from epp.discovery.selection import place
from tests.apiserver import ApiServer, model_rewrite, objective, pod, pool, pool_v1alpha2
from tests.core.support import Harness, RecordingGateWaiter
from tests.discovery.kubernetes.world import Object, Told, World
from tests.discovery.support import selections_of

_EXPERIMENTAL = "inference.networking.x-k8s.io"
_NAMES = ("a", "b")
_MODELS = ("m", "n", "other")


class Cluster(msgspec.Struct, frozen=True):
    """What there is; ``objects`` of our own kinds and ``pods``, all of which serve."""

    group: str
    objects: list[Object]
    pods: list[Object]

    @property
    def texts(self) -> tuple[str, ...]:
        """The same as files: a manifest for each object, and a list of endpoints."""
        entries = [{**item["metadata"], "address": item["status"]["podIP"]} for item in self.pods]
        return *map(json.dumps, self.objects), json.dumps({"endpoints": entries})


_namespaces = st.sampled_from(["default", "default", "default", "away"])
_roles = st.sampled_from(["x", "y"])
_groups = st.sampled_from([LLM_D_GROUP, _EXPERIMENTAL])
_annotations = st.sampled_from(
    [
        {},
        {},
        {"llm-d.ai/active-ports": "8001"},
        {"inference.networking.k8s.io/active-ports": "8000, 1"},
        {"llm-d.ai/active-ports": "", "note": "x"},
    ]
)


@st.composite
def _pools(draw: st.DrawFn, name: str, group: str) -> Object:
    options: dict[str, Any] = {
        "selector": draw(st.sampled_from([{"app": "x"}, {"app": "y"}, {"app": "x", "role": "y"}])),
        "annotations": draw(
            st.sampled_from([{}, {"inference-epp/authorities": "A.example,b.example"}])
        ),
        "failure_mode": draw(st.sampled_from(["FailOpen", "FailClose"])),
    }
    if group == _EXPERIMENTAL:
        return pool_v1alpha2(name, draw(st.integers(1, 9)), **options)
    return pool(name, draw(st.sampled_from([(8000,), (8000, 8001), (8001, 8000, 80)])), **options)


@st.composite
def _clusters(draw: st.DrawFn) -> Cluster:
    group = draw(st.sampled_from([POOL_GROUP, POOL_GROUP, _EXPERIMENTAL]))
    references = st.fixed_dictionaries(
        {
            "pool": st.sampled_from([*_NAMES, "c"]),
            "pool_group": st.sampled_from([group, group, POOL_GROUP]),
            "namespace": _namespaces,
        }
    )
    objects = {name: draw(_pools(name, group)) for name in _NAMES}
    for name, kind in draw(st.sets(st.tuples(st.sampled_from("opq"), _groups))):
        item = objective(name, draw(st.integers(-2, 2)), group=kind, **draw(references))
        objects[f"{name} {kind} objective"] = item
    for name, kind in draw(st.sets(st.tuples(st.sampled_from("rst"), _groups))):
        targets = [
            {"modelRewrite": draw(st.sampled_from(_MODELS)), "weight": draw(st.integers(1, 3))}
            for _ in range(draw(st.integers(1, 3)))
        ]
        matches = [{"model": {"type": "Exact", "value": draw(st.sampled_from(_MODELS))}}]
        rule = {"targets": targets, "matches": draw(st.sampled_from([matches, []]))}
        item = model_rewrite(name, [rule], group=kind, **draw(references))
        objects[f"{name} {kind} rewrite"] = item
    pods = []
    for number in draw(st.sets(st.integers(1, 9))):
        address = f"10.0.0.{number}" if number % 3 else f"2001:DB8::{number}"
        labels = {"app": draw(_roles), "role": draw(_roles)}
        where = {"annotations": draw(_annotations), "namespace": draw(_namespaces)}
        pods.append(pod(f"p{number}", address, labels=labels, **where))
    return Cluster(group, [objects[name] for name in sorted(objects)], pods)


def from_files(cluster: Cluster) -> dict[str, PoolResources]:
    found = selections_of(*cluster.texts, names=_NAMES, namespace="default")
    return {each.pool.key: place(each, {})[0] for each in found}


def from_view(cluster: Cluster, seed: int) -> dict[str, PoolResources]:
    world = World(*_NAMES, group=cluster.group)
    objects = [*cluster.objects, *cluster.pods]
    random.Random(seed).shuffle(objects)
    for item in objects:
        if item["metadata"]["namespace"] == "default":
            world.put(item)
    return world.flush(3).pools


async def from_api_server(cluster: Cluster, directory: Path) -> dict[str, PoolResources]:
    told = Told()
    async with ApiServer() as api:
        for item in (*cluster.objects, *cluster.pods):
            api.put(item)
        connection = ClusterConnection(api.kubeconfig(directory))
        await connection.open()
        source = KubernetesSource(
            connection, ClusterOptions(pool_names=_NAMES, pool_group=cluster.group)
        )
        await source.load(told)
        await source.close()
        await connection.close()
    return told.pools


def picks(resources: PoolResources) -> list[tuple[str, str]]:
    """Return where requests go, and what model they ask for, by the default scheduler."""
    harness = Harness(None, scheduler=default_scheduler(), max_concurrency=4)
    harness.router.apply(resources, harness.now)
    rng = random.Random(1)
    found = []
    for number in range(20):
        waiter = RecordingGateWaiter()
        prefix = b"".join(rng.choice([b"12345678", b"abcdefgh"]) for _ in range(4))
        claims = RequestClaims(
            model=rng.choice(_MODELS),
            objective=rng.choice("opq"),
            prompt_tokens=64,
            prefix=prefix,
            id=str(number),
        )
        admission = harness.router.admit(claims, waiter, harness.now)
        found.append((waiter.destination, admission.request.model))
    return found


@given(_clusters(), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_files_and_the_view_make_the_same(cluster: Cluster, seed: int) -> None:
    expected = from_files(cluster)
    found = from_view(cluster, seed)
    assert found == expected
    for key, resources in found.items():
        assert picks(resources) == picks(expected[key])


@given(_clusters())
@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_files_and_an_api_server_make_the_same(tmp_path: Path, cluster: Cluster) -> None:
    expected = from_files(cluster)
    found = await from_api_server(cluster, tmp_path)
    assert found == expected
    for key, resources in found.items():
        assert picks(resources) == picks(expected[key])
