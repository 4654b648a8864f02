"""``schedulingProfiles`` of a configuration → the plan of its schedulers."""

from typing import Any, Final

from epp.config.places import Place
from epp.config.plugins import Plugin, Plugins
from epp.config.scheduling import (
    DEFAULT_HANDLER,
    DEFAULT_PROFILE,
    PlannedPlugin,
    PlannedProfile,
    PluginMaker,
    ProfileItem,
    SchedulingPlan,
    UnmadePluginError,
    default_plan,
    make_plan,
)
from epp.config.schema import ProfileItemSection, ProfileSection
from epp.config.secrets import Secrets
from epp.core.scheduling import Filter, Observer, Picker, Scorer
from epp.core.scheduling.handlers import ProfileHandler
from epp.discovery.checking import describe

__all__ = ["read_scheduling"]

_DEFAULT_PICKER: Final = "max-score-picker"
_RANDOM_PICKER: Final = "random-picker"


def read_scheduling(
    sections: tuple[ProfileSection, ...], root: Place, plugins: Plugins, notes: list[str]
) -> SchedulingPlan:
    """Return what the profiles and the plugins say of scheduling.

    What is wrong is reported; the value is of no use then. ``notes`` gets lines on what is accepted
    and means nothing here.
    """
    place = root / "schedulingProfiles"
    reader = _Reader(plugins, place, notes)
    handler = reader.handler(sections, place)
    profiles = tuple(reader.read(each, place / index) for index, each in enumerate(sections))
    names_are_good = _check_names(sections, place)
    profiles = profiles or (reader.all_plugins(),)
    if not (reader.is_good and names_are_good):
        return default_plan()
    try:
        return make_plan(reader.maker, profiles, handler)
    except UnmadePluginError as error:
        reader.report(error)
    except ValueError as error:
        place.report(str(error))
    return default_plan()


def _check_names(sections: tuple[ProfileSection, ...], place: Place) -> bool:
    names = [section.name for section in sections]
    for index, name in enumerate(names):
        if name in names[:index]:
            (place / index / "name").mismatch(name, "each name once")
    return len(set(names)) == len(names)


