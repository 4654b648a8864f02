"""Imported pools without any API server: which they are, and the endpoints of all clusters."""

from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.resources import Endpoint, EndpointChanges, Objective, PoolResources, PoolSpec
from epp.discovery.declared import EXPERIMENTAL_GROUP
from epp.discovery.kubernetes import destinations
from epp.discovery.kubernetes.imports.objects import InferencePoolImport
from epp.discovery.kubernetes.imports.pools import CLUSTER_LABEL, ImportCatalog, ImportedPools
from epp.discovery.kubernetes.view import Scope
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.label_selector import parse_label_selector
from tests.apiserver import pool_import
from tests.discovery.kubernetes.world import Told

KEY = "default/pool"
SPEC = PoolSpec(name="pool", group=EXPERIMENTAL_GROUP, kind="InferencePoolImport")
CLUSTERS = ("east", "north", "west")


def found(*clusters: str, name: str = "pool", **metadata: Any) -> InferencePoolImport:
    made = pool_import(name, clusters)
    made["metadata"] |= metadata
    return msgspec.convert(made, InferencePoolImport)


def catalog(*objects: InferencePoolImport, selector: str = "") -> ImportCatalog:
    labels = parse_label_selector(selector, "selector") if selector else None
    scope = Scope(
        namespace="default", group=EXPERIMENTAL_GROUP, names=frozenset({"pool"}), selector=labels
    )
    made = ImportCatalog(scope, CLUSTERS)
    made.changed(Changes(objects))
    return made


def test_what_is_wanted_of_each_member() -> None:
    known = catalog(found("west", "east", "far"), found("north", name="other"))
    assert list(known.served()) == ["pool"]
    assert known.by_cluster() == {
        "east": frozenset({"pool"}),
        "north": frozenset(),
        "west": frozenset({"pool"}),
    }
    assert known.strangers() == {"pool": ("far",)}
    known.changed(Changes((), (found("west"),)))
    assert not any(known.by_cluster().values())


def test_imports_by_their_labels() -> None:
    labelled = found("east", name="a", labels={"team": "x"})
    known = catalog(labelled, found("east"), selector="team=x")
    assert known.served()["a"].spec == msgspec.structs.replace(SPEC, name="a")
    assert known.by_cluster()["east"] == {"a"}


def test_several_controllers_may_name_clusters() -> None:
    made = pool_import(clusters=("west",))
    other = {"name": "example.com/other", "exportingClusters": [{"name": "east"}, {"name": "west"}]}
    made["status"]["controllers"] += [other, {"name": "example.com/gateway", "parents": []}]
    known = catalog(msgspec.convert(made, InferencePoolImport))
    assert {name for name, names in known.by_cluster().items() if names} == {"east", "west"}
    made.pop("status")
    assert not any(catalog(msgspec.convert(made, InferencePoolImport)).by_cluster().values())


def resources(*endpoints: Endpoint, **more: Any) -> PoolResources:
    return PoolResources(pool=SPEC, endpoints=endpoints, **more)


def endpoint(name: str, number: int = 1) -> Endpoint:
    return Endpoint(name=f"default/{name}", address=f"10.0.0.{number}", port=80, labels={"a": name})


def flush(pools: ImportedPools, told: Told, limit: int = 100) -> Told:
    while pools.flush(told, limit):
        pass
    return told


def test_whole_pools_and_changes_of_endpoints() -> None:
    pools, told = ImportedPools(), Told()
    pools.member("west").pool_applied(resources(endpoint("one")))
    flush(pools, told)
    assert not told.calls, "nobody has said yet that there is such a pool"
    pools.local.pool_applied(resources(objectives={"a": Objective(name="a")}))
    [(what, _, whole)] = flush(pools, told).take()
    assert (what, list(whole.objectives)) == ("applied", ["a"])
    assert whole.endpoints[0].labels == {"a": "one", CLUSTER_LABEL: "west"}
    pools.member("east").endpoints_changed(KEY, EndpointChanges(present=(endpoint("two", 2),)))
    assert [what for what, _, _ in flush(pools, told).take()] == ["changed"]
    pools.member("west").endpoints_changed(KEY, EndpointChanges(present=(endpoint("one"),)))
    assert not flush(pools, told).take(), "nothing has changed"
    pools.member("west").pool_gone(KEY)
    assert flush(pools, told).endpoints() == {"east/default/two": "10.0.0.2:80"}
    pools.local.pool_gone(KEY)
    assert flush(pools, told).take()[-1] == ("gone", KEY, None)
    pools.local.pool_applied(resources())
    assert flush(pools, told).endpoints() == {"east/default/two": "10.0.0.2:80"}


_cluster = st.sampled_from(CLUSTERS)
_number = st.integers(0, 4)
_operation = st.one_of(
    st.tuples(st.just("put"), _cluster, _number, st.integers(0, 2)),
    st.tuples(st.just("take"), _cluster, _number),
    st.tuples(st.just("list"), _cluster, st.frozensets(_number)),
    st.tuples(st.just("leave"), _cluster),
    st.tuples(st.just("local"), st.booleans()),
    st.tuples(st.just("flush"), st.integers(1, 3)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_operation, max_size=30))
def test_any_history_comes_to_the_union(history: list[tuple[Any, ...]]) -> None:
    """One endpoint for each destination, that whose name comes first; of too many those whose
    names come first."""
    pools, told = ImportedPools(), Told()
    there: dict[str, dict[int, Endpoint]] = {cluster: {} for cluster in CLUSTERS}
    exists = False
    with patch.object(destinations, "MAX_ENDPOINTS", 3):
        for kind, *more in [*history, ("flush", 2)]:
            listener = pools.member(more[0]) if more[0] in there else pools.local
            match (kind, *more):
                case "put", cluster, number, version:
                    made = there[cluster][number] = endpoint(f"p{version}{number}", number)
                    listener.endpoints_changed(KEY, EndpointChanges(present=(made,)))
                case "take", cluster, number:
                    if there[cluster].pop(number, None) is not None:
                        destination = endpoint("", number).destination
                        listener.endpoints_changed(KEY, EndpointChanges(gone=(destination,)))
                case "list", cluster, numbers:
                    there[cluster] = {number: endpoint(f"p{number}", number) for number in numbers}
                    listener.pool_applied(resources(*there[cluster].values()))
                case "leave", cluster:
                    there[cluster] = {}
                    listener.pool_gone(KEY)
                case "local", True:
                    listener.pool_applied(resources())
                    exists = True
                case "local", False:
                    listener.pool_gone(KEY)
                    exists = False
                case "flush", limit:
                    pools.flush(told, limit)
        flush(pools, told, 2)
    assert set(told.pools) == ({KEY} if exists else set())
    if exists:
        assert told.endpoints() == _union(there)
    claims = [number for numbers in there.values() for number in numbers]
    shared = {number for number in claims if claims.count(number) > 1}
    assert len(pools.shared().get(KEY, ())) == len(shared)


def _union(there: dict[str, dict[int, Endpoint]]) -> dict[str, str]:
    first: dict[str, str] = {}
    for cluster, endpoints in there.items():
        for each in endpoints.values():
            name = f"{cluster}/{each.name}"
            first[each.destination] = min(name, first.get(each.destination, name))
    by_name = {name: destination for destination, name in first.items()}
    return {name: by_name[name] for name in sorted(by_name)[:3]}
