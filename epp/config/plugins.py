"""The plugins of one configuration: what its entries say, and what they are referred to as."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from epp.config.absent_plugins import ABSENT
from epp.config.hints import absence_of, hint_at
from epp.config.places import Place
from epp.config.plugin_type import PluginKind, PluginType
from epp.config.schema import PluginEntry
from epp.discovery.checking import describe

__all__ = ["Plugin", "Plugins"]


class Plugin(msgspec.Struct, frozen=True):
    """A plugin of a configuration: what it is called, its type and parameters, and what was made of
    these (see :class:`PluginType`)."""

    name: str
    type: PluginType
    parameters: Any
    made: Any


class Plugins:
    """The plugins of one configuration, by name; what is wrong with them is reported.

    A type whose parameters all have defaults can be referred to without an entry.
    """

    def __init__(
        self, entries: tuple[PluginEntry, ...], place: Place, types: Mapping[str, PluginType]
    ) -> None:
        self._types = types
        self._plugins: dict[str, Plugin | None] = {}
        self._places: dict[str, Place] = {}
        self._absent: list[str] = []
        self._referred: set[str] = set()
        for index, entry in enumerate(entries):
            self._add(entry, place / index)

    def __contains__(self, name: str) -> bool:
        """Whether there is an entry of this name."""
        return name in self._plugins

    @property
    def entries(self) -> list[Plugin]:
        """The plugins that have an entry with nothing wrong in it, in their order."""
        return [plugin for plugin in self._plugins.values() if plugin is not None]

    @property
    def types(self) -> Mapping[str, PluginType]:
        """All types, by name."""
        return self._types

    @property
    def broken(self) -> list[str]:
        """The names of entries with something wrong in them, which was reported."""
        return [name for name, plugin in self._plugins.items() if plugin is None]

    @property
    def absent_types(self) -> list[str]:
        """The types of entries that this version does not have, which was reported."""
        return list(self._absent)

    @property
    def idle(self) -> list[Plugin]:
        """The plugins with an entry that nothing has referred to."""
        return [plugin for plugin in self.entries if plugin.name not in self._referred]

    def place(self, name: str) -> Place:
        """Return where the entry of this name stands."""
        return self._places[name]

    def get(self, name: str, kind: PluginKind, place: Place) -> Any:
        """Return what a plugin of this kind has made; None after reporting that there is none.

        ``place`` is where it is referred to.
        """
        plugin = self._find(name, place, lambda type_: type_.kind == kind)
        if plugin is None:
            return None
        if plugin.type.kind != kind:
            found, expected = _article(plugin.type.kind), _article(kind)
            place.report(f"found {describe(name)}, {found}; expected {expected}")
            return None
        return plugin.made

    def find(self, name: str, place: Place) -> Plugin | None:
        """Return the plugin of this name, of whatever kind; None after reporting that there is
        none."""
        return self._find(name, place, lambda type_: type_.definition is not None)

    def _find(
        self, name: str, place: Place, is_usable: Callable[[PluginType], bool]
    ) -> Plugin | None:
        self._referred.add(name)
        if name in self._plugins:
            return self._plugins[name]  # None where something is wrong with it, which was reported
        type_ = self._types.get(name)
        if type_ is None:
            _report_unknown_reference(name, place, self._usable(is_usable))
            return None
        if not is_usable(type_):
            return Plugin(name, type_, None, None)
        if type_.required:
            needed = f"its {' and '.join(type_.required)} must be given"
            place.report(f"found {describe(name)}; expected it in plugins, since {needed}")
            return None
        parameters = type_.parameters()
        return Plugin(name, type_, parameters, type_.make(parameters))

    def _usable(self, is_usable: Callable[[PluginType], bool]) -> list[str]:
        own = [plugin.name for plugin in self.entries if is_usable(plugin.type)]
        types = [type_.type for type_ in self._types.values() if is_usable(type_)]
        return list(dict.fromkeys([*own, *types]))

    def _add(self, entry: PluginEntry, place: Place) -> None:
        name = entry.name or entry.type
        if name in self._plugins:
            place = place / "name" if entry.name else place / "type"
            place.mismatch(name, "each name once; the name is the type where none is given")
            return
        self._plugins[name] = None
        self._places[name] = place
        type_ = self._types.get(entry.type)
        if type_ is None:
            self._absent.append(entry.type)
            _report_unknown_type(entry.type, name, place / "type", self._types)
            return
        try:
            parameters = (place / "parameters").check(type_.parameters)
            if parameters is not None:
                self._plugins[name] = Plugin(name, type_, parameters, type_.make(parameters))
        except ValueError as error:
            (place / "parameters").report(str(error))


def _article(kind: PluginKind) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}"


def _report_unknown_reference(name: str, place: Place, known: list[str]) -> None:
    if name in ABSENT:
        place.report(absence_of(name))
    else:
        place.report(f"found {describe(name)}; {hint_at(name, known)}")


def _report_unknown_type(type_: str, name: str, place: Place, types: Iterable[str]) -> None:
    if type_ in ABSENT:
        subject = f"plugin {describe(name)}: " if name != type_ else ""
        place.report(subject + absence_of(type_))
    else:
        place.report(f"found {describe(type_)}; {hint_at(type_, list(types))}")
