"""EndpointPickerConfig: the text of a configuration → the options it stands for, or all its errors.

Strict: what is not understood is refused, in one line with its place, and never ignored in silence.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from epp.config.data_section import read_data_layer, reads_bodies
from epp.config.flow_section import read_flow_section
from epp.config.places import Place
from epp.config.plugin_type import PluginType
from epp.config.plugin_types import plugin_types
from epp.config.plugins import Plugins
from epp.config.scheduling import SchedulingPlan, default_plan
from epp.config.scheduling_section import read_scheduling
from epp.config.schema import API_VERSIONS, KIND, PickerDocument
from epp.config.scrape import ScrapeOptions
from epp.config.trust_section import read_claims_options
from epp.core.claims import ClaimsOptions
from epp.core.flow import BandOptions, FlowOptions
from epp.core.flow.saturation import SaturationOptions
from epp.core.scheduling import Scheduler
from epp.discovery.documents import Node, parse_documents
from epp.discovery.problems import ManifestError, Problems
from epp.errors import UsageError

__all__ = [
    "PickerConfig",
    "PickerConfigError",
    "Reading",
    "parse_picker_config",
    "parse_reading",
    "read_bytes",
    "read_picker_config",
]

_MAX_BYTES: Final = 4 << 20
_BAND: Final = BandOptions()

_GATE: Final = "flowControl"
_IDLE_GATES: Final = ("haPopulateNonLeaderDatastore",)
_SWITCH: Final = {
    **dict.fromkeys(("1", "t", "true"), True),
    **dict.fromkeys(("0", "f", "false"), False),
}
_DETECTOR_OF_THE_REFERENCE: Final = "utilization-detector"
_NEVER_REFERRED_TO: Final = ("profile handler", "producer", "parser")


class PickerConfigError(UsageError):
    """The configuration cannot be used.

    ``problems`` has one line for each: file, line, path, what was found and what was expected. As
    text the error is the first of them.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        more = len(self.problems) - 1
        return f"{self.problems[0]} (and {more} more)" if more else self.problems[0]


class PickerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration stands for.

    ``saturation`` is None where it names no detector, ``scrape`` where engines are not to be asked
    for their load. ``reads_bodies`` says whether bodies are looked into at all. ``notes`` are lines
    for the log on what is accepted and means nothing here.
    """

    flow: FlowOptions = FlowOptions()
    claims: ClaimsOptions = ClaimsOptions()
    saturation: SaturationOptions | None = None
    scheduling: SchedulingPlan = msgspec.field(default_factory=default_plan)
    scrape: ScrapeOptions | None = ScrapeOptions()
    reads_bodies: bool = True
    notes: tuple[str, ...] = ()

    def new_scheduler(self) -> Scheduler:
        """Return a scheduler for one pool, with plugins of its own."""
        return self.scheduling.new_scheduler()


class Reading(msgspec.Struct, frozen=True):
    """A configuration, and what it was read out of: see :mod:`epp.config.effective`."""

    config: PickerConfig
    document: PickerDocument
    root: Node
    plugins: Plugins


def read_picker_config(path: Path, *, band: BandOptions = _BAND) -> PickerConfig:
    """Read a file; see :func:`parse_picker_config`."""
    return parse_picker_config(str(path), read_bytes(path), band=band)


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a configuration's file, no more than are needed to see that it is too
    large. Raises UsageError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def parse_picker_config(name: str, data: bytes, *, band: BandOptions = _BAND) -> PickerConfig:
    """Return what a configuration in YAML or JSON stands for.

    ``name`` stands for its file in problems; ``band`` is what holds for bands where it says
    nothing. Raises PickerConfigError for everything that is wrong with it, UsageError for plugins
    of other distributions that cannot be used.
    """
    return parse_reading(name, data, band=band).config


def parse_reading(name: str, data: bytes, *, band: BandOptions = _BAND) -> Reading:
    """Do the same as :func:`parse_picker_config`, and keep what it was read out of."""
    types = plugin_types()
    problems = Problems()
    try:
        root = _root(name, data, problems)
        reading = _read(root, name, problems, band, types)
        problems.raise_any()
    except ManifestError as error:
        raise PickerConfigError(error.problems) from None
    return reading


def _root(name: str, data: bytes, problems: Problems) -> Node:
    if len(data) > _MAX_BYTES:
        problems.add(f"{name}: larger than {_MAX_BYTES} bytes; expected a configuration")
    elif not data.strip():
        problems.add(f"{name}: empty; expected an {KIND}")
    problems.raise_any()
    documents = list(parse_documents(name, data, problems))
    problems.raise_any()
    if len(documents) != 1:
        problems.add(f"{name}: found {len(documents)} documents; expected one {KIND}")
        problems.raise_any()
    return documents[0].root


def _read(
    root: Node, name: str, problems: Problems, band: BandOptions, types: Mapping[str, PluginType]
) -> Reading:
    place = Place(name, root, problems)
    document = place.check(PickerDocument)
    problems.raise_any()
    assert document is not None
    notes: list[str] = []
    _check_type(document, place, notes)
    _check_gates(document.feature_gates, place / "featureGates", notes)
    plugins = Plugins(document.plugins, place / "plugins", types)
    flow, flow_place = document.flow_control, place / "flowControl"
    scheduling = read_scheduling(document.scheduling_profiles, place, plugins, notes)
    claims = read_claims_options(
        document.trust, flow.fairness.id_sources, flow_place / "fairness" / "idSources"
    )
    config = PickerConfig(
        flow=read_flow_section(flow, flow_place, plugins, band),
        claims=_with_wishes(claims, scheduling),
        saturation=_saturation(document, place, plugins, notes),
        scheduling=scheduling,
        scrape=read_data_layer(document.data_layer, place / "dataLayer", plugins),
        reads_bodies=reads_bodies(document, place, plugins, notes),
    )
    _note_idle(plugins, scheduling, notes)
    config = msgspec.structs.replace(config, notes=tuple(f"{name}: {note}" for note in notes))
    return Reading(config, document, root, plugins)


def _with_wishes(claims: ClaimsOptions, plan: SchedulingPlan) -> ClaimsOptions:
    """Return the options with what the plugins want to see of requests."""
    return msgspec.structs.replace(
        claims,
        wanted_headers=plan.wanted_headers,
        prefix_block_tokens=plan.prefix_block_tokens,
        max_prefix_tokens=plan.max_prefix_tokens,
    )


def _note_idle(plugins: Plugins, plan: SchedulingPlan, notes: list[str]) -> None:
    used = {plugin.name for plugin in plan.plugins}
    notes += [
        f"plugins: nothing refers to {plugin.name}, so it does nothing"
        for plugin in plugins.idle
        if plugin.name not in used and plugin.type.kind not in _NEVER_REFERRED_TO
    ]


def _check_type(document: PickerDocument, place: Place, notes: list[str]) -> None:
    present, *deprecated = API_VERSIONS
    if document.api_version not in API_VERSIONS:
        (place / "apiVersion").misspelt(document.api_version, list(API_VERSIONS))
    elif document.api_version in deprecated:
        notes.append(f"apiVersion {document.api_version} is deprecated; use {present}")
    if document.kind != KIND:
        (place / "kind").mismatch(document.kind, KIND)


def _check_gates(gates: tuple[str, ...], place: Place, notes: list[str]) -> None:
    """Refuse gates that do not exist. ``flowControl`` cannot be closed: it is what this is for."""
    for index, gate in enumerate(gates):
        name, equals, value = gate.partition("=")
        is_on = _SWITCH.get(value.strip().lower()) if equals else True
        if name not in (_GATE, *_IDLE_GATES):
            (place / index).misspelt(name, [_GATE, *_IDLE_GATES])
        elif is_on is None:
            (place / index).mismatch(gate, f'"{name}", "{name}=true" or "{name}=false"')
        elif name == _GATE and not is_on:
            (place / index).mismatch(gate, "none: flow control is always on here")
        elif name in _IDLE_GATES:
            notes.append(f"featureGates: {name} means nothing here and is ignored")


def _saturation(
    document: PickerDocument, place: Place, plugins: Plugins, notes: list[str]
) -> SaturationOptions | None:
    own, deprecated = document.flow_control.saturation_detector, document.saturation_detector
    if deprecated is not None:
        notes.append("saturationDetector is deprecated; use flowControl.saturationDetector")
    if own is not None:
        name, where = own.plugin_ref, place / "flowControl" / "saturationDetector" / "pluginRef"
    elif deprecated is not None:
        name, where = deprecated.plugin_ref, place / "saturationDetector" / "pluginRef"
    elif _DETECTOR_OF_THE_REFERENCE in plugins:
        # There it is the default: where it is declared, it is meant.
        name, where = _DETECTOR_OF_THE_REFERENCE, place / "plugins"
    else:
        return None
    found: SaturationOptions | None = plugins.get(name, "saturation detector", where)
    return found
