"""What a configuration says of scheduling, as data of which schedulers are made.

Plugins hold state of the pool that they work for, so each scheduler has plugins of its own: they
are made anew each time, and in the same way.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec.structs import fields

from epp.config.secrets import Secrets
from epp.core.scheduling import (
    Filter,
    NamedFilter,
    Observer,
    ProfileScheduler,
    SchedulingProfile,
    Scorer,
    WeightedScorer,
)
from epp.core.scheduling.catalogue import CATALOGUE
from epp.core.scheduling.definition import Parameters, PluginDefinition
from epp.core.scheduling.prefix_cache import PrefixCache, PrefixCacheParameters

__all__ = [
    "DEFAULT_HANDLER",
    "DEFAULT_PROFILE",
    "PlannedPlugin",
    "PlannedProfile",
    "PluginMaker",
    "ProfileItem",
    "SchedulingPlan",
    "UnmadePluginError",
    "default_plan",
    "make_plan",
]

_UNLIMITED_TOKENS: Final = 10**9


class PlannedPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin by name, and what it is made of. ``implied_by`` is what needs it, where it stands
    in no configuration."""

    name: str
    definition: PluginDefinition
    parameters: Parameters
    implied_by: str = ""


class ProfileItem(msgspec.Struct, frozen=True):
    """A plugin of a profile, by name; the weight counts where it is a scorer."""

    plugin: str
    weight: float = 1.0


class PlannedProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The filters and scorers of a profile in their order, and its picker."""

    name: str
    items: tuple[ProfileItem, ...]
    picker: str


DEFAULT_HANDLER: Final = "single-profile-handler"
DEFAULT_PROFILE: Final = PlannedProfile(
    name="default", items=(ProfileItem("first-token-scorer"),), picker="max-score-picker"
)
"""What :func:`epp.core.scheduling.default.default_scheduler` is as well."""


class SchedulingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Profiles, and all plugins that they need in an order in which they can be made.

    ``handler`` is the plugin that chooses among the profiles. ``wanted_headers`` are the request
    headers that plugins want to see. ``prefix_block_tokens`` is the size of the blocks in which
    prompts are to be hashed for them, 0 where nobody wants that, ``max_prefix_tokens`` how much of
    a prompt.
    """

    plugins: tuple[PlannedPlugin, ...]
    profiles: tuple[PlannedProfile, ...]
    handler: str
    secrets: Secrets
    wanted_headers: tuple[str, ...] = ()
    prefix_block_tokens: int = 0
    max_prefix_tokens: int = 0

    def new_scheduler(self) -> ProfileScheduler:
        """Return a scheduler for one pool, with plugins of its own."""
        maker = PluginMaker(self.plugins, CATALOGUE, self.secrets)
        profiles = [_profile(each, maker) for each in self.profiles]
        handler = maker.make(self.handler)
        observers = [each for each in maker.made.values() if isinstance(each, Observer)]
        return ProfileScheduler(profiles, observers, handler)


def _profile(planned: PlannedProfile, maker: "PluginMaker") -> SchedulingProfile:
    made = [(item, maker.make(item.plugin)) for item in planned.items]
    return SchedulingProfile(
        planned.name,
        [NamedFilter(item.plugin, each) for item, each in made if isinstance(each, Filter)],
        [
            WeightedScorer(item.plugin, each, item.weight)
            for item, each in made
            if isinstance(each, Scorer)
        ],
        maker.make(planned.picker),
        planned.picker,
    )


@cache
def default_plan() -> SchedulingPlan:
    """Return what a configuration stands for that says nothing of scheduling."""
    return make_plan(PluginMaker((), CATALOGUE, Secrets()), (DEFAULT_PROFILE,), DEFAULT_HANDLER)


def make_plan(
    maker: "PluginMaker", profiles: tuple[PlannedProfile, ...], handler: str
) -> SchedulingPlan:
    """Return a plan of what profiles need, of the plugins that a maker has or can make.

    Raises UnmadePluginError for what cannot be made, ValueError for plugins that do not go
    together.
    """
    wanted = [handler]
    for profile in profiles:
        wanted += [*(item.plugin for item in profile.items), profile.picker]
    implied_by = "the default profile" if profiles == (DEFAULT_PROFILE,) else "schedulingProfiles"
    for name in wanted:
        maker.make(name, implied_by)
    needed = maker.needed_for(wanted)
    used = {name: each for name, each in maker.made.items() if name in needed}
    headers = [name.lower() for each in used.values() for name in _wanted_headers(each)]
    caches = {name: each for name, each in used.items() if isinstance(each, PrefixCache)}
    plan = SchedulingPlan(
        plugins=tuple(maker.planned[name] for name in used),
        profiles=profiles,
        handler=handler,
        secrets=maker.secrets,
        wanted_headers=tuple(dict.fromkeys(headers)),
        prefix_block_tokens=_block_tokens(caches),
        max_prefix_tokens=max(
            (_most_tokens(maker.planned[name], cache) for name, cache in caches.items()), default=0
        ),
    )
    plan.new_scheduler()  # so that what is wrong with it as a whole is told now
    return plan


