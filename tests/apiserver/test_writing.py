"""The rules of writing, without HTTP: generations, owners of fields, conflicts, finalizers."""

from typing import Any

import pytest

from .errors import Refusal
from .kinds import find_kind
from .objects import objective, pod
from .store import Object, Store
from .writing import Writer

OBJECTIVE = find_kind("inference.networking.x-k8s.io/v1alpha2", "InferenceObjective")
POD = find_kind("v1", "Pod")
EVENT = find_kind("events.k8s.io/v1", "Event")


def condition(kind: str = "Accepted", status: str = "True", **more: Any) -> dict[str, Any]:
    time = "2026-01-01T00:00:00Z"
    told = {"type": kind, "status": status, "reason": "R", "message": "", **more}
    return {**told, "lastTransitionTime": time}


def status_of(*conditions: dict[str, Any]) -> Object:
    return {
        "apiVersion": OBJECTIVE.api_version,
        "kind": "InferenceObjective",
        "metadata": {"name": "o", "namespace": "default"},
        "status": {"conditions": list(conditions)},
    }


@pytest.fixture
def writer() -> Writer:
    return Writer(Store())


def apply(writer: Writer, body: Object, manager: str = "epp", *, force: bool = False) -> Object:
    return writer.apply(
        OBJECTIVE, "default", "o", body, manager=manager, subresource="status", force=force
    )[0]


def test_only_a_change_of_the_spec_is_a_generation(writer: Writer) -> None:
    made = writer.create(OBJECTIVE, "default", {**objective("o", 1), "status": {"x": 1}})
    assert "status" not in made
    assert made["metadata"]["generation"] == 1
    with_status = apply(writer, status_of(condition()))
    assert with_status["metadata"]["generation"] == 1
    changed = {**with_status, "spec": {**with_status["spec"], "priority": 2}, "status": {}}
    newer = writer.update(OBJECTIVE, "default", "o", changed)
    assert newer["metadata"]["generation"] == 2
    assert newer["status"] == with_status["status"]
    assert writer.update(OBJECTIVE, "default", "o", newer) is newer


def test_apply_owns_what_it_names_and_takes_back_what_it_no_longer_names(writer: Writer) -> None:
    writer.create(OBJECTIVE, "default", objective("o"))
    first = apply(writer, status_of(condition(), condition("Mine")))
    assert apply(writer, status_of(condition(), condition("Mine"))) is first
    both = apply(writer, status_of(condition("Theirs")), "other")
    kinds = [entry["type"] for entry in both["status"]["conditions"]]
    assert kinds == ["Accepted", "Mine", "Theirs"]
    fewer = apply(writer, status_of(condition()))
    kinds = [entry["type"] for entry in fewer["status"]["conditions"]]
    assert kinds == ["Accepted", "Theirs"]
    entry = next(e for e in fewer["metadata"]["managedFields"] if e["manager"] == "epp")
    assert (entry["operation"], entry["subresource"]) == ("Apply", "status")
    fields = entry["fieldsV1"]["f:status"]["f:conditions"]
    assert list(fields) == ['k:{"type":"Accepted"}']


def test_apply_over_anothers_field_is_a_conflict_unless_forced(writer: Writer) -> None:
    writer.create(OBJECTIVE, "default", objective("o"))
    apply(writer, status_of(condition()))
    with pytest.raises(Refusal, match="Apply failed with 1 conflict") as refused:
        apply(writer, status_of(condition(status="False")), "other")
    causes = refused.value.status()["details"]["causes"]
    assert causes[0]["field"] == '.status.conditions[type="Accepted"].status'
    taken = apply(writer, status_of(condition(status="False")), "other", force=True)
    assert taken["status"]["conditions"][0]["status"] == "False"
    owners = {e["manager"]: e["fieldsV1"] for e in taken["metadata"]["managedFields"]}
    item = owners["epp"]["f:status"]["f:conditions"]['k:{"type":"Accepted"}']
    assert "f:status" not in item


def test_conditions_are_checked(writer: Writer) -> None:
    writer.create(OBJECTIVE, "default", objective("o"))
    for wrong in ({"reason": ""}, {"status": "true"}, {"lastTransitionTime": "now"}):
        with pytest.raises(Refusal) as refused:
            apply(writer, status_of({**condition(), **wrong}))
        assert refused.value.code == 422
    nobody = {**status_of(), "metadata": {"name": "x"}}
    with pytest.raises(Refusal) as refused:
        writer.apply(
            OBJECTIVE, "default", "x", nobody, manager="epp", subresource="status", force=True
        )
    assert refused.value.code == 404


def test_finalizers_hold_an_object_back(writer: Writer) -> None:
    made = writer.create(OBJECTIVE, "default", objective("o"))
    made["metadata"]["finalizers"] = ["example.com/hold"]
    held, gone = writer.delete(OBJECTIVE, "default", "o", {})
    assert not gone
    assert held["metadata"]["generation"] == 2
    held = {**held, "metadata": {**held["metadata"], "finalizers": []}}
    writer.update(OBJECTIVE, "default", "o", held)
    with pytest.raises(Refusal, match="not found"):
        writer.delete(OBJECTIVE, "default", "o", {})


def test_patches(writer: Writer) -> None:
    writer.create(POD, "default", pod("a"))
    labels = {"metadata": {"labels": {"app": None, "x": "1"}}}
    merged = writer.patch(POD, "default", "a", labels, content_type="application/merge-patch+json")
    assert merged["metadata"]["labels"] == {"x": "1"}
    operations = [
        {"op": "test", "path": "/metadata/labels/x", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/x", "value": "2"},
    ]
    kind = "application/json-patch+json"
    patched = writer.patch(POD, "default", "a", operations, content_type=kind)
    assert patched["metadata"]["labels"] == {"x": "2"}
    with pytest.raises(Refusal) as refused:
        writer.patch(POD, "default", "a", operations, content_type=kind)
    assert refused.value.code == 422


def test_of_an_event_only_the_series_changes(writer: Writer) -> None:
    event = {
        "apiVersion": EVENT.api_version,
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "epp",
        "reportingInstance": "epp-1",
        "action": "Look",
        "reason": "Seen",
        "note": "one",
        "type": "Normal",
    }

    def apply_event(**changes: Any) -> Object:
        body = {**event, **changes}
        return writer.apply(EVENT, "default", "e", body, manager="epp", force=True)[0]

    series = {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}
    apply_event()
    again = apply_event(series=series)
    assert again["series"] == series
    assert (again["message"], "note" in again) == ("one", False)
    with pytest.raises(Refusal, match="field is immutable") as refused:
        apply_event(series=series, note="two")
    assert refused.value.code == 422
