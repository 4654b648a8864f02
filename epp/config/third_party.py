"""Plugin types of other distributions: the entries of the entry-point group ``epp.plugins``."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Final

import msgspec

from epp.config.plugin_type import PluginType, scheduling_type
from epp.core.scheduling.definition import PluginDefinition
from epp.errors import UsageError

__all__ = ["GROUP", "third_party_types"]

GROUP: Final = "epp.plugins"


@cache
def third_party_types(own: frozenset[str]) -> Mapping[str, PluginType]:
    """Return the types of all distributions that are installed, by name.

    ``own`` are the names that are taken. Raises UsageError, with the distribution, for an entry
    that cannot be used: which of several versions of a type is meant, or what a broken one would
    have done, nobody can tell. They are loaded once for the process.
    """
    found: dict[str, PluginType] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (_source(entry), entry.name)):
        definition = _load(entry)
        other = found.get(definition.type)
        if definition.type in own or other is not None:
            owner = "epp" if other is None else other.distribution
            what = f'found the type "{definition.type}", which {owner} has; expected one of its own'
            raise _problem(entry, what)
        found[definition.type] = scheduling_type(definition, _source(entry))
    return MappingProxyType(found)


def _load(entry: EntryPoint) -> PluginDefinition:
    try:
        definition = entry.load()
    except Exception as error:  # a module of somebody else can raise anything while it is imported
        raise _problem(entry, f"cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(definition, PluginDefinition):
        found = type(definition).__name__
        raise _problem(entry, f"found a {found}; expected an epp.core.scheduling PluginDefinition")
    if not definition.type or not issubclass(definition.parameters, msgspec.Struct):
        raise _problem(entry, "found no type or no parameters; expected a name and a struct")
    return definition


def _source(entry: EntryPoint) -> str:
    return "an unknown distribution" if entry.dist is None else str(entry.dist.name)


def _problem(entry: EntryPoint, what: str) -> UsageError:
    where = f"entry point {entry.name} = {entry.value} of the group {GROUP}"
    return UsageError(f"{_source(entry)}: {where}: {what}")