def _wanted_headers(plugin: object) -> tuple[str, ...]:
    found: tuple[str, ...] = getattr(plugin, "wanted_headers", ())
    return found


def _block_tokens(caches: Mapping[str, PrefixCache]) -> int:
    sizes = {name: cache.block_tokens for name, cache in caches.items()}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{size} in {name}" for name, size in sizes.items())
        raise ValueError(f"found blocks of different sizes: {found}; expected the same in all")
    return max(sizes.values(), default=0)


def _most_tokens(planned: PlannedPlugin, cache: PrefixCache) -> int:
    parameters = planned.parameters
    if not isinstance(parameters, PrefixCacheParameters):
        return _UNLIMITED_TOKENS
    most = parameters.max_prefix_tokens_to_match
    return most or parameters.max_prefix_blocks_to_match * cache.block_tokens or _UNLIMITED_TOKENS


class UnmadePluginError(Exception):
    """A plugin could not be made: ``name`` is which, the text why."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class PluginMaker:
    """Makes plugins by name, each once, those that they refer to before them.

    ``planned`` are those that it knows: those that it was given, and those that others need.
    ``made`` are those that it has made, in the order of their being complete. ``broken`` are the
    names of those that cannot be made.
    """

    def __init__(
        self,
        planned: Iterable[PlannedPlugin],
        definitions: Mapping[str, PluginDefinition],
        secrets: Secrets,
        broken: Iterable[str] = (),
    ) -> None:
        self.planned = {plugin.name: plugin for plugin in planned}
        self.made: dict[str, Any] = {}
        self.secrets = secrets
        self._definitions = definitions
        self._being_made: list[str] = []
        self._failed = {name: UnmadePluginError(name, "is broken") for name in broken}
        self._needs: dict[str, list[str]] = {}

    def make(self, name: str, implied_by: str = "") -> Any:
        """Return the plugin of this name, or of the type of this name, which then has the default
        parameters. Raises UnmadePluginError."""
        if name in self.made:
            return self.made[name]
        if name in self._failed:
            raise self._failed[name]
        if name in self._being_made:
            loop = " → ".join([*self._being_made[self._being_made.index(name) :], name])
            raise UnmadePluginError(name, f"found a loop of references: {loop}; expected none")
        if name not in self.planned:
            self.planned[name] = self._implied(name, implied_by)
        planned = self.planned[name]
        self._being_made.append(name)
        try:
            made = planned.definition.make(planned.parameters, _Context(self, name))
        except ValueError as error:
            self._failed[name] = UnmadePluginError(name, str(error))
            raise self._failed[name] from error
        except UnmadePluginError as error:
            self._failed[name] = error
            raise
        except Exception as error:  # what others have written can raise anything
            if _is_own(planned.definition):
                raise
            what = f"{planned.definition.type} has failed: {type(error).__name__}: {error}"
            self._failed[name] = UnmadePluginError(name, what)
            raise self._failed[name] from error
        finally:
            self._being_made.pop()
        self.made[name] = made
        return made

    def needed_for(self, names: Iterable[str]) -> set[str]:
        """Return these and all that they refer to."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._needs.get(name, ())
        return found

    def refer(self, by: str, name: str, default_type: str) -> Any:
        """Return what one plugin means by a name; see PluginContext."""
        name = name or self._default(default_type)
        if name in self._failed:
            raise self._failed[name]
        planned = self.planned.get(name)
        definition = self._definitions.get(name) if planned is None else planned.definition
        if definition is None:
            raise ValueError(f'found no plugin "{name}"; expected one of type {default_type}')
        # Who brings a type of his own may well mean it to stand for one of ours.
        if definition.type != default_type and _is_own(definition):
            found = f'found "{name}" of type {definition.type}'
            raise ValueError(f"{found}; expected one of type {default_type}")
        self._needs.setdefault(by, []).append(name)
        return self.make(name, implied_by=by)

    def _default(self, type_: str) -> str:
        names = [name for name, plugin in self.planned.items() if plugin.definition.type == type_]
        if type_ in names or not names:
            return type_
        if len(names) > 1:
            found = f"found {' and '.join(names)} of type {type_}"
            raise ValueError(f"{found}; expected to be told which is meant")
        return names[0]

    def _implied(self, name: str, implied_by: str) -> PlannedPlugin:
        definition = self._definitions[name]
        needed = [field.encode_name for field in fields(definition.parameters) if field.required]
        if needed:
            what = f"its {' and '.join(needed)} must be given"
            raise ValueError(f'found no "{name}" in plugins; expected it, since {what}')
        return PlannedPlugin(
            name=name,
            definition=definition,
            parameters=definition.parameters(),
            implied_by=implied_by,
        )


def _is_own(definition: PluginDefinition) -> bool:
    return CATALOGUE.get(definition.type) is definition


class _Context:
    """What a plugin may ask for while it is made: see PluginContext."""

    def __init__(self, maker: PluginMaker, name: str) -> None:
        self._maker = maker
        self.name = name

    def plugin(self, name: str, *, default_type: str) -> Any:
        """Return another plugin."""
        return self._maker.refer(self.name, name, default_type)

    def secret(self, path: str) -> bytes:
        """Return the key in a file, or one drawn by chance."""
        return self._maker.secrets.get(path)
