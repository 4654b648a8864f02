"""A tree of nodes against a declared shape: the value, or every problem in it, with path and line.

``msgspec.convert`` stops at the first problem and cannot say which key of a mapping it was in, so
the walk over the containers is here and msgspec judges the leaves.
"""

import difflib
import functools
import json
import re
import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec.structs import fields

from epp.discovery.documents import Node, Unreadable

__all__ = ["UNKNOWN_FIELD", "check", "describe", "did_you_mean", "expected"]

UNKNOWN_FIELD = "unknown field"
"""How the text of a problem begins that is about a field that the shape has not."""

_T = TypeVar("_T")
_SHOWN_CHARACTERS = 60
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")

_PLAIN: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
}

Report = Callable[[int, str, str], None]


class _Field(msgspec.Struct, frozen=True):
    attribute: str
    annotation: Any
    required: bool


class _Shape(msgspec.Struct, frozen=True):
    """An annotation taken apart: what to walk into and what to call it in problems."""

    origin: Any
    arguments: tuple[Any, ...]
    expected: str
    min_length: int
    max_length: int | None


def check(node: Node, shape: type[_T], path: str, report: Report) -> _T | None:
    """Return ``node`` as a ``shape`` (a msgspec struct), or None after reporting what is wrong.

    ``report(line, path, text)`` is called once per problem, ``path`` beginning with the one given.
    """
    problems = 0

    def count(line: int, where: str, text: str) -> None:
        nonlocal problems
        problems += 1
        report(line, where, text)

    value = _check(node, shape, path, count)
    return value if problems == 0 else None


def describe(value: object) -> str:
    """Return a short, one-line picture of a node's value for a problem."""
    if isinstance(value, Unreadable):
        return value.what
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "nothing"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… (cut)"


def did_you_mean(found: str, known: list[str]) -> str:
    """Return a hint at the known word nearest to ``found``, or at all of them."""
    lowered = {word.lower(): word for word in known}
    nearest = difflib.get_close_matches(found.lower()[:100], lowered, n=1)
    if nearest:
        return f'did you mean "{lowered[nearest[0]]}"?'
    return f"known: {', '.join(known) or 'none'}"


def expected(annotation: Any) -> str:
    """Return what problems say is expected where a value is declared like this."""
    return _shape(annotation).expected


def _check(node: Node, annotation: Any, path: str, report: Report) -> Any:
    shape = _shape(annotation)
    if shape.origin is Any:
        return None
    if isinstance(shape.origin, type) and issubclass(shape.origin, msgspec.Struct):
        return _check_struct(node, shape, path, report)
    if shape.origin is tuple:
        return _check_list(node, shape, path, report)
    if shape.origin is dict:
        return _check_mapping(node, shape, path, report)
    try:
        return msgspec.convert(node.value, annotation, dec_hook=_parse)
    except msgspec.ValidationError:
        _report_mismatch(node, shape, path, report)
        return None


def _parse(kind: Any, value: object) -> Any:
    """Make a leaf of a type of its own: its ``parse`` raises ValueError for what it cannot be."""
    return kind.parse(value)


def _check_struct(node: Node, shape: _Shape, path: str, report: Report) -> Any:
    if not isinstance(node.value, dict):
        _report_mismatch(node, shape, path, report)
        return None
    _report_duplicates(node, path, report)
    known = _fields(shape.origin)
    arguments: dict[str, Any] = {}
    for name, child in node.value.items():
        field = known.get(name)
        if field is None:
            hint = did_you_mean(name, list(known))
            report(child.line, _join(path, name), f"{UNKNOWN_FIELD}; {hint}")
        elif child.value is not None or field.required:
            arguments[field.attribute] = _check(child, field.annotation, _join(path, name), report)
    for name, field in known.items():
        if field.required and name not in node.value:
            expected = _shape(field.annotation).expected
            report(node.line, _join(path, name), f"missing; expected {expected}")
            arguments[field.attribute] = None
    return shape.origin(**arguments)


def _check_list(node: Node, shape: _Shape, path: str, report: Report) -> Any:
    if not isinstance(node.value, list):
        _report_mismatch(node, shape, path, report)
        return ()
    count = len(node.value)
    if count < shape.min_length or (shape.max_length is not None and count > shape.max_length):
        report(node.line, path, f"found {count} items; expected {shape.expected}")
        return ()
    item = shape.arguments[0]
    return tuple(
        _check(child, item, f"{path}[{index}]", report) for index, child in enumerate(node.value)
    )


def _check_mapping(node: Node, shape: _Shape, path: str, report: Report) -> Any:
    if not isinstance(node.value, dict):
        _report_mismatch(node, shape, path, report)
        return {}
    _report_duplicates(node, path, report)
    key_annotation, value_annotation = shape.arguments
    found = {}
    for key, child in node.value.items():
        where = _join(path, key)
        _check(Node(child.line, key), key_annotation, where, report)
        found[key] = _check(child, value_annotation, where, report)
    return found


def _report_mismatch(node: Node, shape: _Shape, path: str, report: Report) -> None:
    report(node.line, path, f"found {describe(node.value)}; expected {shape.expected}")


def _report_duplicates(node: Node, path: str, report: Report) -> None:
    for line, key in node.duplicates:
        report(line, _join(path, key), "the key stands here again; expected it once")


def _join(path: str, key: str) -> str:
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{describe(key)}]"
    return f"{path}.{key}" if path else key


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> dict[str, _Field]:
    return {
        field.encode_name: _Field(field.name, field.type, field.required)
        for field in fields(struct)
    }


@functools.cache
def _shape(annotation: Any) -> _Shape:
    description, min_length, max_length = "", 0, None
    if get_origin(annotation) in (Union, types.UnionType):
        # Null never gets here, so `X | None` is X; other unions are leaves with a description.
        options = [option for option in get_args(annotation) if option is not types.NoneType]
        return _shape(options[0]) if len(options) == 1 else _leaf(annotation, "")
    if get_origin(annotation) is Annotated:
        annotation, meta = get_args(annotation)
        description, min_length, max_length = (
            meta.description,
            meta.min_length or 0,
            meta.max_length,
        )
    origin = get_origin(annotation) or annotation
    if origin not in (tuple, dict) and not isinstance(origin, type):
        return _leaf(annotation, description)
    expected = description or _PLAIN.get(origin, "a mapping")
    return _Shape(origin, get_args(annotation), expected, min_length, max_length)


def _leaf(annotation: Any, description: str) -> _Shape:
    return _Shape(annotation, (), description, 0, None)
