"""What becomes of pools when pods and pools change."""

import pytest

from epp.core.resources import Endpoint, EndpointChanges, Objective, PoolSpec
from epp.discovery.declared import EXPERIMENTAL_GROUP
from epp.discovery.kubernetes import destinations
from tests.apiserver import objective, pod, pool, pool_v1alpha2
from tests.discovery.kubernetes.world import Object, World, changed, served


def endpoint(name: str, address: str, port: int = 8000) -> Endpoint:
    return Endpoint(name=f"default/{name}", address=address, port=port, labels={"app": "model"})


# Pods


def test_a_pool_is_told_of_whole_as_soon_as_its_pods_are_known() -> None:
    world = World(answers=False)
    world.put(objective("a", 7), pool(), pod("one", "10.0.0.1"))
    assert world.flush().calls == []
    world.answer()
    [(what, key, resources)] = world.flush().calls
    assert (what, key) == ("applied", "default/pool")
    assert resources.pool == PoolSpec(
        name="pool", selector={"app": "model"}, target_ports=(8000,), failure_mode="FailClose"
    )
    assert resources.objectives == {"a": Objective(name="a", priority=7)}
    assert resources.endpoints == (endpoint("one", "10.0.0.1"),)


@pytest.mark.parametrize(
    "absent",
    [
        pod("one", "10.0.0.1", ready=False),
        pod("one", None),
        pod("one", "nonsense"),
        pod("one", "10.0.0.1", phase="Failed"),
        pod("one", "10.0.0.1", phase="Succeeded"),
        pod("one", "10.0.0.1", labels={"app": "other"}),
        pod("one", "10.0.0.1", annotations={"llm-d.ai/active-ports": ""}),
        changed(pod("one", "10.0.0.1"), deletionTimestamp="2026-01-01T00:00:00Z"),
        {**pod("one"), "status": {"phase": "Running", "podIP": "10.0.0.1"}},
    ],
    ids=["not-ready", "no-ip", "no-such-ip", "failed", "done", "labels", "ports", "going", "new"],
)
def test_a_pod_that_does_not_serve_is_no_endpoint(absent: Object) -> None:
    world = served(absent)
    assert world.told.endpoints() == {}
    world.put(pod("one", "10.0.0.1"))
    present = EndpointChanges(present=(endpoint("one", "10.0.0.1"),))
    assert world.flush().take() == [("changed", "default/pool", present)]
    world.put(absent)
    gone = EndpointChanges(gone=("10.0.0.1:8000",))
    assert world.flush().take() == [("changed", "default/pool", gone)]


def test_what_makes_no_difference_is_not_told() -> None:
    world = served(pod("one", "10.0.0.1"), objective("a"))
    world.put(changed(pod("one", "10.0.0.1"), resourceVersion="9", annotations={"note": "x"}))
    world.put(changed(pool(), generation=2, annotations={"note": "x"}))
    world.put({**objective("a"), "status": {"conditions": [{"type": "Accepted"}]}})
    world.put(objective("b", pool="other"))
    assert world.flush().take() == []


def test_a_pod_that_flaps_ends_as_what_it_is() -> None:
    world = served(pod("one", "10.0.0.1"), pod("two", "10.0.0.2"))
    for _ in range(3):
        world.put(pod("one", "10.0.0.1", ready=False), pod("one", "10.0.0.1"))
        world.delete(pod("two"))
        world.put(pod("two", "10.0.0.2"))
    assert world.flush().take() == []
    world.put(pod("one", "10.0.0.1", ready=False), pod("one", "10.0.0.9"))
    expected = EndpointChanges(present=(endpoint("one", "10.0.0.9"),), gone=("10.0.0.1:8000",))
    assert world.flush().take() == [("changed", "default/pool", expected)]


def test_labels_are_told_when_they_change() -> None:
    world = served(pod("one", "10.0.0.1"))
    world.put(pod("one", "10.0.0.1", labels={"app": "model", "role": "decode"}))
    [(_, _, changes)] = world.flush().take()
    assert changes.present[0].labels == {"app": "model", "role": "decode"}


def test_each_active_port_is_an_endpoint() -> None:
    world = World()
    active = {"llm-d.ai/active-ports": "8001", "inference.networking.k8s.io/active-ports": "8000"}
    world.put(
        pool(ports=(8000, 8001)),
        pod("all", "10.0.0.1"),
        pod("one", "10.0.0.2", annotations=active),
        pod("old", "10.0.0.3", annotations={"inference.networking.k8s.io/active-ports": "8000"}),
    )
    assert world.flush().endpoints() == {
        "default/all-rank-0": "10.0.0.1:8000",
        "default/all-rank-1": "10.0.0.1:8001",
        "default/old-rank-0": "10.0.0.3:8000",
        "default/one-rank-1": "10.0.0.2:8001",
    }
    world.told.take()
    world.put(pod("one", "10.0.0.2", annotations={"llm-d.ai/active-ports": "8000,8001"}))
    [(_, _, changes)] = world.flush().take()
    assert changes.present == (endpoint("one-rank-0", "10.0.0.2", 8000),)
    assert changes.gone == ()


