"""The examples that ship, and the page that explains every field."""

import re
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import fields

from epp.config import schema
from epp.config.picker_config import PickerConfig, parse_picker_config, read_picker_config
from epp.config.plugins import PLUGIN_TYPES
from epp.core.flow.saturation import AdaptiveOptions

_PROJECT = Path(__file__).parents[2]
_EXAMPLES = sorted((_PROJECT / "config/picker").iterdir())
_PAGE = (_PROJECT / "docs/configuration.md").read_text()
_SECTIONS = {
    "The document": schema.PickerDocument,
    "`flowControl`": schema.FlowSection,
    "Bands": schema.PriorityBandSection,
    "`fairness`": schema.FairnessSection,
    "`idSources`": schema.IdSource,
    "`cost`": schema.CostSection,
    "`trust`": schema.TrustSection,
    "Plugins": schema.PluginEntry,
}
_PARAMETERS = {
    f"`{name}`": found.parameters
    for name, found in PLUGIN_TYPES.items()
    if fields(found.parameters)
}


def rows(heading: str, number: int = 0) -> dict[str, list[str]]:
    """The rows of a section's table, by the name in the first column."""
    [section] = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", _PAGE, re.M | re.S)
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in tables[number].splitlines()[2:]
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("path", _EXAMPLES, ids=lambda path: path.name)
def test_an_example_can_be_used(path: Path) -> None:
    assert read_picker_config(path).notes == ()


def test_the_example_of_defaults_says_what_no_file_says() -> None:
    found = read_picker_config(_PROJECT / "config/picker/defaults.yaml")
    assert found == PickerConfig(saturation=AdaptiveOptions())


def test_the_example_of_defaults_names_every_field() -> None:
    text = (_PROJECT / "config/picker/defaults.yaml").read_text()
    elsewhere = {"apiVersion", "kind", "priority", "header", "claim", "remove", "name"}
    for struct in _SECTIONS.values():
        for field in fields(struct):
            assert field.encode_name in elsewhere or f"{field.encode_name}:" in text


def test_every_yaml_on_the_page_can_be_used() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.M | re.S)
    assert parse_picker_config("page", block.encode()).flow.weights == {"gold": 4}
    [text] = re.findall(r"--config-text '([^']*)'", _PAGE)
    assert parse_picker_config("page", text.encode()).flow.limits.max_requests == 2000


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"config/picker/[\w.-]*", _PAGE):
        assert (_PROJECT / name).exists()


@pytest.mark.parametrize(
    ("heading", "struct"), [*_SECTIONS.items(), *_PARAMETERS.items()], ids=lambda value: str(value)
)
def test_the_page_explains_every_field_and_no_other(
    heading: str, struct: type[msgspec.Struct]
) -> None:
    found = rows(heading)
    assert set(found) == {field.encode_name for field in fields(struct)}
    for field in fields(struct):
        _, default, meaning = found[field.encode_name]
        assert meaning
        assert ("must be given" in default) == (field.required or field.encode_name == "header")


@pytest.mark.parametrize("name", [heading.strip("`") for heading in _PARAMETERS])
def test_the_defaults_of_parameters_are_as_the_page_says(name: str) -> None:
    stated = {
        parameter: default.strip("`")
        for parameter, (_, default, _) in rows(f"`{name}`").items()
        if default.startswith("`")
    }
    assert stated
    required = {"minCeiling": "0.5"} if name == "priority-holdback-policy" else {}
    assert made(name, required | stated) == made(name, required)


def made(name: str, parameters: dict[str, str]) -> PickerConfig:
    entry = ", ".join(f"{parameter}: {value}" for parameter, value in parameters.items())
    is_detector = PLUGIN_TYPES[name].kind == "saturation detector"
    field = "saturationDetector" if is_detector else "usageLimitPolicyPluginRef"
    reference = f"{{pluginRef: {name}}}" if is_detector else name
    text = f"""
plugins: [{{type: {name}, parameters: {{{entry}}}}}]
flowControl: {{{field}: {reference}}}
"""
    return parse_picker_config("page", text.encode())


def test_the_page_lists_every_type_with_its_kind() -> None:
    found = {name: kind for name, (kind, _) in rows("Plugins", 1).items()}
    assert found == {name: plugin.kind for name, plugin in PLUGIN_TYPES.items()}
