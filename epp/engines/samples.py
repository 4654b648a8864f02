"""Finds the samples of a few metrics in a page of Prometheus's text format.

A page of vLLM has some 60 KB and 600 lines, of which eight are wanted. So nothing parses it: one
regular expression, made of the wanted names, goes over its bytes, and what it finds is read
strictly. It must not know what the metrics mean.
"""

import math
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final, NamedTuple

__all__ = ["VALUE", "Finder", "Sample", "are_labels", "labels_in", "number_in"]

_MOST_SAMPLES: Final = 16_384
_MOST_LABEL_BYTES: Final = 1 << 18

VALUE: Final = rb"([0-9a-zA-Z.+-]+)(?:[ \t]+-?[0-9]+)?[ \t]*\r?(?=\n)"
"""A value, perhaps a timestamp, and the end of the line: a line without one was cut off. What
Python takes for a number and Prometheus does not, as 1_000, is none."""

_REST: Final = rb"(?:(?:([ \t]*\{[^\n]*\})[ \t]*|[ \t]+)" + VALUE + rb"|)"
"""What is behind a name. Its last alternative is nothing: a line that cannot be read is found all
the same, because nothing is known then of what it should have told."""

_PAIR: Final = rb'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t]*'
_find_pairs: Final = re.compile(_PAIR).findall
_are_labels: Final = re.compile(
    rb"[ \t]*\{(?:%(pair)s(?:,%(pair)s)*,?)?[ \t]*\}" % {b"pair": _PAIR}
).fullmatch
_escaped: Final = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """One line of a page: a series and its value.

    ``name`` is the metric's, ``labels`` what is in braces behind it and the braces, both as they
    are written. ``value`` is NaN where it is no number, infinite or below 0: none of what is asked
    for here can be. ``labels`` is None for a line that cannot be read. ``begin`` is where in the
    page the line begins, with the end of the line before it; ``end`` is where its labels end.
    """

    name: bytes
    labels: bytes | None
    value: float
    begin: int
    end: int


class Finder:
    """Finds the samples of these metrics, wherever in a page they are.

    A name also stands for itself with ``_total`` behind.
    """

    def __init__(self, names: Iterable[str]) -> None:
        any_name = _alternatives(sorted({name.encode() for name in names}))
        sample = rb"((?:" + any_name + rb")(?:_total)?)(?![a-zA-Z0-9_:])" + _REST
        self._find = re.compile(rb"\n[ \t]*+" + sample).finditer
        self._match = re.compile(rb"[ \t]*+" + sample).match

    def find(self, page: bytes) -> list[Sample]:
        """Return the samples in the order of the page; none where there are more than 16,384."""
        samples = []
        if first := self._match(page):
            samples.append(_sample(first, 0))
        for found in self._find(page):
            samples.append(_sample(found, found.start()))
            if len(samples) > _MOST_SAMPLES:
                return []
        return samples


def number_in(text: bytes) -> float:
    """Return the number from 0 up that is written there, NaN for anything else."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if 0.0 <= number < math.inf else math.nan


def are_labels(text: bytes) -> bool:
    """Tell whether these are labels, in braces and of no more than 256 KiB, or nothing.

    It does not see a label that is there twice.
    """
    if len(text) > _MOST_LABEL_BYTES or (text and not _are_labels(text)):
        return False
    return text.isascii() or _is_utf8(text)


def labels_in(text: bytes) -> Mapping[str, str] | None:
    """Return the labels that are written there, in braces; None where they are not well-formed."""
    if not are_labels(text):
        return None
    pairs = _find_pairs(text)
    labels = {name.decode(): _unescaped(value.decode()) for name, value in pairs}
    return labels if len(labels) == len(pairs) else None


def _sample(found: re.Match[bytes], begin: int) -> Sample:
    name, labels, value = found.groups()
    if value is None:
        return Sample(name, None, math.nan, begin, found.end())
    return Sample(name, labels or b"", number_in(value), begin, found.end(2 if labels else 1))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unescaped(value: str) -> str:
    if "\\" not in value:
        return value
    return _escaped.sub(lambda escaped: "\n" if escaped[1] == "n" else escaped[1], value)


def _alternatives(names: list[bytes]) -> bytes:
    """Return a regular expression for these names, sorted: what they have in common is in it once,
    so that a line which is none of them is told by few of its bytes."""
    parts = []
    for first, group in groupby(names, key=lambda name: name[:1]):
        some = list(group)
        if not first:
            continue
        shared = _shared(some)
        rest = [name[len(shared) :] for name in some]
        tail = _alternatives(rest)
        parts.append(re.escape(shared) + (tail and rb"(?:%b)" % tail))
    return b"|".join([*parts, *([b""] if b"" in names and parts else [])])


def _shared(names: list[bytes]) -> bytes:
    first, last = names[0], names[-1]
    length = 0
    while length < min(len(first), len(last)) and first[length] == last[length]:
        length += 1
    return first[:length]
