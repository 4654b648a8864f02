"""What becomes of pools when objectives and rewrites change, and what bad objects do."""

from epp.discovery.declared import EXPERIMENTAL_GROUP
from tests.apiserver import model_rewrite, objective, pod, pool
from tests.discovery.kubernetes.world import World, changed, served

LLM_D = "llm-d.ai"


def test_objectives_and_rewrites_come_change_and_go() -> None:
    world = served()
    rewrite = model_rewrite("r", [{"targets": [{"modelRewrite": "m"}]}])
    world.put(objective("a", 1), rewrite)
    [(_, _, resources)] = world.flush().take()
    assert resources.objectives["a"].priority == 1
    assert [rule.targets[0].model for rule in resources.rewrites] == ["m"]
    world.put(objective("a", -2))
    [(_, _, resources)] = world.flush().take()
    assert resources.objectives["a"].priority == -2
    world.put(objective("a", -2, pool="other"))
    world.delete(rewrite)
    [(_, _, resources)] = world.flush().take()
    assert (resources.objectives, resources.rewrites) == ({}, ())
    world.put(objective("a", -2), changed(objective("a", -2), deletionTimestamp="x"))
    assert world.flush().pools["default/pool"].objectives == {}


def test_llm_d_wins_over_the_older_group() -> None:
    world = served(objective("a", 1, group=LLM_D), objective("a", 2))
    older = model_rewrite("r", [{"targets": [{"modelRewrite": "old"}]}])
    newer = model_rewrite("r", [{"targets": [{"modelRewrite": "new"}]}], group=LLM_D)
    world.put(newer, older)
    resources = world.flush().pools["default/pool"]
    assert resources.objectives["a"].priority == 1
    assert [rule.targets[0].model for rule in resources.rewrites] == ["new"]
    world.delete(objective("a", group=LLM_D), newer)
    resources = world.flush().pools["default/pool"]
    assert resources.objectives["a"].priority == 2
    assert [rule.targets[0].model for rule in resources.rewrites] == ["old"]


def test_the_oldest_rewrite_comes_first_and_names_decide_between_equals() -> None:
    world = served()
    for name, created in (("a", 3), ("c", 1), ("b", 1)):
        item = model_rewrite(name, [{"targets": [{"modelRewrite": name}]}])
        world.put(changed(item, creationTimestamp=f"2026-01-0{created}T00:00:00Z"))
    rules = world.flush().pools["default/pool"].rewrites
    assert [rule.targets[0].model for rule in rules] == ["b", "c", "a"]


# What is no good


def test_a_bad_object_is_told_once_and_its_last_good_version_stays() -> None:
    world = served(objective("a", 1), pod("one", "10.0.0.1"))
    bad = objective("a", 5)
    bad["spec"] |= {"priority": "high", "novelty": 1}
    world.put(bad, changed(bad, resourceVersion="2"))
    assert world.view.take_rejections() == [
        f'InferenceObjective.{EXPERIMENTAL_GROUP} default/a: spec.priority: found "high"; '
        "expected a whole number from -2147483648 to 2147483647"
    ]
    assert world.flush().take() == []
    assert world.view.problems()["InferenceObjective"] == 1
    world.put(bad)
    assert world.view.take_rejections() == []
    world.put(objective("a", 5))
    assert world.flush().pools["default/pool"].objectives["a"].priority == 5
    assert world.view.problems()["InferenceObjective"] == 0
    world.put(bad)
    assert len(world.view.take_rejections()) == 1


def test_a_bad_pool_stays_as_it_was_or_is_none() -> None:
    world = World("pool", "other")
    bad = pool("pool", ports=(0,))
    world.put(pool(), pod("one", "10.0.0.1"))
    world.flush().take()
    world.put(bad, pool("other", ports=(8000, 8000)))
    assert world.flush().take() == []
    assert world.view.take_rejections() == [
        "InferencePool.inference.networking.k8s.io default/pool: spec.targetPorts[0].number: "
        "found 0; expected a port number from 1 to 65535",
        "InferencePool.inference.networking.k8s.io default/other: spec.targetPorts[1].number: "
        "found 8000 again; expected each port once",
    ]
    known = {found.found.metadata.name: found for found in world.view.pools()}
    assert (known["pool"].is_wanted, known["pool"].endpoints) == (True, 1)
    assert (known["other"].is_wanted, known["other"].endpoints) == (False, None)
    world.delete(bad)
    assert world.flush().take() == [("gone", "default/pool", None)]


def test_fields_of_a_newer_api_are_no_mistake_and_nulls_are_none() -> None:
    newer = objective("a", 3)
    newer["spec"] |= {"novelty": 1, "priority": None}
    newer["spec"]["poolRef"]["kind"] = None
    world = served(newer)
    assert world.told.pools["default/pool"].objectives["a"].priority == 0
    assert world.view.take_rejections() == []
