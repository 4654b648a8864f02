"""Where in a configuration something stands: its file, line and path, for what is wrong with it."""

from typing import TypeVar

from epp.discovery.checking import check, describe, did_you_mean
from epp.discovery.documents import Node
from epp.discovery.problems import Problems

__all__ = ["Place"]

_T = TypeVar("_T")


class Place:
    """A value of a document, found by its path from the root."""

    def __init__(self, file: str, node: Node, problems: Problems, path: str = "") -> None:
        self._file = file
        self._node = node
        self._problems = problems
        self._path = path

    @property
    def node(self) -> Node:
        """The value that stands here, with its line."""
        return self._node

    def __truediv__(self, key: str | int) -> "Place":
        """Return the place of a key or item; where it is not given, the line is that of its
        parent."""
        value = self._node.value
        child = None
        if isinstance(key, int):
            path = f"{self._path}[{key}]"
            child = value[key] if isinstance(value, list) and key < len(value) else None
        else:
            path = f"{self._path}.{key}" if self._path else key
            child = value.get(key) if isinstance(value, dict) else None
        return Place(self._file, child or Node(self._node.line, None), self._problems, path)

    def check(self, shape: type[_T]) -> _T | None:
        """Return the value as a struct, or None after reporting all that is wrong with it."""
        node = self._node if self._node.value is not None else Node(self._node.line, {})
        return check(node, shape, self._path, self._add)

    def report(self, text: str) -> None:
        """Note that something is wrong here."""
        self._add(self._node.line, self._path, text)

    def mismatch(self, found: object, expected: str) -> None:
        """Note what was found and what was expected."""
        self.report(f"found {describe(found)}; expected {expected}")

    def misspelt(self, found: str, known: list[str]) -> None:
        """Note a word that is none of the known ones, with the nearest of them."""
        self.report(f"found {describe(found)}; {did_you_mean(found, known)}")

    def _add(self, line: int, path: str, text: str) -> None:
        head = f"{self._file}:{line}"
        self._problems.add(f"{head}: {path}: {text}" if path else f"{head}: {text}")
