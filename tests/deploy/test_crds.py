"""The kinds in config/crd: what an API server demands of them, and what they let pass."""

import copy
from collections import Counter
from typing import Any

import kubernetes_validate
import msgspec
import pytest

from epp.discovery.declared import API_VERSIONS
from epp.discovery.kubernetes import objects, reading

from .rendering import CONFIG, Manifest, build, load
from .structural import problems
from .validation import refusals, schema_of, with_defaults

_DEFINITIONS = build(CONFIG / "crd")
_OBJECTS = CONFIG.parent / "tests/deploy/objects"
_ACCEPTED = load(
    _OBJECTS / "accepted.yaml",
    *(CONFIG / f"manifests/{name}.yaml" for name in ("pool", "objectives", "rewrites")),
)
_REFUSED = load(_OBJECTS / "refused.yaml")
_KINDS = {
    "inferencepools": ("inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"),
    "inferenceobjectives": ("llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"),
    "inferencemodelrewrites": ("llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"),
    "inferencepoolimports": ("inference.networking.x-k8s.io/v1alpha1",),
}


def name_of(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def only_version(definition: Manifest) -> Manifest:
    (version,) = definition["spec"]["versions"]
    return dict(version)


def schema(definition: Manifest) -> Manifest:
    return dict(only_version(definition)["schema"]["openAPIV3Schema"])


each_definition = pytest.mark.parametrize("definition", _DEFINITIONS, ids=name_of)


def test_there_is_a_definition_of_every_kind_and_version_that_is_read() -> None:
    found = [
        (d["spec"]["names"]["plural"], f"{d['spec']['group']}/{only_version(d)['name']}")
        for d in _DEFINITIONS
    ]
    assert Counter(found) == Counter((k, v) for k, versions in _KINDS.items() for v in versions)
    for kind, versions in API_VERSIONS.items():
        assert set(versions) == set(_KINDS[f"{kind.lower()}s"])
    files = {path.name for path in (CONFIG / "crd").glob("*_*.yaml")}
    assert files == {
        f"{d['spec']['group']}_{d['spec']['names']['plural']}.yaml" for d in _DEFINITIONS
    }


@each_definition
def test_a_definition_is_one_for_kubernetes(definition: Manifest) -> None:
    kubernetes_validate.validate(definition, "1.34", strict=True)
    spec, version = definition["spec"], only_version(definition)
    names = spec["names"]
    assert definition["metadata"]["name"] == f"{names['plural']}.{spec['group']}"
    assert (names["listKind"], names["singular"]) == (names["kind"] + "List", names["kind"].lower())
    assert spec["scope"] == "Namespaced"
    assert version["served"]
    assert version["storage"]
    assert version["subresources"] == {"status": {}}
    # Groups of k8s.io must say who has approved them.
    approved = "api-approved.kubernetes.io" in definition["metadata"].get("annotations", {})
    assert approved == spec["group"].endswith(".k8s.io")


def test_short_names_are_nobody_elses() -> None:
    short = [name for d in _DEFINITIONS for name in d["spec"]["names"].get("shortNames", ())]
    assert len(short) == len(_DEFINITIONS) == len(set(short))


@each_definition
def test_a_schema_is_structural(definition: Manifest) -> None:
    assert problems(schema(definition)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": None}, "type None"),
        ({"additionalProperties": {"type": "string"}}, "both properties"),
        ({"required": ["other"]}, "other is required"),
        ({"items": {"type": "string"}}, "items in a node of type object"),
        ({"$ref": "#/x"}, r"\$ref is not supported"),
        ({"anyOf": [{"type": "object"}]}, "type within allOf"),
        ({"properties": {"list": {"type": "array"}}, "required": []}, "an array needs items"),
        ({"properties": {"any": {"type": "object"}}, "required": []}, "nothing is kept"),
        ({"x-kubernetes-validations": [{"rule": "true"}]}, "without text or message"),
    ],
)
def test_the_check_of_structural_schemas_finds_what_is_not(change: Manifest, said: str) -> None:
    changed: Any = copy.deepcopy(schema(_DEFINITIONS[0]))
    changed["properties"]["spec"] |= change
    with pytest.raises(AssertionError, match=said):
        assert problems(changed) == []


@each_definition
def test_printer_columns_lead_to_fields(definition: Manifest) -> None:
    columns = only_version(definition)["additionalPrinterColumns"]
    assert columns[-1]["jsonPath"] == ".metadata.creationTimestamp"
    for column in columns[:-1]:
        node, path = schema(definition), column["jsonPath"]
        for part in path.replace('[?(@.type=="Accepted")]', "[0]").strip(".").split("."):
            node = node["properties"][part.removesuffix("[0]")]
            if part.endswith("[0]"):
                node = node["items"]
        assert node["type"] == column["type"]


@each_definition
def test_every_field_is_explained(definition: Manifest) -> None:
    def walk(node: Manifest, path: str) -> None:
        assert node.get("description") or path == "metadata", path
        for name, child in node.get("properties", {}).items():
            walk(child, f"{path}.{name}".strip("."))
        for key in ("items", "additionalProperties"):
            if key in node:
                walk(node[key], f"{path}[]")

    walk(schema(definition), "")


@each_definition
def test_defaults_are_valid_themselves(definition: Manifest) -> None:
    def walk(node: Manifest) -> None:
        if "default" in node:
            assert refusals(node, node["default"]) == []
        for child in node.get("properties", {}).values():
            walk(child)
        if "items" in node:
            walk(node["items"])

    walk(schema(definition))


@pytest.mark.parametrize("plural", ["inferenceobjectives", "inferencemodelrewrites"])
def test_a_kind_is_the_same_in_both_groups(plural: str) -> None:
    one, other = [d for d in _DEFINITIONS if d["spec"]["names"]["plural"] == plural]
    assert only_version(one) == only_version(other)


def test_an_objective_that_nobody_has_looked_at_says_so() -> None:
    (objective,) = [each for each in _ACCEPTED if name_of(each) == "without-priority"]
    found = with_defaults(schema_of(_DEFINITIONS, objective), objective | {"status": {}})
    assert found["status"]["conditions"] == [
        {
            "type": "Ready",
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
    ]
    assert found["spec"]["poolRef"] == {
        "group": "inference.networking.k8s.io",
        "kind": "InferencePool",
        "name": "llm",
    }


@pytest.mark.parametrize("manifest", _ACCEPTED, ids=name_of)
def test_good_objects_are_taken_and_can_be_read(manifest: Manifest) -> None:
    found = schema_of(_DEFINITIONS, manifest)
    assert refusals(found, manifest) == []
    group = manifest["apiVersion"].partition("/")[0]
    stored = with_defaults(found, manifest)
    stored["metadata"] = {"namespace": "default"} | stored["metadata"]
    if manifest["kind"] == "InferencePool":
        reading.read_pool(msgspec.convert(stored, objects.InferencePool), group)
    elif manifest["kind"] == "InferenceObjective":
        reading.read_objective(msgspec.convert(stored, objects.InferenceObjective), group)
    elif manifest["kind"] == "InferenceModelRewrite":
        reading.read_rewrite(msgspec.convert(stored, objects.InferenceModelRewrite), group)


@pytest.mark.parametrize("manifest", _REFUSED, ids=name_of)
def test_bad_objects_are_refused(manifest: Manifest) -> None:
    wanted = manifest["metadata"]["annotations"]["refused-at"]
    assert refusals(schema_of(_DEFINITIONS, manifest), manifest) == [wanted]
