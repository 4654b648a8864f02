"""Label selectors and field selectors, in the text form of the query."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import bad_request
from .kinds import Kind

__all__ = ["Matches", "everything", "field_selector", "label_selector"]

Matches = Callable[[Mapping[str, Any]], bool]

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<lacking>{_NAME})"
    rf"|(?P<key>{_NAME})(?:\s+(?P<set>in|notin)\s*\((?P<values>[^)]*)\)"
    r"|\s*(?P<operator>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*))?)\s*(?:,|$)"
)


def everything(_: Mapping[str, Any]) -> bool:
    return True


def label_selector(text: str) -> Matches:
    """Return what a label selector selects."""
    if not text.strip():
        return everything
    requirements: list[Callable[[Mapping[str, str]], bool]] = []
    at = 0
    while at < len(text):
        found = _REQUIREMENT.match(text, at)
        if found is None or found.end() == at:
            raise bad_request(f"unable to parse requirement: found '{text[at:]}'")
        requirements.append(_requirement(found))
        at = found.end()

    def matches(item: Mapping[str, Any]) -> bool:
        labels = item["metadata"].get("labels") or {}
        return all(holds(labels) for holds in requirements)

    return matches


def _requirement(found: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    if found["absent"]:
        lacking = found["lacking"]
        return lambda labels: lacking not in labels
    key = found["key"]
    if found["set"]:
        values = {value.strip() for value in found["values"].split(",")}
        if found["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    value = found["value"]
    if found["operator"] == "!=":
        return lambda labels: labels.get(key) != value
    if found["operator"]:
        return lambda labels: labels.get(key) == value
    return lambda labels: key in labels


def field_selector(kind: Kind, text: str) -> Matches:
    """Return what a field selector selects; only the kind's own fields can be named."""
    if not text.strip():
        return everything
    known = ("metadata.name", "metadata.namespace", *kind.field_labels)
    terms: list[tuple[tuple[str, ...], bool, str]] = []
    for term in text.split(","):
        found = re.fullmatch(r"\s*([^=!]+?)\s*(==|=|!=)\s*(.*?)\s*", term)
        if found is None:
            raise bad_request(f"invalid field selector {text!r}; can't understand {term!r}")
        path, operator, value = found.groups()
        if path not in known:
            raise bad_request(f"field label not supported: {path}")
        terms.append((tuple(path.split(".")), operator != "!=", value))

    def matches(item: Mapping[str, Any]) -> bool:
        return all((_field(item, path) == value) is equal for path, equal, value in terms)

    return matches


def _field(item: Mapping[str, Any], path: tuple[str, ...]) -> str:
    found: Any = item
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, bool):
        return str(found).lower()
    return "" if found is None else str(found)
