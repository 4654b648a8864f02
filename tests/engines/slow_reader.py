"""An independent, slow, strict reader of Prometheus's text format, character by character.

It is what the fast one is measured by: it knows no regular expressions and no metrics.
"""

import math
import string
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Read", "samples_of"]

_NAME_START = string.ascii_letters + "_:"
_NAME = _NAME_START + string.digits
_LABEL_START = string.ascii_letters + "_"
_LABEL = _LABEL_START + string.digits


class Read(NamedTuple):
    """A line of a metric; ``labels`` is None where it breaks the format, and the value is NaN there
    and where it is no number."""

    name: str
    labels: frozenset[tuple[str, str]] | None
    value: float


def samples_of(page: bytes, name: str) -> list[Read]:
    """Return all lines of a page that have this metric, or it with ``_total`` if none has it."""
    for wanted in (name, f"{name}_total"):
        found = [read for line in _lines(page) if (read := _read(line, wanted)) is not None]
        if found:
            return found
    return []


def _lines(page: bytes) -> Iterator[str]:
    """Yield the lines; one that is not ended is broken, which an impossible byte shows."""
    *whole, last = page.split(b"\n")
    yield from (line.decode("utf-8", "surrogateescape") for line in whole)
    yield last.decode("utf-8", "surrogateescape") + "\udcff"


def _read(line: str, wanted: str) -> Read | None:
    if wanted not in line:
        return None
    text = line.lstrip(" \t").removesuffix("\r")
    end = 0
    while end < len(text) and text[end] in (_NAME if end else _NAME_START):
        end += 1
    if text[:end] != wanted:
        return None
    try:
        return _sample(text, end)
    except (ValueError, IndexError):
        return Read(wanted, None, math.nan)


def _sample(text: str, position: int) -> Read:
    name = text[:position]
    labels: dict[str, str] = {}
    after = _blanks(text, position)
    if text[after] == "{":
        labels, position = _labels(text, _blanks(text, after + 1))
    elif after == position:
        raise ValueError("no blank behind the name")
    value, *timestamp = [word for word in text[position:].replace("\t", " ").split(" ") if word]
    if len(timestamp) > 1 or any(not _is_whole(word.removeprefix("-")) for word in timestamp):
        raise ValueError("not a timestamp")
    if not set(value) <= set(string.ascii_letters + string.digits + ".+-"):
        raise ValueError("not a number")
    try:
        return Read(name, frozenset(labels.items()), float(value))
    except ValueError:
        return Read(name, frozenset(labels.items()), math.nan)


def _labels(text: str, position: int) -> tuple[dict[str, str], int]:
    labels: dict[str, str] = {}
    while text[position] != "}":
        end = position
        while text[end] in (_LABEL if end > position else _LABEL_START):
            end += 1
        label = text[position:end]
        position = _blanks(text, end)
        if not label or label in labels or text[position] != "=":
            raise ValueError("not a label")
        position = _blanks(text, position + 1)
        if text[position] != '"':
            raise ValueError("not a value")
        labels[label], position = _quoted(text, position + 1)
        position = _blanks(text, position)
        if text[position] == ",":
            position = _blanks(text, position + 1)
        elif text[position] != "}":
            raise ValueError("not the end of a label")
    return labels, position + 1


def _quoted(text: str, position: int) -> tuple[str, int]:
    value = ""
    while text[position] != '"':
        if text[position] == "\\":
            position += 1
            value += "\n" if text[position] == "n" else text[position]
        else:
            value += text[position]
        position += 1
    value.encode()  # what is not UTF-8 is no label
    return value, position + 1


def _blanks(text: str, position: int) -> int:
    while text[position] in " \t":
        position += 1
    return position


def _is_whole(word: str) -> bool:
    return word.isascii() and word.isdecimal()
