import json
from pathlib import Path

import pytest

from epp.cli import main
from epp.config.plugin_pages import parameters
from epp.config.plugin_types import OWN_TYPES


def test_a_file_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("flowControl:\n  maxRequests: 5\nparser: {pluginRef: openai-parser}\n")
    assert main(["explain", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"# What holds with {path}; behind each value, which line says so or why it holds.",
        f"# note: {path}: parser is deprecated; use requestHandler.parsers",
    ]
    assert f"{'  maxRequests: 5':<50}  # config.yaml:2" in lines
    assert f"{'    maxWait: 0s':<50}  # default" in lines


def test_without_a_file_the_defaults_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flowControl"]["maxRequests"] == {"value": 10_000, "from": "default"}
    assert found["flowControl"]["priorityBands"] == []


def test_all_problems_of_a_bad_file_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("plugin: []\nflowControl: {maxRequests: -1}\n")
    assert main(["explain", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert main(["explain", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.startswith("epp: cannot read ")


def test_all_types_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--plugins"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Scorers:\n")
    for name in OWN_TYPES:
        assert f"\n  {name} " in text
    assert main(["explain", "--plugins", "--json"]) == 0
    assert {each["type"] for each in json.loads(capsys.readouterr().out)} == OWN_TYPES.keys()


@pytest.mark.parametrize("name", OWN_TYPES)
def test_a_type_is_told_with_all_its_parameters(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    type_ = OWN_TYPES[name]
    assert main(["explain", "--plugins", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{name} ({type_.kind})"
    for each in parameters(type_):
        [line] = [line for line in lines if line.startswith(f"  {each.name}: ")]
        assert each.expected in line
        assert ("must be given" in line) == (each.default == "must be given")
    assert ("It has no parameters." in lines) == (not parameters(type_))


@pytest.mark.parametrize("name", OWN_TYPES)
def test_every_type_and_parameter_is_explained(name: str) -> None:
    type_ = OWN_TYPES[name]
    assert type_.summary.endswith(".")
    names = {each.name for each in parameters(type_)}
    assert set(type_.explains) <= names
    for each in parameters(type_):
        assert "_" not in each.name
        assert each.explains.endswith(".") or "[]" in each.name or "." in each.name


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--plugins", "queue-score"], 'found no plugin type "queue-score"; did you mean'
         ' "queue-scorer"?'),
        (["--plugins", "zzz"], 'found no plugin type "zzz"; `epp explain --plugins` lists what'
         " there is"),
        (["--plugins", "latency-scorer"], 'this version has no "latency-scorer"'),
        (["x.yaml", "--plugins"], "found both FILE and --plugins; expected one of them"),
        (["--markdown"], "found --markdown without --plugins alone; expected both"),
        (["--markdown", "--plugins", "queue-scorer"], "found --markdown without --plugins alone;"
         " expected both"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments]) == 2
    assert capsys.readouterr().err == f"epp: {problem}\n"
