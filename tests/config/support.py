"""Short words for what the tests of configurations do most."""

import textwrap

import pytest

from epp.config.picker_config import PickerConfig, PickerConfigError, parse_picker_config

__all__ = ["parse", "problems", "refused"]


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
