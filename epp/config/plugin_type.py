"""What a type of plugins is to a configuration."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec.structs import fields

from epp.core.scheduling.definition import PluginDefinition

__all__ = ["PluginKind", "PluginType", "scheduling_type"]

PluginKind = Literal[
    "saturation detector",
    "usage-limit policy",
    "fairness policy",
    "ordering policy",
    "filter",
    "scorer",
    "picker",
    "producer",
    "profile handler",
    "scheduling plugin",
    "parser",
    "data source",
    "extractor",
]

StructType: TypeAlias = type[msgspec.Struct]

_KINDS: Mapping[str, PluginKind] = {
    "-filter": "filter",
    "by-label": "filter",
    "by-label-selector": "filter",
    "-scorer": "scorer",
    "-picker": "picker",
    "-producer": "producer",
    "-handler": "profile handler",
}


class PluginType(msgspec.Struct, frozen=True, kw_only=True):
    """A type of plugins: what kind of thing it is, its parameters, and what is made of these.

    ``make`` raises ValueError, with what was found and expected, for parameters that do not go
    together. ``summary`` is a sentence on what it does, ``explains`` has one for each parameter.
    Plugins of scheduling have a ``definition``: they are made for each pool anew, so what is made
    of their parameters here is these themselves. ``distribution`` is where the type comes from,
    empty for those of this project.
    """

    type: str
    kind: PluginKind
    summary: str
    parameters: StructType
    make: Callable[[Any], object]
    explains: Mapping[str, str] = {}
    definition: PluginDefinition | None = None
    distribution: str = ""

    @property
    def required(self) -> list[str]:
        """The names of the parameters that must be given."""
        return [field.encode_name for field in fields(self.parameters) if field.required]


def scheduling_type(definition: PluginDefinition, distribution: str = "") -> PluginType:
    """Return the type that a definition of scheduling is. By its name it is told what it does: that
    of ``queue-scorer`` ends in ``-scorer``."""
    kinds = [kind for suffix, kind in _KINDS.items() if definition.type.endswith(suffix)]
    return PluginType(
        type=definition.type,
        kind=kinds[0] if kinds else "scheduling plugin",
        summary=definition.summary,
        parameters=definition.parameters,
        make=lambda parameters: parameters,
        explains=definition.explains,
        definition=definition,
        distribution=distribution,
    )
