"""Objects of our own kinds from the API server → what they declare, checked as manifests are.

Unlike in a manifest, a field that is not known is no mistake: an API server may be newer than this
program. An object that is no good is told of by itself, and harms no other.
"""

from typing import Any, Final, TypeVar

import msgspec

from epp.discovery.checking import UNKNOWN_FIELD, check
from epp.discovery.declared import (
    POOL_GROUP,
    DeclaredObjective,
    DeclaredPool,
    DeclaredRewrite,
    declare_objective,
    declare_pool,
    declare_rewrite,
)
from epp.discovery.documents import Node
from epp.discovery.kubernetes.objects import (
    CustomObject,
    InferenceModelRewrite,
    InferenceObjective,
    InferencePool,
)
from epp.discovery.schema import InferenceModelRewrite as RewriteShape
from epp.discovery.schema import InferenceObjective as ObjectiveShape
from epp.discovery.schema import InferencePoolV1, InferencePoolV1Alpha2

__all__ = ["BadObject", "read_objective", "read_pool", "read_rewrite"]

_T = TypeVar("_T")

_SHOWN_PROBLEMS: Final = 5
_MAX_DEPTH: Final = 32
"""More than any field that is read lies deep; what lies deeper is not looked at."""


class BadObject(Exception):
    """An object cannot be used. The message is one line: the fields, what was found in them and
    what was expected."""


def read_pool(found: InferencePool, group: str) -> DeclaredPool:
    """Return what an InferencePool of this API group declares. Raises BadObject."""
    if group == POOL_GROUP:
        pool = declare_pool(_shaped(found, InferencePoolV1))
    else:
        pool = declare_pool(_shaped(found, InferencePoolV1Alpha2))
    if pool.problems:
        raise BadObject("; ".join(f"{path}: {text}" for path, text in pool.problems))
    return pool


def read_objective(found: InferenceObjective, group: str) -> DeclaredObjective:
    """Return what an InferenceObjective of this API group declares. Raises BadObject."""
    return declare_objective(_shaped(found, ObjectiveShape, group))


def read_rewrite(found: InferenceModelRewrite, group: str) -> DeclaredRewrite:
    """Return what an InferenceModelRewrite of this API group declares. Raises BadObject."""
    return declare_rewrite(_shaped(found, RewriteShape, group))


def _shaped(found: CustomObject, shape: type[_T], group: str = "") -> _T:
    value = _without_nulls(
        {
            "apiVersion": f"{group}/",
            "kind": "",
            "metadata": msgspec.to_builtins(found.metadata),
            "spec": found.spec,
        },
        _MAX_DEPTH,
    )
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise BadObject(_explain(value, shape) or str(error)) from None


def _without_nulls(value: Any, depth: int) -> Any:
    """Return the value without the fields that are null, which stand for none."""
    if depth and isinstance(value, dict):
        return {k: _without_nulls(v, depth - 1) for k, v in value.items() if v is not None}
    if depth and isinstance(value, list):
        return [_without_nulls(item, depth - 1) for item in value]
    return value


def _explain(value: Any, shape: type[Any]) -> str:
    problems: list[str] = []

    def report(_line: int, path: str, text: str) -> None:
        if not text.startswith(UNKNOWN_FIELD):
            problems.append(f"{path}: {text}")

    check(_node(value, _MAX_DEPTH), shape, "", report)
    more = len(problems) - _SHOWN_PROBLEMS
    shown = "; ".join(problems[:_SHOWN_PROBLEMS])
    return f"{shown}; and {more} more" if more > 0 else shown


def _node(value: Any, depth: int) -> Node:
    if isinstance(value, dict):
        inner = value.items() if depth else ()
        return Node(0, {key: _node(child, depth - 1) for key, child in inner})
    if isinstance(value, list):
        return Node(0, [_node(child, depth - 1) for child in (value if depth else ())])
    return Node(0, value)
