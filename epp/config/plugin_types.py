"""All plugin types that a configuration can name, in one table.

Flow control, parsing and the data layer have theirs beside this module. Those of scheduling come
from :mod:`epp.core.scheduling.catalogue`, and from other distributions.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from epp.config.data_plugins import DATA_TYPES
from epp.config.flow_plugins import FLOW_TYPES
from epp.config.plugin_type import PluginType, scheduling_type
from epp.config.third_party import third_party_types
from epp.core.scheduling.catalogue import CATALOGUE

__all__ = ["OWN_TYPES", "plugin_types"]

OWN_TYPES: Final[Mapping[str, PluginType]] = MappingProxyType(
    {
        type_.type: type_
        for type_ in (*FLOW_TYPES, *map(scheduling_type, CATALOGUE.values()), *DATA_TYPES)
    }
)
"""The types of this project, by name."""


def plugin_types() -> Mapping[str, PluginType]:
    """Return all types by name, those of other distributions last. Raises UsageError for one of
    these that cannot be used."""
    others = third_party_types(frozenset(OWN_TYPES))
    return MappingProxyType({**OWN_TYPES, **others}) if others else OWN_TYPES
