"""Values of a configuration, each with where it comes from."""

from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import fields

from epp.config.quantities import Duration
from epp.discovery.documents import Node, Unreadable

__all__ = ["DEFAULT", "Entry", "EntryReader", "Plain", "child_of", "default_entry", "references"]

DEFAULT: Final = "default"
_REFERENCES: Final = (
    "pluginRef",
    "fairnessPolicyRef",
    "orderingPolicyRef",
    "usageLimitPolicyPluginRef",
)

Plain: TypeAlias = str | int | float | bool | None


class Entry(msgspec.Struct):
    """A value, and where it comes from: ``file:line``, ``default``, or what implies it.

    ``explains`` says what it means, where that is known.
    """

    value: "Plain | dict[str, Entry] | list[Entry]"
    origin: str = DEFAULT
    explains: str = ""


class EntryReader:
    """Reads the values of a file that is called ``name``, with those that hold where it has none.

    Values that are given stand there as they are written, not as they are understood.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def at(self, node: Node) -> str:
        """Return where a value stands."""
        return f"{self._name}:{node.line}"

    def struct(
        self,
        value: msgspec.Struct,
        node: Node | None,
        *,
        own: Mapping[str, Entry] | None = None,
        fills: Mapping[str, Entry] | None = None,
        explains: Mapping[str, str] | None = None,
    ) -> dict[str, Entry]:
        """Return the fields of a section: ``own`` are entries that are known already, ``fills``
        those that hold where nothing is given. With ``explains`` also those that are nothing.
        """
        found: dict[str, Entry] = {}
        for field in fields(type(value)):
            name = field.encode_name
            child = child_of(node, name)
            default = getattr(value, field.name)
            if name in (own or {}):
                found[name] = (own or {})[name]
            elif child is not None:
                found[name] = self._given(default, child)
            elif name in (fills or {}):
                found[name] = (fills or {})[name]
            elif default is not None or explains is not None:
                found[name] = default_entry(default)
            if explains is not None:
                found[name].explains = explains.get(name, "")
        return found

    def field(self, node: Node, name: str, default: Plain, origin: str) -> Entry:
        """Return what is given under this name, or a default."""
        child = child_of(node, name)
        return Entry(default, origin) if child is None else self._raw(child)

    def _given(self, value: object, node: Node) -> Entry:
        if isinstance(value, msgspec.Struct) and isinstance(node.value, dict):
            return Entry(self.struct(value, node), self.at(node))
        if isinstance(value, tuple) and isinstance(node.value, list):
            items = zip(value, node.value, strict=True)
            return Entry([self._given(item, child) for item, child in items], self.at(node))
        return self._raw(node)

    def _raw(self, node: Node) -> Entry:
        value = node.value
        if isinstance(value, dict):
            return Entry({key: self._raw(child) for key, child in value.items()}, self.at(node))
        if isinstance(value, list):
            return Entry([self._raw(child) for child in value], self.at(node))
        # Only where anything at all is accepted.
        plain = value.what if isinstance(value, Unreadable) else value
        return Entry(plain, self.at(node))


def default_entry(value: object, origin: str = DEFAULT) -> Entry:
    """Return a value of a section that nothing is given for."""
    if isinstance(value, msgspec.Struct):
        given = {field.encode_name: getattr(value, field.name) for field in fields(type(value))}
        return default_entry({k: v for k, v in given.items() if v is not None}, origin)
    if isinstance(value, Mapping):
        return Entry({str(k): default_entry(v, origin) for k, v in value.items()}, origin)
    if isinstance(value, tuple | list):
        return Entry([default_entry(item, origin) for item in value], origin)
    if isinstance(value, Duration):
        return Entry(f"{value:g}s", origin)
    assert value is None or isinstance(value, str | int | float)
    return Entry(value, origin)


def child_of(node: Node | None, name: str) -> Node | None:
    """Return what stands under a key; None where that is nothing."""
    if node is None or not isinstance(node.value, dict):
        return None
    child = node.value.get(name)
    return None if child is None or child.value is None else child


def references(entry: Entry, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield where plugins are referred to, and by which name."""
    if isinstance(entry.value, dict):
        for name, child in entry.value.items():
            where = f"{path}.{name}" if path else name
            if name in _REFERENCES and isinstance(child.value, str):
                yield (path if name == "pluginRef" else where), child.value
            yield from references(child, where)
    elif isinstance(entry.value, list):
        for index, child in enumerate(entry.value):
            yield from references(child, f"{path}[{index}]")