class _Reader:
    """Reads profiles. All plugins that the configuration has are made, also those that it does not
    use: what is wrong with them is told, and what they can do is known."""

    def __init__(self, plugins: Plugins, place: Place, notes: list[str]) -> None:
        self._plugins = plugins
        self._place = place
        self._notes = notes
        self._reported = set(plugins.broken)
        self._entries = [each for each in plugins.entries if each.type.definition is not None]
        definitions = {
            name: type_.definition
            for name, type_ in plugins.types.items()
            if type_.definition is not None
        }
        planned = map(_planned, self._entries)
        self.maker = PluginMaker(planned, definitions, Secrets(), plugins.broken)
        self.is_good = not plugins.broken
        for each in self._entries:
            self._make(each.name)

    def handler(self, sections: tuple[ProfileSection, ...], place: Place) -> str:
        """Return the plugin that chooses among the profiles."""
        handlers = [name for name, each in self._made() if isinstance(each, ProfileHandler)]
        for name in handlers[1:]:
            where = self._plugins.place(name) / "type"
            where.report(f"found the profile handlers {' and '.join(handlers)}; expected one")
        has_other = any(type_.endswith("-handler") for type_ in self._plugins.absent_types)
        if len(sections) > 1 and not handlers and not has_other:
            place.report(
                f"found {len(sections)} profiles and no profile handler in plugins; expected one"
                " that chooses among them, such as header-profile-handler"
            )
            self.is_good = False
        return handlers[0] if handlers else self._implied(DEFAULT_HANDLER, ProfileHandler)

    def read(self, section: ProfileSection, place: Place) -> PlannedProfile:
        """Return a profile as its section says."""
        items: list[ProfileItem] = []
        pickers: list[str] = []
        seen: set[str] = set()
        for index, item in enumerate(section.plugins):
            where = place / "plugins" / index
            if item.plugin_ref in seen:
                found = f"found {describe(item.plugin_ref)} again"
                (where / "pluginRef").report(f"{found}; expected each plugin once in a profile")
            seen.add(item.plugin_ref)
            made = self._referred(item, where / "pluginRef")
            if made is None:
                continue
            self._note_weight(item, made, section.name)
            if isinstance(made, Picker):
                pickers.append(item.plugin_ref)
                if len(pickers) > 1:
                    found = f"found the pickers {' and '.join(pickers)}"
                    (where / "pluginRef").report(f"{found}; expected one in a profile")
            if _takes_part(made):
                items.append(ProfileItem(item.plugin_ref, item.weight or 1.0))
            elif not isinstance(made, Picker):
                self._note_idle(item.plugin_ref, section.name)
        return self._profile(section.name, items, pickers)

    def all_plugins(self) -> PlannedProfile:
        """Return a profile of all filters, scorers and pickers that the configuration has, or the
        default where it has none."""
        items = [name for name, each in self._made() if isinstance(each, Filter | Scorer)]
        pickers = self._pickers()
        if not items and not pickers:
            for item in DEFAULT_PROFILE.items:
                self._implied(item.plugin, Scorer)
            self._implied(DEFAULT_PROFILE.picker, Picker)
            return DEFAULT_PROFILE
        return self._profile("default", [ProfileItem(name) for name in items], pickers)

    def report(self, error: UnmadePluginError) -> None:
        """Report that a plugin cannot be made, once, at its entry if it has one."""
        self.is_good = False
        if error.name not in self._reported:
            self._reported.add(error.name)
            if error.name in self._plugins:
                (self._plugins.place(error.name) / "parameters").report(str(error))
            else:
                self._place.report(f"plugin {describe(error.name)}: {error}")

    def _profile(self, name: str, items: list[ProfileItem], pickers: list[str]) -> PlannedProfile:
        picker = next(iter(pickers or self._pickers()), "")
        picker = picker or self._implied(_DEFAULT_PICKER, Picker)
        planned = self.maker.planned.get(picker)
        is_random = planned is not None and planned.definition.type == _RANDOM_PICKER
        made = (self.maker.made.get(item.plugin) for item in items)
        if not is_random and not any(isinstance(each, Scorer) for each in made):
            self._notes.append(
                f"schedulingProfiles: {name} has no scorer, so {picker} picks by chance"
            )
        return PlannedProfile(name=name, items=tuple(items), picker=picker)

    def _implied(self, name: str, kind: Any) -> str:
        """Return the name of a plugin that is needed; report that it is something else's."""
        made = self.maker.made.get(name)
        if made is not None and not isinstance(made, kind):
            self.is_good = False
            where = self._plugins.place(name) / "name"
            where.mismatch(name, "another name, since the type of this name is needed as well")
        return name

    def _referred(self, item: ProfileItemSection, place: Place) -> Any:
        """Return what a profile refers to, as an object; None where there is none, which was
        reported."""
        plugin = self._plugins.find(item.plugin_ref, place)
        if plugin is None:
            self.is_good = False
            return None
        if plugin.type.definition is None:
            return plugin
        if plugin.name not in self.maker.planned:
            self.maker.planned[plugin.name] = _planned(plugin, "schedulingProfiles")
        return self._make(plugin.name)

    def _make(self, name: str) -> Any:
        try:
            return self.maker.make(name)
        except UnmadePluginError as error:
            self.report(error)
            return None

    def _made(self) -> list[tuple[str, Any]]:
        """Return what was made of the configuration's entries, in their order."""
        made = self.maker.made
        return [(each.name, made[each.name]) for each in self._entries if each.name in made]

    def _pickers(self) -> list[str]:
        return [name for name, each in self._made() if isinstance(each, Picker)]

    def _note_weight(self, item: ProfileItemSection, made: object, profile: str) -> None:
        if item.weight is not None and not isinstance(made, Scorer):
            self._notes.append(
                f"schedulingProfiles: {profile}: {item.plugin_ref} is no scorer, so its weight"
                " means nothing"
            )

    def _note_idle(self, name: str, profile: str) -> None:
        self._notes.append(
            f"schedulingProfiles: {profile}: {name} is no filter, scorer or picker here and is"
            " ignored"
        )


def _takes_part(plugin: object) -> bool:
    """Return whether a plugin of a profile is to be made: also one that only watches."""
    is_watching = isinstance(plugin, Observer) and not isinstance(plugin, Picker | ProfileHandler)
    return is_watching or isinstance(plugin, Filter | Scorer)


def _planned(plugin: Plugin, implied_by: str = "") -> PlannedPlugin:
    assert plugin.type.definition is not None
    return PlannedPlugin(
        name=plugin.name,
        definition=plugin.type.definition,
        parameters=plugin.parameters,
        implied_by=implied_by,
    )
