"""EndpointPickerConfig: the text of a configuration → the options it stands for, or all its errors.

Strict: what is not understood is refused, in one line with its place, and never ignored in silence.
"""

from pathlib import Path
from typing import Final

import msgspec

from epp.config.flow_section import read_flow_section
from epp.config.places import Place
from epp.config.plugins import Plugins
from epp.config.schema import API_VERSIONS, KIND, PickerDocument
from epp.config.trust_section import read_claims_options
from epp.core.claims import ClaimsOptions
from epp.core.flow import BandOptions, FlowOptions
from epp.core.flow.saturation import SaturationOptions
from epp.discovery.documents import Node, parse_documents
from epp.discovery.problems import ManifestError, Problems
from epp.errors import UsageError

__all__ = ["PickerConfig", "PickerConfigError", "parse_picker_config", "read_picker_config"]

_MAX_BYTES: Final = 4 << 20
_BAND: Final = BandOptions()

_MISSING_PARTS: Final = ("schedulingProfiles", "dataLayer", "requestHandler", "parser")
"""What the llm-d router's EndpointPickerConfig has and this version has not."""

_GATE: Final = "flowControl"
_IDLE_GATES: Final = ("haPopulateNonLeaderDatastore",)
_SWITCH: Final = {
    **dict.fromkeys(("1", "t", "true"), True),
    **dict.fromkeys(("0", "f", "false"), False),
}
_DETECTOR_OF_THE_REFERENCE: Final = "utilization-detector"


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

    ``saturation`` is None where it names no detector. ``notes`` are lines for the log on what is
    accepted and means nothing here.
    """

    flow: FlowOptions = FlowOptions()
    claims: ClaimsOptions = ClaimsOptions()
    saturation: SaturationOptions | None = None
    notes: tuple[str, ...] = ()


def read_picker_config(path: Path, *, band: BandOptions = _BAND) -> PickerConfig:
    """Read a file; see :func:`parse_picker_config`."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_picker_config(str(path), data, band=band)


def parse_picker_config(name: str, data: bytes, *, band: BandOptions = _BAND) -> PickerConfig:
    """Return what a configuration in YAML or JSON stands for.

    ``name`` stands for its file in problems; ``band`` is what holds for bands where it says
    nothing. Raises PickerConfigError for everything that is wrong with it.
    """
    problems = Problems()
    try:
        root = _root(name, data, problems)
        config = _read(root, name, problems, band)
        problems.raise_any()
    except ManifestError as error:
        raise PickerConfigError(error.problems) from None
    return config


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


def _read(root: Node, name: str, problems: Problems, band: BandOptions) -> PickerConfig:
    place = Place(name, root, problems)
    document = place.without(_refuse_missing_parts(place)).check(PickerDocument)
    problems.raise_any()
    assert document is not None
    notes: list[str] = []
    _check_type(document, place, notes)
    _check_gates(document.feature_gates, place / "featureGates", notes)
    plugins = Plugins(document.plugins, place / "plugins")
    flow, flow_place = document.flow_control, place / "flowControl"
    return PickerConfig(
        flow=read_flow_section(flow, flow_place, plugins, band),
        claims=read_claims_options(
            document.trust, flow.fairness.id_sources, flow_place / "fairness" / "idSources"
        ),
        saturation=_saturation(document, place, plugins, notes),
        notes=tuple(f"{name}: {note}" for note in notes),
    )


def _refuse_missing_parts(place: Place) -> list[str]:
    found = [key for key in place.keys if key in _MISSING_PARTS]
    for part in found:
        (place / part).report("this version has no such part; it has flow control only")
    return found


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
