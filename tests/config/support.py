"""Short words for what the tests of configurations do most."""

import textwrap

import pytest
from msgspec.structs import replace

from epp.config.picker_config import PickerConfig, PickerConfigError, parse_picker_config
from epp.core.flow.saturation import AdaptiveOptions

__all__ = ["parse", "problems", "refused", "same"]


def parse(text: str) -> PickerConfig:
    return parse_picker_config("config.yaml", textwrap.dedent(text).encode())


def problems(text: str) -> tuple[str, ...]:
    """All that is wrong with a configuration, which must be something."""
    with pytest.raises(PickerConfigError) as caught:
        parse(text)
    return caught.value.problems


def refused(text: str) -> str:
    """The only thing that is wrong with a configuration."""
    [problem] = problems(text)
    return problem


def same(config: PickerConfig) -> PickerConfig:
    """A configuration without what does not count: notes; whether the default detector is named;
    the order of plugins, and who needs them."""
    plan = config.scheduling
    plugins = {plugin.name: replace(plugin, implied_by="") for plugin in plan.plugins}
    return replace(
        config,
        notes=(),
        saturation=config.saturation or AdaptiveOptions(),
        scheduling=replace(plan, plugins=tuple(plugins[name] for name in sorted(plugins))),
    )
