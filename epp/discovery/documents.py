"""YAML text → trees of nodes that know their line. What they mean is no business of this module.

The trees are built from the parser's events with a stack of our own, not by a YAML library's
constructor: so every value keeps its line, a key that stands twice is seen, nothing recurses, and
no alias is ever expanded. Plain scalars follow the YAML 1.2 core schema, hence JSON's: ``yes``,
``1_000``, ``12:30`` and ``2024-01-01`` are text.
"""

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
import yaml

from epp.discovery.problems import Problems

__all__ = ["Document", "Node", "Unreadable", "parse_documents"]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_DEPTH = 200
_MAX_NODES = 500_000
_MAX_DUPLICATES = 100

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PLAIN_TAGS = (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")


class Unreadable(msgspec.Struct, frozen=True):
    """A value that YAML allows and manifests may not use: ``what`` says which."""

    what: str


Value: TypeAlias = "dict[str, Node] | list[Node] | str | int | float | Unreadable | None"


class Node(msgspec.Struct):
    """A value and the line, counted from 1, on which it begins.

    ``duplicates`` are a mapping's keys that stand there again, with their lines: whether they
    matter depends on what the mapping is. ``value`` has the first of them.
    """

    line: int
    value: Value
    duplicates: tuple[tuple[int, str], ...] = ()


class Document(msgspec.Struct):
    """One document of a file; ``number`` counts from 1."""

    file: str
    number: int
    root: Node


class _Refused(Exception):
    """The text is YAML but nothing that could be built from it could be used."""

    def __init__(self, mark: Any, reason: str) -> None:
        super().__init__(reason)
        self.mark = mark
        self.reason = reason


class _Open(msgspec.Struct):
    """A mapping or sequence whose end was not seen yet; ``key`` waits for its value."""

    node: Node
    container: dict[str, Node] | list[Node]
    key: str | None = None


def parse_documents(file: str, data: bytes, problems: Problems) -> Iterator[Document]:
    """Yield the documents of a file, without the empty ones.

    ``file`` names it in problems. A syntax error is noted in ``problems`` and ends the file; the
    documents before it have been yielded then.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.add(f"{file}:{line}: byte {error.start} is not UTF-8; expected UTF-8 text")
        return
    if not text.strip():
        # Not "no objects": far more often than meant, an empty file is one cut short.
        problems.add(f"{file}: the file is empty; expected manifests, or no such file")
        return
    try:
        yield from _documents(file, text)
    except yaml.MarkedYAMLError as error:
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        problems.add(_syntax_problem(file, error.problem_mark or error.context_mark, reason))
    except yaml.reader.ReaderError as error:
        # Its position counts bytes or characters, as the parser may be: no column can be named.
        line = text.encode().count(b"\n", 0, error.position) + 1
        problems.add(f"{file}:{line}: not valid YAML: {error.reason}")
    except _Refused as error:
        problems.add(_syntax_problem(file, error.mark, error.reason))
    except (ValueError, OverflowError) as error:
        # Only where PyYAML has no libyaml: its own scanner lets out what chr() and int() refuse.
        problems.add(f"{file}: not valid YAML: {error}")


def _syntax_problem(file: str, mark: Any, reason: str) -> str:
    where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
    return f"{file}{where}: not valid YAML: {reason}"


def _documents(file: str, text: str) -> Iterator[Document]:
    number = 0
    builder = _Builder()
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.DocumentStartEvent):
            number += 1
            builder.start()
        elif isinstance(event, yaml.DocumentEndEvent):
            if builder.root.value is not None:
                yield Document(file, number, builder.root)
        elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            builder.take(event)


class _Builder:
    """Makes a tree of nodes out of the events of one document at a time, of one file."""

    def __init__(self) -> None:
        self._nodes = 0
        self.start()

    def start(self) -> None:
        self.root = Node(0, None)
        self._open: list[_Open] = []

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            return
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise _Refused(event.start_mark, f"more than {_MAX_NODES} values in one file")
        if self._open and self._is_key(event):
            return
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._attach(Node(line, _scalar(event)))
        elif isinstance(event, yaml.AliasEvent):
            self._attach(Node(line, Unreadable(f"a YAML alias (*{event.anchor})")))
        else:
            self._begin(event, line)

    def _is_key(self, event: Any) -> bool:
        parent = self._open[-1]
        if isinstance(parent.container, list) or parent.key is not None:
            return False
        line = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            raise _Refused(event.start_mark, "a key that is not text")
        parent.key = event.value
        if event.value in parent.container and len(parent.node.duplicates) < _MAX_DUPLICATES:
            parent.node.duplicates += ((line, event.value),)
        return True

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent.container, list):
            parent.container.append(node)
        else:
            assert parent.key is not None
            parent.container.setdefault(parent.key, node)
            parent.key = None

    def _begin(self, event: Any, line: int) -> None:
        if len(self._open) >= _MAX_DEPTH:
            raise _Refused(event.start_mark, f"values nested more than {_MAX_DEPTH} deep")
        container: dict[str, Node] | list[Node] = (
            {} if isinstance(event, yaml.MappingStartEvent) else []
        )
        node = Node(line, container if event.tag in _PLAIN_TAGS else _tagged(event.tag))
        self._attach(node)
        self._open.append(_Open(node, container))


def _scalar(event: Any) -> Value:
    text: str = event.value
    if event.tag in _TEXT_TAGS:
        return text
    if event.tag is not None:
        return _tagged(event.tag)
    is_plain = event.implicit[0]
    if not is_plain:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) and not _has_leading_zero(text) else text


def _has_leading_zero(text: str) -> bool:
    """Tell apart ``007``, which is no number that anyone would write, and ``0.5``."""
    digits = text.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()


def _tagged(tag: str) -> Unreadable:
    short = tag.replace("tag:yaml.org,2002:", "!!")
    return Unreadable(f"a value with the YAML tag {short}")
