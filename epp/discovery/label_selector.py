"""Label selectors as kubectl takes them: ``app=llm,tier in (a, b),!canary``.

Source of the grammar and of what it means: the Kubernetes documentation, "Labels and Selectors".
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from epp.errors import UsageError

__all__ = ["LabelSelector", "parse_label", "parse_label_selector"]

_KEY: Final = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_REQUIREMENT: Final = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<missing>{_KEY})"
    rf"|(?P<key>{_KEY})(?:\s*(?P<operator>==?|!=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>\s*{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)\))?)"
    r"\s*(?:,|\Z)",
    re.ASCII,
)
_LABEL: Final = re.compile(rf"(?P<key>{_KEY})=(?P<value>{_VALUE})", re.ASCII)
_MAX_CHARACTERS: Final = 4096
_MAX_NAME_CHARACTERS: Final = 63
_MAX_PREFIX_CHARACTERS: Final = 253


class _Requirement(msgspec.Struct, frozen=True):
    """``values`` None stands for any. What is ``negated`` also holds without the label."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.key)
        matches = found is not None and (self.values is None or found in self.values)
        return matches is not self.negated


class LabelSelector(msgspec.Struct, frozen=True):
    """What labels must be; made by :func:`parse_label_selector`."""

    requirements: tuple[_Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether all that is required holds for these labels."""
        return all(requirement.holds(labels) for requirement in self.requirements)


def parse_label_selector(text: str, where: str) -> LabelSelector:
    """Read a selector. Raises UsageError, which names ``where`` it stands, if it is none."""
    requirements = []
    position = 0
    while position < len(text) <= _MAX_CHARACTERS:
        found = _REQUIREMENT.match(text, position)
        if found is None:
            break
        requirements.append(_requirement(found))
        position = found.end()
    if position < len(text) or not requirements or text.rstrip().endswith(","):
        raise UsageError(
            f"{where}: found {text[:100]!r}; expected a label selector such as"
            " 'app=llm,tier in (a, b),!canary'"
        )
    return LabelSelector(tuple(requirements))


def parse_label(text: str, where: str) -> tuple[str, str]:
    """Read one label, ``key=value``, that an object could have, and return the two. Raises
    UsageError, which names ``where`` it stands, if it is none."""
    found = _LABEL.fullmatch(text)
    if found is not None:
        prefix, _, name = found["key"].rpartition("/")
        longest = max(len(name), len(found["value"]))
        if longest <= _MAX_NAME_CHARACTERS and len(prefix) <= _MAX_PREFIX_CHARACTERS:
            return found["key"], found["value"]
    raise UsageError(
        f"{where}: found {text[:100]!r}; expected a label such as inference-epp/leader=epp"
    )


def _requirement(found: re.Match[str]) -> _Requirement:
    if found["absent"]:
        return _Requirement(found["missing"], None, negated=True)
    if found["operator"]:
        return _Requirement(
            found["key"], frozenset((found["value"],)), negated=found["operator"] == "!="
        )
    if found["set"]:
        values = frozenset(value.strip() for value in found["values"].split(","))
        return _Requirement(found["key"], values, negated=found["set"] == "notin")
    return _Requirement(found["key"], None, negated=False)
