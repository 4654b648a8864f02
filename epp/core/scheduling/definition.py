"""How a plugin type introduces itself to a configuration: its name, its parameters, how it is made.

The types that come with this project stand in :mod:`epp.core.scheduling.catalogue`; those of others
are found by the entry-point group ``epp.plugins``, whose entries are instances of
:class:`PluginDefinition`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import msgspec

__all__ = ["NoParameters", "Parameters", "ParametersType", "PluginContext", "PluginDefinition"]


class Parameters(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """Base of the parameters of a plugin type: fields in snake case here, in camel case there.

    A field's type says what may stand there: ``Annotated[int, msgspec.Meta(ge=1,
    description="a whole number of at least 1")]``, where the description completes an error that
    says "expected". A field without a default must be given.
    """


class NoParameters(Parameters, frozen=True, kw_only=True):
    """None at all."""


ParametersType: TypeAlias = type[Parameters]


class PluginContext(Protocol):
    """What a plugin may ask for while it is made."""

    @property
    def name(self) -> str:
        """What the configuration calls this plugin."""
        ...

    def plugin(self, name: str, *, default_type: str) -> Any:
        """Return another plugin: that of this name, or, where the name is empty, the one of the
        default type, which is made with default parameters if the configuration has none.

        Raises ValueError where there is no such plugin, or it is of another type than is usable.
        """
        ...

    def secret(self, path: str) -> bytes:
        """Return the secret in a file; where the path is empty, one that this process has drawn by
        chance when it began, which is the same for all who ask.

        Raises ValueError where it cannot be read.
        """
        ...


class PluginDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin type.

    ``type`` is its name in configurations, ``summary`` a sentence on what it does. ``make`` makes
    one of its parameters; it raises ValueError, with what was found and expected, for parameters
    that do not go together. ``explains`` has a sentence for each parameter, by its name in the
    configuration.
    """

    type: str
    summary: str
    make: Callable[[Any, PluginContext], object]
    parameters: ParametersType = NoParameters
    explains: Mapping[str, str] = {}
