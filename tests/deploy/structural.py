"""The rules of structural schemas, which an API server demands of a CustomResourceDefinition v1.

From the Kubernetes documentation, "Specifying a structural schema" and "Defaulting": every node has
a type and says what it has inside; nothing is said within allOf, anyOf, oneOf and not but
validation; ``metadata`` has no rules but for name and generateName; defaults are pruned and valid.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["problems"]

Schema: TypeAlias = Mapping[str, Any]

_TYPES: Final = ("object", "array", "string", "integer", "number", "boolean")
_ALLOWED: Final = frozenset(
    {
        *("type", "description", "title", "format", "default", "nullable", "enum", "example"),
        *("properties", "additionalProperties", "required", "minProperties", "maxProperties"),
        *("items", "minItems", "maxItems", "uniqueItems"),
        *("minLength", "maxLength", "pattern", "minimum", "maximum", "multipleOf"),
        *("exclusiveMinimum", "exclusiveMaximum", "allOf", "anyOf", "oneOf", "not"),
        *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
        *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"),
        *("x-kubernetes-embedded-resource", "x-kubernetes-validations"),
    }
)
_OF_TYPE: Final = {
    "object": (
        *("properties", "additionalProperties", "required", "minProperties", "maxProperties"),
        "x-kubernetes-map-type",
    ),
    "array": (
        *("items", "minItems", "maxItems", "uniqueItems"),
        *("x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
    ),
    "string": ("minLength", "maxLength", "pattern"),
}


def problems(schema: Schema) -> list[str]:
    """Return what an API server would refuse in the schema of a version, by paths in it."""
    found = list(_node(schema, "", is_root=True))
    if schema.get("type") != "object":
        found.append("the root: expected the type object")
    return found


def _node(schema: Schema, path: str, *, is_root: bool = False) -> Iterator[str]:
    kind = schema.get("type")
    if kind not in _TYPES:
        yield f"{path}: type {kind!r}"
    for key in sorted(schema.keys() - _ALLOWED):
        yield f"{path}: {key} is not supported"
    for of_type, keys in _OF_TYPE.items():
        for key in keys:
            if key in schema and kind != of_type:
                yield f"{path}: {key} in a node of type {kind}"
    yield from _inside(schema, path, is_root=is_root)
    yield from _lists(schema, path)
    yield from _junctors(schema, path)
    if schema.get("uniqueItems"):
        yield f"{path}: uniqueItems must not be true"
    if "default" in schema and is_root:
        yield f"{path}: a default of the root"
    for rule in schema.get("x-kubernetes-validations", ()):
        if not rule.get("rule") or not (rule.get("message") or rule.get("messageExpression")):
            yield f"{path}: a rule without text or message"


def _inside(schema: Schema, path: str, *, is_root: bool) -> Iterator[str]:
    kind = schema.get("type")
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{path}: both properties and additionalProperties"
    for name in schema.get("required", ()):
        if name not in schema.get("properties", {}):
            yield f"{path}: {name} is required and not described"
    for name, child in schema.get("properties", {}).items():
        if is_root and name == "metadata":
            if child.keys() - {"type", "description"}:
                yield "metadata: rules for what Kubernetes has rules for"
        elif is_root and name in ("apiVersion", "kind") and child.get("type") != "string":
            yield f"{name}: expected the type string"
        else:
            yield from _node(child, f"{path}.{name}" if path else name)
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        yield from _node(more, f"{path}.*")
    elif more is False:
        yield f"{path}: additionalProperties must not be false"
    if kind == "array":
        if isinstance(schema.get("items"), Mapping):
            yield from _node(schema["items"], f"{path}[]")
        else:
            yield f"{path}: an array needs items"
    preserves = schema.get("x-kubernetes-preserve-unknown-fields")
    has_content = preserves or {"properties", "additionalProperties"} & schema.keys()
    if kind == "object" and not has_content:
        yield f"{path}: an object of which nothing is kept"


def _lists(schema: Schema, path: str) -> Iterator[str]:
    list_type = schema.get("x-kubernetes-list-type", "atomic")
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if list_type not in ("atomic", "set", "map"):
        yield f"{path}: list type {list_type}"
    if (list_type == "map") != bool(keys):
        yield f"{path}: a list map and its keys go together"
    item = schema.get("items", {})
    for key in keys:
        if key not in item.get("properties", {}):
            yield f"{path}: the key {key} is not described"
        elif key not in item.get("required", ()) and "default" not in item["properties"][key]:
            yield f"{path}: the key {key} may be missing"


def _junctors(schema: Schema, path: str) -> Iterator[str]:
    inner = [each for key in ("allOf", "anyOf", "oneOf") for each in schema.get(key, ())]
    inner += [schema["not"]] if "not" in schema else []
    for each in inner:
        said = each.keys() & {"type", "default", "description", "nullable", "additionalProperties"}
        if said:
            yield f"{path}: {', '.join(sorted(said))} within allOf, anyOf, oneOf or not"
