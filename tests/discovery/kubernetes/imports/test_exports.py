"""What an exporting controller has to write."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.discovery.kubernetes.imports import exports
from epp.discovery.kubernetes.imports.exports import (
    CONTROLLER,
    CREATED_BY,
    MemberState,
    Step,
    own_entry,
    plan,
)
from epp.discovery.kubernetes.imports.objects import InferencePoolImport, MemberPool
from epp.discovery.kubernetes.objects import Condition
from tests.apiserver import pool, pool_import

EXPORT = "inference.networking.x-k8s.io/export"
_DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def pool_of(
    value: str | None = "ClusterSet", says: Condition | None = None, **metadata: Any
) -> Any:
    made = pool(annotations={} if value is None else {EXPORT: value})
    made["metadata"] |= {"generation": 3, **metadata}
    gateway = {"parentRef": {"name": "gateway"}, "conditions": [{"type": "Accepted"}]}
    made["status"] = {"parents": [gateway]}
    if says is not None:
        ours = {"controllerName": CONTROLLER, "conditions": [msgspec.to_builtins(says)]}
        made["status"]["parents"].append(ours)
    return msgspec.convert(made, MemberPool)


def import_of(
    clusters: Sequence[str] = (), *, ours: bool = True, far: bool = False, **metadata: Any
) -> InferencePoolImport:
    made = pool_import(clusters=("far",) if far else ())
    made["metadata"] |= {"uid": "u", "resourceVersion": "7", **metadata}
    if ours:
        made["metadata"]["annotations"] = {CREATED_BY: CONTROLLER}
    if clusters:
        named = [{"name": cluster} for cluster in clusters]
        made["status"]["controllers"].append({"name": CONTROLLER, "exportingClusters": named})
    return msgspec.convert(made, InferencePoolImport)


def state(found: Any = None, made: Any = None, *, has_told: bool = True) -> MemberState:
    return MemberState(
        pools={} if found is None else {"pool": found},
        imports={} if made is None else {"pool": made},
        has_told=has_told,
    )


def condition(status: str, reason: str, message: str) -> Condition:
    return Condition(
        type="Exported", status=status, reason=reason, message=message, observed_generation=3
    )


EXPORTED = condition("True", "Exported", "all members have the import")
DELETE = Step(verb="delete", name="pool", uid="u", version="7")


def test_an_exported_pool_is_imported_everywhere() -> None:
    steps = plan({"east": state(pool_of()), "west": state()})
    missing = condition("False", "MemberFailed", "no import in east, west")
    create = Step(verb="create", name="pool")
    assert steps == {
        "east": [create, Step(verb="set-condition", name="pool", condition=missing)],
        "west": [create],
    }
    steps = plan({"east": state(pool_of(), import_of()), "west": state(None, import_of(["west"]))})
    naming = Step(verb="name-clusters", name="pool", clusters=("east",))
    assert steps["east"][0] == naming
    assert steps["west"] == [naming]
    steps = plan(
        {"east": state(pool_of(), import_of(["east"])), "west": state(None, import_of(["east"]))}
    )
    said = Step(verb="set-condition", name="pool", condition=EXPORTED)
    assert steps == {"east": [said], "west": []}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (import_of(["east"]), [DELETE]),
        (import_of(), [DELETE]),
        (import_of(["east"], ours=False), [Step(verb="name-clusters", name="pool")]),
        (import_of(["east"], far=True), [Step(verb="name-clusters", name="pool")]),
        (import_of(ours=False), []),
        (import_of(far=True), []),
        (import_of(["east"], **_DELETED), []),
    ],
)
def test_what_becomes_of_imports_that_nobody_exports(
    made: InferencePoolImport, expected: list[Step]
) -> None:
    assert plan({"east": state(pool_of(None), made)}) == {"east": expected}
    assert plan({"east": state(None, made)}) == {"east": expected}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pool_of(says=EXPORTED), []),
        (pool_of(None), []),
        (pool_of(None, EXPORTED), [None]),
        (pool_of(None, EXPORTED, **_DELETED), []),
        (pool_of(says=msgspec.structs.replace(EXPORTED, observed_generation=2)), [EXPORTED]),
        (
            pool_of("Here", EXPORTED),
            [condition("False", "NotSupported", f'{EXPORT} is "Here"; expected ClusterSet')],
        ),
    ],
)
def test_the_condition_of_a_pool(found: MemberPool, expected: list[Condition | None]) -> None:
    steps = plan({"east": state(found, import_of(["east"]))})["east"]
    assert [step.condition for step in steps if step.verb == "set-condition"] == expected


def test_a_member_that_has_not_told_of_itself() -> None:
    """What was said of it stays; it is not written to, and not taken for a success."""
    away = state(has_told=False)
    east = state(None, import_of(["west"]))
    assert plan({"east": east, "west": away}) == {"east": []}
    east = state(pool_of(), import_of(["west"]))
    naming, said = plan({"east": east, "west": away})["east"]
    assert naming.clusters == ("east", "west")
    assert said.condition is not None
    assert said.condition.message == "no import in east, west"
    assert plan({"east": east, "west": state()})["east"][0].clusters == ("east",)


def test_there_are_not_too_many_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_MAX_POOLS", 0)
    (step,) = plan({"east": state(pool_of())})["east"]
    assert step.condition is not None
    assert step.condition.reason == "TooManyPools"


_state = st.builds(
    state,
    st.sampled_from([None, pool_of(), pool_of(None), pool_of("x"), pool_of(says=EXPORTED)]),
    st.sampled_from(
        [None, import_of(), import_of(["east"]), import_of(["west"], ours=False, far=True)]
    ),
    has_told=st.sampled_from([True, True, False]),
)


@settings(max_examples=150, deadline=None)
@given(st.fixed_dictionaries({"east": _state, "west": _state}))
def test_steps_come_to_an_end(members: dict[str, MemberState]) -> None:
    """When all that is to be done is done, all members say the same, and nobody's is lost."""
    of_others = {name for name, each in members.items() if each.imports.get("pool") == _FAR}
    for _ in range(4):
        steps = plan(members)
        members = {name: _after(each, steps.get(name, [])) for name, each in members.items()}
    assert not any(plan(members).values())
    assert all(members[name].imports for name in of_others)
    if not all(each.has_told for each in members.values()):
        return
    exporting = tuple(
        name
        for name, each in sorted(members.items())
        if any(found.export == "ClusterSet" for found in each.pools.values())
    )
    for name, each in members.items():
        made = each.imports.get("pool")
        entry = None if made is None else own_entry(made)
        named = () if entry is None else tuple(found.name for found in entry.exporting_clusters)
        assert named == exporting
        if made is not None and not exporting:
            assert name in of_others


_FAR = import_of(["west"], ours=False, far=True)


def _after(before: MemberState, steps: list[Step]) -> MemberState:
    found, made = before.pools.get("pool"), before.imports.get("pool")
    for step in steps:
        match step.verb:
            case "create":
                assert made is None
                made = import_of()
            case "delete":
                made = None
            case "name-clusters":
                assert made is not None
                is_ours = CREATED_BY in made.metadata.annotations
                has_far = len(made.status.controllers[0].exporting_clusters) > 0
                made = import_of(step.clusters, ours=is_ours, far=has_far)
            case "set-condition":
                assert found is not None
                found = pool_of(found.export, step.condition)
    return state(found, made, has_told=before.has_told)