def test_the_primary_address_counts_in_its_canonical_form() -> None:
    dual = pod("dual", "2001:DB8:0::1")
    dual["status"]["podIPs"] = [{"ip": "2001:DB8:0::1"}, {"ip": "10.0.0.1"}]
    assert served(dual).told.endpoints() == {"default/dual": "[2001:db8::1]:8000"}


def test_of_two_pods_at_one_address_the_first_by_name_counts() -> None:
    world = served(pod("b", "10.0.0.1"))
    world.put(pod("c", "10.0.0.1"))
    assert world.flush().take() == []
    world.put(pod("a", "10.0.0.1"))
    expected = EndpointChanges(present=(endpoint("a", "10.0.0.1"),))
    assert world.flush().take() == [("changed", "default/pool", expected)]
    world.delete(pod("a"), pod("b"))
    expected = EndpointChanges(present=(endpoint("c", "10.0.0.1"),))
    assert world.flush().take() == [("changed", "default/pool", expected)]
    world.delete(pod("c"))
    expected = EndpointChanges(gone=("10.0.0.1:8000",))
    assert world.flush().take() == [("changed", "default/pool", expected)]


def test_the_number_of_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "MAX_ENDPOINTS", 2)
    world = served(*(pod(name, f"10.0.0.{number}") for number, name in enumerate("dbc", 1)))
    assert list(world.told.endpoints()) == ["default/b", "default/c"]
    assert world.view.excluded_endpoints == 1
    world.put(pod("a", "10.0.0.9"))
    assert list(world.flush().endpoints()) == ["default/a", "default/b"]
    world.delete(pod("a"), pod("c"))
    assert list(world.flush().endpoints()) == ["default/b", "default/d"]
    assert world.view.excluded_endpoints == 0


def test_a_flush_does_no_more_than_it_may() -> None:
    world = World()
    pods = [pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 10)]
    world.put(pool(), *pods)
    steps = 1
    while world.view.flush(world.told, 2):
        assert world.told.pools == {}
        steps += 1
    assert steps >= 8
    world.told.take()
    world.delete(*pods)
    while world.view.flush(world.told, 2):
        pass
    calls = world.told.take()
    assert len(calls) >= 4
    assert all(len(changes.gone) <= 2 for _, _, changes in calls)
    assert world.told.endpoints() == {}


# Pools


def test_other_target_ports_are_told_of_at_once_and_as_a_whole() -> None:
    world = served(pod("one", "10.0.0.1"), pod("two", "10.0.0.2", ready=False))
    world.put(pool(ports=(9000,)), pod("two", "10.0.0.2"))
    [(what, _, resources)] = world.flush(1).take()
    assert (what, resources.pool.target_ports) == ("applied", (9000,))
    assert [found.destination for found in resources.endpoints] == [
        "10.0.0.1:9000",
        "10.0.0.2:9000",
    ]


def test_with_a_new_selector_the_old_state_stays_until_the_new_pods_are_known() -> None:
    world = served(pod("one", "10.0.0.1"), pod("two", "10.0.0.2", labels={"app": "new"}))
    before = world.told.pools["default/pool"]
    world.answers = False
    world.put(pool(selector={"app": "new"}, ports=(9000,)))
    assert world.flush().take() == []
    world.put(objective("a", 3))
    [(_, _, resources)] = world.flush().take()
    assert (resources.pool, resources.endpoints) == (before.pool, before.endpoints)
    assert list(resources.objectives) == ["a"]
    world.view.pods_listed("default/pool", "app=model", ())
    assert world.flush().take() == []
    world.answer()
    [(what, _, resources)] = world.flush().take()
    assert (what, resources.pool.selector) == ("applied", {"app": "new"})
    assert world.told.endpoints() == {"default/two": "10.0.0.2:9000"}


def test_a_selector_that_goes_back_at_once_changes_nothing() -> None:
    world = served(pod("one", "10.0.0.1"))
    world.answers = False
    world.put(pool(selector={"app": "new"}), pool())
    assert world.flush().take() == []
    world.answer()
    assert world.flush().take() == []
    assert world.told.endpoints() == {"default/one": "10.0.0.1:8000"}


