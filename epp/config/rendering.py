"""Entries as text: YAML to read, with where each value comes from behind it; or as JSON."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from epp.config.entries import Entry, Plain

__all__ = ["as_json", "as_yaml"]

_PLAIN_TEXT: Final = re.compile(r"[A-Za-z_/][\w./-]*|[0-9.]+(ns|us|ms|[smhkMGTPE]|[KMGTPE]i)")
_NO_TEXT: Final = ("true", "false", "null")
_WIDTH: Final = 100
_ORIGIN_COLUMN: Final = 50
_STEP: Final = "  "


def as_yaml(entry: Entry) -> str:
    """Return YAML: what a value means stands above it, where it comes from behind it."""
    return "\n".join(_lines(entry, "")) + "\n"


def as_json(entry: Entry) -> Any:
    """Return objects for JSON: of each single value ``value`` and ``from``."""
    if isinstance(entry.value, dict):
        return {name: as_json(child) for name, child in entry.value.items()}
    if isinstance(entry.value, list):
        return [as_json(child) for child in entry.value]
    return {"value": entry.value, "from": entry.origin}


def _lines(entry: Entry, indent: str) -> Iterator[str]:
    """Yield the lines of a mapping or list that is not empty."""
    if isinstance(entry.value, dict):
        for name, child in entry.value.items():
            yield from _comment(child.explains, indent)
            yield from _item(f"{indent}{_text(name)}:", child, indent + _STEP)
    elif isinstance(entry.value, list):
        for child in entry.value:
            if isinstance(child.value, dict | list) and child.value:
                first, *rest = _lines(child, indent + _STEP)
                yield f"{indent}- {first[len(indent) + len(_STEP) :]}"
                yield from rest
            else:
                yield from _item(f"{indent}-", child, indent + _STEP)


def _item(head: str, child: Entry, indent: str) -> Iterator[str]:
    if isinstance(child.value, dict | list) and child.value:
        yield head
        yield from _lines(child, indent)
    elif isinstance(child.value, dict | list):
        yield _line(f"{head} {'{}' if isinstance(child.value, dict) else '[]'}", child.origin)
    else:
        yield _line(f"{head} {_text(child.value)}", child.origin)


def _line(text: str, origin: str) -> str:
    return f"{text:<{_ORIGIN_COLUMN}}  # {origin}"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
    )


def _text(value: Plain) -> str:
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value) and value.lower() not in _NO_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)
