"""YAML → option structs, strictly: what is wrong is told with file, line, path and what was
expected.

The structs themselves are the schema: their fields are the keys, their types, with the bounds of
``msgspec.Meta``, what is expected. A union of structs is told apart by its tag field, such as
``process: poisson``, or, where the structs have no tags, by ``detector``, the struct's name without
"Options".
"""

import math
import types
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin
from typing import get_type_hints as hints_of

import msgspec

from epp.discovery.documents import Node, Unreadable
from epp.errors import UsageError

__all__ = ["Reader"]

_T = TypeVar("_T")
_NAME_OF_UNTAGGED: Final = "detector"
_SCALARS: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


class Reader:
    """Reads one file, which is named in what it raises."""

    def __init__(self, file: str) -> None:
        self._file = file

    def read(self, node: Node, wanted: type[_T]) -> _T:
        """Return the whole document as a struct. Raises UsageError."""
        return cast("_T", self._value(node, wanted, ""))

    def _fail(self, node: Node, path: str, found: str, expected: str) -> UsageError:
        where = f"{self._file}:{node.line}: {path}" if path else f"{self._file}:{node.line}"
        return UsageError(f"{where}: {found}; expected {expected}")

    def _value(self, node: Node, wanted: Any, path: str) -> Any:
        origin = get_origin(wanted)
        if origin is Annotated:
            plain, meta = get_args(wanted)[:2]
            return self._bounded(node, self._value(node, plain, path), meta, path)
        if origin in (Union, types.UnionType):
            return self._union(node, get_args(wanted), path)
        if origin is Literal:
            if node.value in get_args(wanted):
                return node.value
            raise self._fail(node, path, _found(node), f"one of {', '.join(get_args(wanted))}")
        if origin is tuple:
            return self._list(node, get_args(wanted)[0], path)
        if origin is Mapping:
            key_type, item_type = get_args(wanted)
            return self._mapping(node, key_type, item_type, path)
        if wanted in _SCALARS:
            return self._scalar(node, wanted, path)
        return self._struct(node, wanted, path, frozenset())

    def _scalar(self, node: Node, wanted: type, path: str) -> Any:
        value: Any = node.value
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is wanted and (not isinstance(value, float) or math.isfinite(value)):
            return value
        raise self._fail(node, path, _found(node), _SCALARS[wanted])

    def _bounded(self, node: Node, value: Any, meta: msgspec.Meta, path: str) -> Any:
        # A plain number where a struct could stand too is bounded like any other.
        if isinstance(value, int | float):
            if meta.ge is not None and value < meta.ge:
                raise self._fail(node, path, _found(node), f"at least {meta.ge}")
            if meta.gt is not None and value <= meta.gt:
                raise self._fail(node, path, _found(node), f"more than {meta.gt}")
            if meta.le is not None and value > meta.le:
                raise self._fail(node, path, _found(node), f"at most {meta.le}")
        return value

    def _list(self, node: Node, wanted: Any, path: str) -> tuple[Any, ...]:
        if not isinstance(node.value, list):
            raise self._fail(node, path, _found(node), "a list")
        return tuple(
            self._value(item, wanted, f"{path}[{index}]") for index, item in enumerate(node.value)
        )

    def _mapping(self, node: Node, key_type: type, wanted: Any, path: str) -> dict[Any, Any]:
        read: dict[Any, Any] = {}
        for key, item in self._items(node, path):
            if key_type is int:
                try:
                    read[int(key)] = self._value(item, wanted, f"{path}[{key}]")
                except ValueError:
                    raise self._fail(item, path, repr(key), "whole numbers as keys") from None
            else:
                read[key] = self._value(item, wanted, f"{path}[{key}]")
        return read

    def _items(self, node: Node, path: str) -> list[tuple[str, Node]]:
        if not isinstance(node.value, dict):
            raise self._fail(node, path, _found(node), "a mapping")
        for line, key in node.duplicates:
            raise self._fail(Node(line, None), path, f"{key} stands there twice", "it once")
        return list(node.value.items())

    def _union(self, node: Node, choices: tuple[Any, ...], path: str) -> Any:
        if node.value is None and type(None) in choices:
            return None
        structs = [choice for choice in choices if _is_struct(choice)]
        others = [choice for choice in choices if not _is_struct(choice)]
        others = [choice for choice in others if choice is not type(None)]
        if others and not (structs and isinstance(node.value, dict)):
            return self._value(node, others[0], path)
        if len(structs) == 1:
            return self._struct(node, structs[0], path, frozenset())
        return self._tagged(node, structs, path)

    def _tagged(self, node: Node, structs: list[Any], path: str) -> Any:
        field = structs[0].__struct_config__.tag_field or _NAME_OF_UNTAGGED
        by_name = {_name_of(struct): struct for struct in structs}
        tag = dict(self._items(node, path)).get(field)
        expected = f"one of {', '.join(by_name)}"
        if tag is None:
            raise self._fail(node, path, f"there is no {field}", f"{field}: {expected}")
        if not isinstance(tag.value, str) or tag.value not in by_name:
            raise self._fail(tag, _join(path, field), _found(tag), expected)
        return self._struct(node, by_name[tag.value], path, frozenset({field}))

    def _struct(self, node: Node, struct: Any, path: str, tags: frozenset[str]) -> Any:
        fields = hints_of(struct, include_extras=True)
        fields = {name: fields[name] for name in struct.__struct_fields__}
        given: dict[str, Any] = {}
        for key, item in self._items(node, path):
            if key in tags:
                continue
            if key not in fields:
                known = f"one of {', '.join(fields)}" if fields else "nothing more"
                raise self._fail(item, _join(path, key), "there is no such field", known)
            given[key] = self._value(item, fields[key], _join(path, key))
        for field in msgspec.structs.fields(struct):
            if field.required and field.name not in given:
                raise self._fail(node, path, f"there is no {field.name}", "it")
        return struct(**given)


def _is_struct(choice: Any) -> bool:
    return isinstance(choice, type) and issubclass(choice, msgspec.Struct)


def _name_of(struct: Any) -> str:
    return str(struct.__struct_config__.tag or struct.__name__.removesuffix("Options").lower())


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _found(node: Node) -> str:
    value = node.value
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, Unreadable):
        return value.what
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return repr(value)
