"""The examples that ship, and the page that explains every field."""

import re
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import fields

from epp.cli import main
from epp.config import schema
from epp.config.picker_config import PickerConfig, parse_picker_config, read_picker_config
from epp.config.plugin_types import OWN_TYPES

from .support import same

_PROJECT = Path(__file__).parents[2]
_EXAMPLES = sorted((_PROJECT / "config/picker").iterdir())
_PAGE = (_PROJECT / "docs/configuration.md").read_text()
_SECTIONS = {
    "The document": schema.PickerDocument,
    "`schedulingProfiles`": schema.ProfileSection,
    "`plugins` of a profile": schema.ProfileItemSection,
    "`dataLayer`": schema.DataSection,
    "`sources`": schema.SourceSection,
    "`requestHandler`": schema.RequestHandlerSection,
    "`flowControl`": schema.FlowSection,
    "Bands": schema.PriorityBandSection,
    "`fairness`": schema.FairnessSection,
    "`idSources`": schema.IdSource,
    "`cost`": schema.CostSection,
    "`trust`": schema.TrustSection,
    "Plugins": schema.PluginEntry,
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
    assert same(found) == same(PickerConfig())


def test_the_example_of_defaults_names_every_field() -> None:
    text = (_PROJECT / "config/picker/defaults.yaml").read_text()
    elsewhere = {"apiVersion", "kind", "priority", "header", "claim", "remove", "name", "parser"}
    refused = {field for field, row in rows("`dataLayer`").items() if "refused" in row[-1]}
    for struct in _SECTIONS.values():
        for field in fields(struct):
            assert field.encode_name in elsewhere | refused or f"{field.encode_name}:" in text


def test_every_yaml_on_the_page_can_be_used() -> None:
    [block] = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.M | re.S)
    config = parse_picker_config("page", block.encode())
    assert config.flow.weights == {"gold": 4}
    assert config.notes == ()
    [text] = re.findall(r"--config-text '([^']*)'", _PAGE)
    assert parse_picker_config("page", text.encode()).flow.limits.max_requests == 2000


def test_every_file_that_the_page_names_is_there() -> None:
    for name in re.findall(r"config/picker/[\w.-]*|tests/[\w/-]*", _PAGE):
        assert (_PROJECT / name).exists()


@pytest.mark.parametrize(("heading", "struct"), _SECTIONS.items(), ids=lambda value: str(value))
def test_the_page_explains_every_field_and_no_other(
    heading: str, struct: type[msgspec.Struct]
) -> None:
    found = rows(heading)
    assert set(found) == {field.encode_name for field in fields(struct)}
    for field in fields(struct):
        _, default, meaning = found[field.encode_name]
        assert meaning
        assert ("must be given" in default) == (field.required or field.encode_name == "header")


def test_the_page_of_plugins_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--plugins", "--markdown"]) == 0
    page = (_PROJECT / "docs/plugins.md").read_text()
    assert capsys.readouterr().out == page, "epp explain --plugins --markdown > docs/plugins.md"
    for name in OWN_TYPES:
        assert f"\n### `{name}`\n" in page


def test_the_page_explains_every_kind_of_plugins() -> None:
    words = {word for kinds in rows("Plugins", 1) for word in kinds.split(", ")}
    assert words | {"scheduling plugin"} >= {type_.kind for type_ in OWN_TYPES.values()}
