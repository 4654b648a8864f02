"""What an API server would do with an object of a CustomResourceDefinition: fill in, and refuse.

Defaults first, then the schema's rules (by jsonschema), keys of list maps, and rules in CEL.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cel
import jsonschema

from .rendering import Manifest

__all__ = ["refusals", "schema_of", "with_defaults"]


def schema_of(definitions: Sequence[Manifest], found: Manifest) -> Mapping[str, Any]:
    """Return the schema for an object among those of the definitions."""
    group, _, version = found["apiVersion"].partition("/")
    for definition in definitions:
        spec = definition["spec"]
        if (spec["group"], spec["names"]["kind"]) == (group, found["kind"]):
            for each in spec["versions"]:
                if each["name"] == version:
                    schema: Mapping[str, Any] = each["schema"]["openAPIV3Schema"]
                    return schema
    raise LookupError(f"no definition of {found['kind']} {found['apiVersion']}")


def refusals(schema: Mapping[str, Any], found: Manifest) -> list[str]:
    """Return the paths of the fields for which the object would be refused."""
    value = with_defaults(schema, found)
    invalid = [_path_of(error) for error in _errors(schema, value)]
    # Rules are looked at only where the value is otherwise in order.
    return invalid or list(_broken_rules(schema, value, ""))


def with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """Return the value with what is filled in where it says nothing."""
    if isinstance(value, dict) and "properties" in schema:
        filled = dict(value)
        for name, child in schema["properties"].items():
            if name not in filled and "default" in child:
                filled[name] = copy.deepcopy(child["default"])
            if name in filled:
                filled[name] = with_defaults(child, filled[name])
        return filled
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], item) for item in value]
    return value


def _errors(schema: Mapping[str, Any], value: Any) -> Iterator[jsonschema.ValidationError]:
    yield from jsonschema.Draft4Validator(dict(schema)).iter_errors(value)


def _path_of(error: jsonschema.ValidationError) -> str:
    path = _join(error.absolute_path)
    if error.validator != "required":
        return path
    (missing, *_) = [name for name in error.validator_value if name not in error.instance]
    return f"{path}.{missing}" if path else str(missing)


def _join(parts: Iterator[Any] | Sequence[Any]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _broken_rules(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys:
        seen = [tuple(item.get(key) for key in keys) for item in value]
        if len(set(seen)) < len(seen):
            yield path
    for rule in schema.get("x-kubernetes-validations", ()):
        if cel.evaluate(rule["rule"], {"self": value}) is not True:
            yield path
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                inner = f"{path}.{name}" if path else name
                yield from _broken_rules(child, value[name], inner)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _broken_rules(schema["items"], item, f"{path}[{index}]")
