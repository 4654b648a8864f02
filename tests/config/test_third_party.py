"""Plugin types of other distributions, as they are when they are installed."""

import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epp.cli import main
from epp.config.third_party import third_party_types
from epp.errors import UsageError

from .support import parse, refused

_PACKAGE = Path(__file__).parent / "example_plugin"
Install = Callable[[str, str, str], None]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    third_party_types.cache_clear()
    before = set(sys.modules)
    yield
    third_party_types.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("epp_"):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a distribution of a module visible, with one entry point."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(distribution: str, entry: str, source: str) -> None:
        module = entry.partition("=")[2].strip().partition(":")[0]
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[epp.plugins]\n{entry}\n")

    return make


@pytest.fixture
def _example(install: Install, tmp_path: Path) -> None:
    project = tomllib.loads((_PACKAGE / "pyproject.toml").read_text())["project"]
    [(name, value)] = project["entry-points"]["epp.plugins"].items()
    install(project["name"], f"{name} = {value}", "")
    shutil.copy(_PACKAGE / "epp_example_plugin.py", tmp_path)


CONFIG = """
plugins: [{type: cheap-zone-scorer, parameters: {zones: {a: 1, b: 2}}}]
schedulingProfiles: [{name: p, plugins: [{pluginRef: cheap-zone-scorer, weight: 2}]}]
"""


@pytest.mark.usefixtures("_example")
def test_the_example_works_like_any_other_plugin() -> None:
    profile = parse(CONFIG).new_scheduler().profiles["p"]
    [scorer] = profile.scorers
    assert (scorer.name, scorer.weight) == ("cheap-zone-scorer", 2.0)
    assert type(scorer.scorer).__module__ == "epp_example_plugin"
    assert refused(CONFIG.replace("b: 2", "b: -2")) == (
        "config.yaml:2: plugins[0].parameters.zones.b: found -2; expected a price of at least 0"
    )
    assert refused(CONFIG.replace("{a: 1, b: 2}", "{}")) == (
        "config.yaml:2: plugins[0].parameters: found no zones; expected one at least"
    )
    assert refused(CONFIG.replace("{zones: {a: 1, b: 2}}", "{}")).startswith(
        "config.yaml:2: plugins[0].parameters.zones: missing; expected a mapping"
    )
    assert refused("plugins: [{type: cheap-zone-score}]").endswith(
        'did you mean "cheap-zone-scorer"?'
    )


@pytest.mark.usefixtures("_example")
def test_the_example_is_explained_but_not_on_our_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", "--plugins"]) == 0
    listing = capsys.readouterr().out
    assert "cheap-zone-scorer" in listing
    assert "[epp-example-plugin]" in listing
    assert main(["explain", "--plugins", "cheap-zone-scorer"]) == 0
    assert capsys.readouterr().out == (
        "cheap-zone-scorer (scorer, of epp-example-plugin)\n"
        "Prefers endpoints in a zone that costs less.\n\n"
        "Parameters:\n\n"
        "  zones: a mapping; must be given\n    The price of each zone.\n\n"
        '  label: text; default "topology.kubernetes.io/zone"\n'
        "    The endpoints' label with their zone.\n"
    )
    assert main(["explain", "--plugins", "--markdown"]) == 0
    assert "cheap-zone-scorer" not in capsys.readouterr().out


DEFINITION = """
from epp.core.scheduling.definition import PluginDefinition
A = PluginDefinition(type={type!r}, summary="", make=1)
"""


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named"
         " 'no_such_module'"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("B = 1", "cannot be loaded: AttributeError: module 'epp_bad' has no attribute 'A'"),
        ("A = 1", "found a int; expected an epp.core.scheduling PluginDefinition"),
        (DEFINITION.format(type=""), "found no type or no parameters; expected a name and a"
         " struct"),
        (DEFINITION.format(type="queue-scorer"), 'found the type "queue-scorer", which epp has;'
         " expected one of its own"),
    ],
)  # fmt: skip
def test_a_broken_one_is_one_clear_error(source: str, problem: str, install: Install) -> None:
    install("bad-plugin", "x = epp_bad:A", source)
    with pytest.raises(UsageError) as caught:
        parse("{}")
    where = "bad-plugin: entry point x = epp_bad:A of the group epp.plugins"
    assert str(caught.value) == f"{where}: {problem}"


def test_a_plugin_that_fails_while_it_is_made_is_one_clear_error(install: Install) -> None:
    install("bad-plugin", "x = epp_bad:A", DEFINITION.format(type="bad-scorer"))
    assert refused("plugins: [{type: bad-scorer}]") == (
        "config.yaml:1: plugins[0].parameters: bad-scorer has failed: TypeError: 'int' object is"
        " not callable"
    )


def test_a_type_of_two_distributions_is_refused(install: Install) -> None:
    install("one", "x = epp_one:A", DEFINITION.format(type="mine-scorer"))
    install("two", "x = epp_two:A", DEFINITION.format(type="mine-scorer"))
    with pytest.raises(UsageError, match=r'^two: .*: found the type "mine-scorer", which one has;'):
        parse("{}")
