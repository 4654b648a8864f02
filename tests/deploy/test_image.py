"""The image, as far as that can be told without an engine.

Its recipe is linted, and what it runs to install the endpoint picker runs here as well, in an
environment of its own.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from epp import __version__

_PROJECT = Path(__file__).parents[2]
_WHEELS = _PROJECT / "build/image-wheels"
_BUILD_TOOLS = {"pip", "setuptools", "wheel", "hatchling", "uv", "build"}
# Of byte code: by a hash of its source, which is not looked at (PEP 552).
_UNCHECKED_HASH = b"\x01\x00\x00\x00"


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, continued lines joined, comments left out."""
    lines = (_PROJECT / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    found: list[list[tuple[str, str]]] = []
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        elif found:
            found[-1].append((word, rest.strip()))
    return found


def test_hadolint_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, _PROJECT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_final_stage_only_takes_away_and_copies() -> None:
    final = stages()[-1]
    (run,) = [rest for word, rest in final if word == "RUN"]
    commands = [re.split(r"\s+", command)[:4] for command in run.split(" && ")]
    assert commands[0] == ["python", "-m", "pip", "uninstall"]
    assert commands[1][:2] == ["rm", "-r"]
    assert len(commands) == 2
    assert [rest for word, rest in final if word == "COPY"] == ["--from=build /opt/epp /opt/epp"]


class Installed:
    """What the first stage leaves in /opt/epp."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python = root / "bin/python"

    def run(self, *command: str | Path) -> str:
        environment = {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin", "HOME": "/nonexistent"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Do what the first stage does, below a directory in place of the root of a file system."""
    ready = _WHEELS / ".ready"
    assert ready.exists(), f"{_WHEELS} is not there: run `make {ready.relative_to(_PROJECT)}`"
    root = tmp_path_factory.mktemp("image")
    # The image's Python, which has pip: with as little in it as the base image has.
    subprocess.run([sys.executable, "-m", "venv", root / "usr"], check=True)
    environment = {"PATH": f"{root / 'usr/bin'}:/usr/bin:/bin", "HOME": str(Path.home())}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    # What the locks name, `make test` has fetched: an index has thousands of files to look through.
    environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(_WHEELS)}
    directory = root / "src"
    directory.mkdir()
    for word, rest in stages()[0]:
        if word == "ENV":
            environment |= dict(re.findall(r"(\w+)=(\S+)", rest))
            environment.pop("PIP_NO_CACHE_DIR", None)  # here it saves time
        elif word == "COPY":
            copy(rest, directory)
        elif word == "RUN":
            shell(rest, root, directory, environment)
    return Installed(root / "opt/epp")


def copy(rest: str, directory: Path) -> None:
    *sources, target = rest.split()
    for source in sources:
        found = _PROJECT / source
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, directory / target, ignore=ignored)
        else:
            shutil.copy(found, directory / target)


def shell(command: str, root: Path, directory: Path, environment: Mapping[str, str]) -> None:
    here = re.sub(r"(?<![\w.])/(opt|wheel)\b", rf"{root}/\1", command)
    assert str(root) in here
    done = subprocess.run(
        ["/bin/sh", "-ec", here], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def distributions(installed: Installed) -> dict[str, list[str]]:
    """What each distribution that is there requires, by canonical names."""
    script = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name']: d.requires or [] for d in m.distributions()}))"
    )
    found = json.loads(installed.run(installed.python, "-c", script))
    return {canonicalize_name(name): requires for name, requires in found.items()}


def needed(requires: Mapping[str, list[str]], names: set[str]) -> set[str]:
    """The distributions that these need, and what those need, without extras."""
    more = {
        canonicalize_name(requirement.name)
        for name in names
        for requirement in map(Requirement, requires[name])
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
    return names if more <= names else needed(requires, names | more)


def test_what_is_installed_is_what_the_project_needs(installed: Installed) -> None:
    found = distributions(installed)
    assert not _BUILD_TOOLS & found.keys()
    assert needed(found, {"inference-epp"}) == found.keys()
    names = {path.name for path in (installed.root / "bin").iterdir()}
    assert not [name for name in names if re.match("pip|easy_install|hatch|uv$", name)]


def test_it_works_there(installed: Installed) -> None:
    epp = installed.root / "bin/epp"
    assert installed.run(epp, "--version") == f"epp {__version__}\n"
    (command,) = [json.loads(rest) for word, rest in stages()[-1] if word == "CMD"]
    assert "usage: epp serve" in installed.run(epp, *command, "--help")
    # What only a cluster needs is there as well, and nothing of the local gateway.
    installed.run(installed.python, "-c", "import epp.cluster, epp.service")
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        installed.run(installed.python, "-c", "import envoy_data_plane")


def compiled(installed: Installed) -> Iterator[Path]:
    (library,) = (installed.root / "lib").glob("python3.*/site-packages")
    yield from (library / "epp").rglob("*.pyc")


def test_byte_code_is_there_and_holds_no_time(installed: Installed) -> None:
    files = list(compiled(installed))
    assert len(files) == len(list((_PROJECT / "epp").rglob("*.py")))
    assert {path.read_bytes()[4:8] for path in files} == {_UNCHECKED_HASH}


def test_the_wheel_is_the_same_when_it_is_built_again(installed: Installed, tmp_path: Path) -> None:
    (first,) = (installed.root.parents[1] / "wheel").iterdir()
    (build,) = [rest for word, rest in stages()[0] if "hatchling build" in rest]
    command = build.split(" && ")[0].replace("/wheel", str(tmp_path))
    source = installed.root.parents[1] / "src"
    (source / "README.md").touch()
    environment = {"PATH": f"{installed.root.parents[1] / 'usr/bin'}:/usr/bin:/bin"}
    environment |= {"SOURCE_DATE_EPOCH": "315532800"}
    subprocess.run(["/bin/sh", "-ec", command], cwd=source, env=environment, check=True)
    (second,) = tmp_path.iterdir()
    assert first.read_bytes() == second.read_bytes()