@pytest.mark.parametrize("is_going", [True, False])
def test_a_pool_goes_and_comes_back(is_going: bool) -> None:
    world = served(pod("one", "10.0.0.1"), objective("a", 1))
    if is_going:
        world.put(changed(pool(), deletionTimestamp="2026-01-01T00:00:00Z"))
    else:
        world.delete(pool())
    assert world.flush().take() == [("gone", "default/pool", None)]
    assert world.view.wanted_pods == {}
    world.put(pod("two", "10.0.0.2"), pool())
    [(what, _, resources)] = world.flush().take()
    assert what == "applied"
    assert len(resources.endpoints) == 2
    assert list(resources.objectives) == ["a"]


def test_a_pool_that_is_made_again_at_once_is_never_gone() -> None:
    world = served(pod("one", "10.0.0.1"))
    world.delete(pool())
    world.put(pool(ports=(9000,)))
    assert [what for what, _, _ in world.flush().take()] == ["applied"]
    assert world.told.endpoints() == {"default/one": "10.0.0.1:9000"}


def test_a_pool_that_is_made_again_stays_what_it_was_until_its_pods_are_known() -> None:
    world = served(pod("one", "10.0.0.1"))
    world.answers = False
    world.delete(pool())
    world.put(pool(), pod("two", "10.0.0.2"))
    assert world.flush().take() == []
    world.answer()
    assert [what for what, _, _ in world.flush().take()] == ["applied"]
    assert world.told.endpoints() == {
        "default/one": "10.0.0.1:8000",
        "default/two": "10.0.0.2:8000",
    }


def test_an_empty_selector_takes_all_pods() -> None:
    world = World()
    everything = pool()
    everything["spec"]["selector"] = {"matchLabels": {}}
    world.put(everything, pod("one", "10.0.0.1", labels={}))
    assert world.view.wanted_pods == {"default/pool": ""}
    assert world.flush().endpoints() == {"default/one": "10.0.0.1:8000"}


def test_pools_are_chosen_by_name_each_with_its_own() -> None:
    world = World("a", "b")
    world.put(
        pool("a"),
        pool("b", selector={"app": "b"}),
        pool("c"),
        pod("one", "10.0.0.1"),
        pod("two", "10.0.0.2", labels={"app": "b"}),
        objective("first", 1, pool="a"),
        objective("second", 2, pool="b"),
    )
    told = world.flush()
    assert told.pools.keys() == {"default/a", "default/b"}
    assert told.endpoints("default/a") == {"default/one": "10.0.0.1:8000"}
    assert told.endpoints("default/b") == {"default/two": "10.0.0.2:8000"}
    assert list(told.pools["default/a"].objectives) == ["first"]
    assert list(told.pools["default/b"].objectives) == ["second"]
    told.take()
    world.delete(pool("a"))
    world.put(pod("two", "10.0.0.3", labels={"app": "b"}))
    assert sorted((what, key) for what, key, _ in world.flush().take()) == [
        ("changed", "default/b"),
        ("gone", "default/a"),
    ]


def test_pools_are_chosen_by_labels_which_may_change() -> None:
    world = World(selector="team in (x, y),!canary")
    world.put(pool("a", labels={"team": "x"}), pool("b", labels={"team": "z"}), pool("c"))
    assert world.flush().pools.keys() == {"default/a"}
    world.put(pool("b", labels={"team": "y"}), pool("a", labels={"team": "x", "canary": ""}))
    assert world.flush().pools.keys() == {"default/b"}


def test_a_pool_of_version_v1alpha2() -> None:
    world = World(group=EXPERIMENTAL_GROUP)
    world.put(
        pool_v1alpha2(port=9000, failure_mode="FailOpen"),
        pod("one", "10.0.0.1"),
        objective("mine", 1, pool_group=EXPERIMENTAL_GROUP),
        objective("other", 1),
    )
    resources = world.flush().pools["default/pool"]
    assert (resources.pool.group, resources.pool.failure_mode) == (EXPERIMENTAL_GROUP, "FailOpen")
    assert world.told.endpoints() == {"default/one": "10.0.0.1:9000"}
    assert list(resources.objectives) == ["mine"]


def test_pods_without_a_pool_object() -> None:
    world = World(standalone=True)
    world.put(pod("one", "10.0.0.1"), pod("two", "10.0.0.2", labels={"app": "a", "canary": ""}))
    spec = PoolSpec(name="mine", target_ports=(8000,))
    world.view.serve(spec, "app in (a, model),!canary")
    world.put(objective("a", 4, pool="mine"))
    resources = world.flush().pools["default/mine"]
    assert resources.pool == spec
    assert world.told.endpoints("default/mine") == {"default/one": "10.0.0.1:8000"}
    assert list(resources.objectives) == ["a"]
