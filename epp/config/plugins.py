"""The plugins that a configuration can name: one table of types, and what each of them makes.

A new type is one entry in :data:`PLUGIN_TYPES`: its kind, the struct of its parameters, and the
function that makes of these what the rest of the configuration refers to.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta
from msgspec.structs import fields

from epp.config.places import Place
from epp.config.quantities import Duration
from epp.config.schema import PluginEntry
from epp.core.flow import UsageLimitOptions
from epp.core.flow.saturation import AdaptiveOptions, ConcurrencyOptions, UtilizationOptions
from epp.discovery.checking import describe

__all__ = ["PLUGIN_TYPES", "Plugin", "PluginKind", "PluginType", "Plugins"]

PluginKind = Literal[
    "saturation detector", "usage-limit policy", "fairness policy", "ordering policy"
]

_ADAPTIVE, _UTILIZATION = AdaptiveOptions(), UtilizationOptions()

Text: TypeAlias = Annotated[str, Meta(description="text")]
# So that the limits of all endpoints of a pool can be summed in 64 bits.
Limit: TypeAlias = Annotated[
    int, Meta(ge=1, le=10**9, description="a whole number from 1 to 1000000000")
]
Staleness: TypeAlias = Annotated[
    Duration, Meta(description='a duration above 0, such as "500ms" or "5s"')
]
Headroom: TypeAlias = Annotated[float, Meta(ge=0, le=1000, description="a number from 0 to 1000")]
Ceiling: TypeAlias = Annotated[float, Meta(gt=0, le=1, description="a number above 0, up to 1")]
LowCeiling: TypeAlias = Annotated[
    float, Meta(ge=0, lt=1, description="a number of at least 0, below 1")
]
Mode: TypeAlias = Annotated[
    Literal["requests", "tokens", "hybrid"],
    Meta(description='"requests", "tokens" or "hybrid"'),
]
Domain: TypeAlias = Annotated[Literal["rank", "value"], Meta(description='"rank" or "value"')]
Shape: TypeAlias = Annotated[Literal["linear"], Meta(description='"linear"')]


class _Parameters(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    pass


class NoParameters(_Parameters, frozen=True, kw_only=True):
    """None at all."""


class ConcurrencyParameters(_Parameters, frozen=True, kw_only=True):
    """Of ``concurrency-detector``."""

    concurrency_mode: Mode = "requests"
    max_concurrency: Limit = 100
    max_token_concurrency: Limit = 1_000_000
    headroom: Headroom = 0.0
    # Who counts what is in flight: here that is always the pool itself.
    in_flight_load_producer_name: Any = None
    # Ours:
    label: Text = ""
    max_concurrency_by_label: dict[str, Limit] = {}


class UtilizationParameters(_Parameters, frozen=True, kw_only=True):
    """Of ``utilization-detector``."""

    queue_depth_threshold: Limit = 5
    kv_cache_util_threshold: Ceiling = 0.8
    metrics_staleness_threshold: Staleness = Duration(_UTILIZATION.stale_after_s)
    headroom: Headroom = 0.0
    # Ours:
    initial_concurrency: Limit = _UTILIZATION.unknown_requests


class AdaptiveParameters(_Parameters, frozen=True, kw_only=True):
    """Of ``adaptive-detector``."""

    initial_concurrency: Limit = _ADAPTIVE.first_requests
    max_concurrency: Limit = _ADAPTIVE.max_requests
    metrics_staleness_threshold: Staleness = Duration(_ADAPTIVE.stale_after_s)


class StaticLimitParameters(_Parameters, frozen=True, kw_only=True):
    """Of ``static-usage-limit-policy``."""

    threshold: Ceiling = 1.0


class HoldbackParameters(_Parameters, frozen=True, kw_only=True):
    """Of ``priority-holdback-policy``."""

    min_ceiling: LowCeiling
    max_ceiling: Ceiling = 1.0
    domain: Domain = "rank"
    shape: Shape = "linear"


class PluginType(msgspec.Struct, frozen=True):
    """A type of plugins: what kind of thing it is, its parameters, and what is made of these.

    ``make`` raises ValueError, with what was found and expected, for parameters that do not go
    together.
    """

    kind: PluginKind
    parameters: type[msgspec.Struct]
    make: Callable[[Any], object]


class Plugin(msgspec.Struct, frozen=True):
    """A plugin of a configuration. ``made`` is what its kind stands for: the options of a detector
    or of a usage limit, the name of a policy."""

    name: str
    kind: PluginKind
    made: Any


def _concurrency(parameters: ConcurrencyParameters) -> ConcurrencyOptions:
    mode, by_label = parameters.concurrency_mode, parameters.max_concurrency_by_label
    if bool(by_label) != bool(parameters.label):
        raise ValueError("found one of label and maxConcurrencyByLabel; expected both or none")
    if by_label and mode == "tokens":
        raise ValueError('found maxConcurrencyByLabel with concurrencyMode "tokens"; expected one')

    def with_headroom(limit: int) -> int:
        return math.floor(limit * (1.0 + parameters.headroom))

    return ConcurrencyOptions(
        max_requests=None if mode == "tokens" else with_headroom(parameters.max_concurrency),
        max_tokens=None if mode == "requests" else with_headroom(parameters.max_token_concurrency),
        label=parameters.label,
        max_requests_by_label={value: with_headroom(most) for value, most in by_label.items()},
    )


def _utilization(parameters: UtilizationParameters) -> UtilizationOptions:
    return UtilizationOptions(
        max_waiting=parameters.queue_depth_threshold,
        max_kv_ratio=parameters.kv_cache_util_threshold,
        stale_after_s=_stale_after_s(parameters.metrics_staleness_threshold),
        headroom_ratio=parameters.headroom,
        unknown_requests=parameters.initial_concurrency,
    )


def _adaptive(parameters: AdaptiveParameters) -> AdaptiveOptions:
    first, most = parameters.initial_concurrency, parameters.max_concurrency
    if first > most:
        found = f"initialConcurrency {first} and maxConcurrency {most}"
        raise ValueError(f"found {found}; expected the former not above the latter")
    return AdaptiveOptions(
        first_requests=first,
        max_requests=most,
        stale_after_s=_stale_after_s(parameters.metrics_staleness_threshold),
    )


def _stale_after_s(threshold: Duration) -> float:
    if not threshold:
        raise ValueError("found a metricsStalenessThreshold of 0; expected a duration above 0")
    return float(threshold)


def _holdback(parameters: HoldbackParameters) -> UsageLimitOptions:
    low, high = parameters.min_ceiling, parameters.max_ceiling
    if low >= high:
        raise ValueError(f"found minCeiling {low} and maxCeiling {high}; expected the latter above")
    return UsageLimitOptions(
        policy="priority-holdback", ceiling=high, min_ceiling=low, domain=parameters.domain
    )


def _named(kind: PluginKind, name: str) -> PluginType:
    return PluginType(kind, NoParameters, lambda _: name)


PLUGIN_TYPES: Final[Mapping[str, PluginType]] = MappingProxyType(
    {
        "concurrency-detector": PluginType(
            "saturation detector", ConcurrencyParameters, _concurrency
        ),
        "utilization-detector": PluginType(
            "saturation detector", UtilizationParameters, _utilization
        ),
        "adaptive-detector": PluginType("saturation detector", AdaptiveParameters, _adaptive),
        "static-usage-limit-policy": PluginType(
            "usage-limit policy",
            StaticLimitParameters,
            lambda parameters: UsageLimitOptions(ceiling=parameters.threshold),
        ),
        "priority-holdback-policy": PluginType("usage-limit policy", HoldbackParameters, _holdback),
        "soft-reflective-ceiling-policy": PluginType(
            "usage-limit policy",
            NoParameters,
            lambda _: UsageLimitOptions(policy="soft-reflective-ceiling"),
        ),
        "weighted-fair-fairness-policy": _named("fairness policy", "weighted-fair"),
        "round-robin-fairness-policy": _named("fairness policy", "round-robin"),
        "global-strict-fairness-policy": _named("fairness policy", "global-strict"),
        "fcfs-ordering-policy": _named("ordering policy", "fcfs"),
        "edf-ordering-policy": _named("ordering policy", "edf"),
        "slo-deadline-ordering-policy": _named("ordering policy", "slo-deadline"),
    }
)
"""All types by name: those of the llm-d router, and ours in the same style."""

_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "program-aware-fairness": "weighted-fair-fairness-policy does its work",
        "sheddable-eviction-filter": "enableEviction needs none",
        "priority-then-time-eviction-order-policy": "enableEviction needs none",
    }
)
_SCHEDULING: Final = (
    "-scorer", "-filter", "-picker", "-handler", "-decider", "-producer", "-parser", "-source",
    "-extractor", "-admitter", "-discovery", "-screener", "-reporter",
)  # fmt: skip


class Plugins:
    """The plugins of one configuration, by name; what is wrong with them is reported.

    A type whose parameters all have defaults can be referred to without an entry.
    """

    def __init__(self, entries: tuple[PluginEntry, ...], place: Place) -> None:
        self._plugins: dict[str, Plugin | None] = {}
        for index, entry in enumerate(entries):
            self._add(entry, place / index)

    def __contains__(self, name: str) -> bool:
        """Whether there is an entry of this name."""
        return name in self._plugins

    def get(self, name: str, kind: PluginKind, place: Place) -> Any:
        """Return what a plugin of this kind has made; None after reporting that there is none.

        ``place`` is where it is referred to.
        """
        plugin = self._plugins.get(name)
        if name not in self._plugins:
            plugin = self._undeclared(name, kind, place)
        if plugin is None:
            return None  # and that was reported
        if plugin.kind != kind:
            _report_kind(name, plugin.kind, kind, place)
            return None
        return plugin.made

    def _undeclared(self, name: str, kind: PluginKind, place: Place) -> Plugin | None:
        found = PLUGIN_TYPES.get(name)
        if found is None:
            own = [name for name, plugin in self._plugins.items() if plugin and plugin.kind == kind]
            usable = [type_ for type_, found in PLUGIN_TYPES.items() if found.kind == kind]
            place.misspelt(name, list(dict.fromkeys([*own, *usable])))
            return None
        if found.kind != kind:
            _report_kind(name, found.kind, kind, place)
            return None
        needed = [field.encode_name for field in fields(found.parameters) if field.required]
        if needed:
            what = f"its {' and '.join(needed)} must be given"
            place.report(f"found {describe(name)}; expected it in plugins, since {what}")
            return None
        return Plugin(name, found.kind, found.make(found.parameters()))

    def _add(self, entry: PluginEntry, place: Place) -> None:
        name = entry.name or entry.type
        if name in self._plugins:
            place = place / "name" if entry.name else place / "type"
            place.mismatch(name, "each name once; the name is the type where none is given")
            return
        self._plugins[name] = None
        found = PLUGIN_TYPES.get(entry.type)
        if found is None:
            _report_unknown(entry.type, name, place / "type")
            return
        parameters = (place / "parameters").check(found.parameters)
        if parameters is not None:
            try:
                self._plugins[name] = Plugin(name, found.kind, found.make(parameters))
            except ValueError as error:
                (place / "parameters").report(str(error))


def _report_kind(name: str, kind: PluginKind, expected: PluginKind, place: Place) -> None:
    article = "an" if kind == "ordering policy" else "a"
    text = "an ordering policy" if expected == "ordering policy" else f"a {expected}"
    place.report(f"found {describe(name)}, {article} {kind}; expected {text}")


def _report_unknown(type_: str, name: str, place: Place) -> None:
    subject = f"plugin {describe(name)}: " if name != type_ else ""
    if hint := _HINTS.get(type_):
        place.report(f"{subject}this version has no {describe(type_)}; {hint}")
    elif type_.endswith(_SCHEDULING):
        found = f"{subject}this version has no {describe(type_)}"
        place.report(f"{found}; it has plugins of flow control only")
    else:
        place.misspelt(type_, list(PLUGIN_TYPES))
