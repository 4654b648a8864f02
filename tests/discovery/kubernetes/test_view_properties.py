"""Whatever happens in whatever order, a listener ends up with what a look at everything gives."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.resources import Endpoint, PoolResources
from epp.discovery.belonging import choose, objectives_by_name, rules_in_order
from epp.discovery.declared import LLM_D_GROUP
from epp.discovery.kubernetes import destinations
from epp.discovery.kubernetes.reading import read_objective, read_pool, read_rewrite
from tests.apiserver import model_rewrite, objective, pod, pool
from tests.discovery.kubernetes.world import Object, World, decoded

_MOST = 4
_POOLS = ("a", "b")
_GROUPS = (LLM_D_GROUP, "inference.networking.x-k8s.io")
_apps = st.sampled_from(["x", "y"])
_names = st.sampled_from(_POOLS)

Step = Callable[[World, dict[Any, Object]], None]


def put(item: Object) -> Step:
    def step(world: World, good: dict[Any, Object]) -> None:
        world.put(item)
        key = (item["kind"], item["apiVersion"], item["metadata"]["name"])
        if "deletionTimestamp" in item["metadata"]:
            good.pop(key, None)
        elif item["spec"].get("priority") != "bad" and item["spec"].get("targetPorts") != []:
            good[key] = item

    return step


def delete(item: Object) -> Step:
    def step(world: World, good: dict[Any, Object]) -> None:
        world.delete(item)
        good.pop((item["kind"], item["apiVersion"], item["metadata"]["name"]), None)

    return step


def flush(limit: int) -> Step:
    return lambda world, _good: void(world.view.flush(world.told, limit))


def answers(does: bool) -> Step:
    def step(world: World, _good: dict[Any, Object]) -> None:
        world.answers = does
        if does:
            world.answer()

    return step


def void(_value: object) -> None:
    pass


def going(item: Object, is_going: bool) -> Object:
    if is_going:
        item["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return item


_pods = st.builds(
    lambda name, address, app, is_ready, ports, is_going: going(
        pod(
            name,
            address,
            labels={"app": app},
            ready=is_ready,
            annotations=None if ports is None else {"llm-d.ai/active-ports": ports},
        ),
        is_going,
    ),
    st.sampled_from(["p", "q", "r", "s"]),
    st.sampled_from([f"10.0.0.{number}" for number in range(1, 5)]),
    _apps,
    st.sampled_from([True, True, False]),
    st.sampled_from([None, None, "8000", "8001", ""]),
    st.sampled_from([False, False, False, True]),
)
_pools = st.builds(
    lambda name, app, ports, is_going: going(pool(name, ports, selector={"app": app}), is_going),
    _names,
    _apps,
    st.sampled_from([(8000,), (8000, 8001), (8001,), ()]),
    st.sampled_from([False, False, False, True]),
)
_objectives = st.builds(
    lambda name, priority, pool, group: objective(name, priority, pool=pool, group=group),
    st.sampled_from(["o", "p"]),
    st.sampled_from([1, 2, "bad"]),
    _names,
    st.sampled_from(_GROUPS),
)
_rewrites = st.builds(
    lambda name, model, pool, group: model_rewrite(
        name, [{"targets": [{"modelRewrite": model}]}], pool=pool, group=group
    ),
    st.sampled_from(["r", "s"]),
    st.sampled_from(["m", "n"]),
    _names,
    st.sampled_from(_GROUPS),
)
_objects = st.one_of(_pods, _pods, _pods, _pools, _objectives, _rewrites)
_steps = st.one_of(
    st.builds(put, _objects),
    st.builds(put, _objects),
    st.builds(delete, _objects),
    st.builds(flush, st.integers(1, 3)),
    st.builds(answers, st.booleans()),
)


@pytest.fixture(autouse=True)
def _few_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "MAX_ENDPOINTS", _MOST)


@given(st.lists(_steps, min_size=20, max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_history_ends_at_what_there_is(steps: list[Step]) -> None:
    world = World(*_POOLS)
    good: dict[Any, Object] = {}
    for step in steps:
        step(world, good)
    world.answer()
    told = world.flush(2)
    assert told.pools == dict(looked_at(list(good.values())))
    assert not world.view.flush(told, 1)


def looked_at(objects: list[Object]) -> Iterator[tuple[str, PoolResources]]:
    """Yield the pools that these objects make, by their keys."""

    def of(kind: str) -> Iterator[tuple[Any, str]]:
        for item in objects:
            if item["kind"] == kind:
                yield decoded(item), item["apiVersion"].partition("/")[0]

    for found, group in of("InferencePool"):
        spec = read_pool(found, group).spec
        endpoints: dict[str, Endpoint] = {}
        for server, _ in sorted(of("Pod"), key=lambda each: each[0].metadata.name, reverse=True):
            labels = server.metadata.labels
            if not server.is_serving or labels["app"] != spec.selector["app"]:
                continue
            active = server.metadata.annotations.active_ports
            for rank, port in enumerate(spec.target_ports):
                if active is None or str(port) in active.split(","):
                    suffix = f"-rank-{rank}" if len(spec.target_ports) > 1 else ""
                    name = f"default/{server.metadata.name}{suffix}"
                    address = server.status.pod_ip
                    one = Endpoint(name=name, address=address, port=port, labels=labels)
                    endpoints[one.destination] = one
        objectives = [read_objective(*each) for each in of("InferenceObjective")]
        rewrites = [read_rewrite(*each) for each in of("InferenceModelRewrite")]
        in_order = sorted(endpoints.values(), key=lambda each: each.name)
        yield (
            spec.key,
            PoolResources(
                pool=spec,
                objectives=objectives_by_name(choose(objectives, spec).chosen),
                rewrites=rules_in_order(choose(rewrites, spec).chosen),
                endpoints=tuple(in_order[:_MOST]),
            ),
        )
