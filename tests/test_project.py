"""What holds the project together: locks, licence, make targets, the wheel, the image's recipe."""

import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from epp import __version__

_PROJECT = Path(__file__).parents[1]
_LOCKS = ("requirements.lock", "requirements-runtime.lock", "requirements-build.lock")
_PYPROJECT = tomllib.loads((_PROJECT / "pyproject.toml").read_text())
# The text as the Apache Software Foundation publishes it.
_APACHE_2_SHA256 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def read(name: str) -> str:
    return (_PROJECT / name).read_text()


# ---- locks ----

_LOCKED = re.compile(
    r"([a-z0-9-]+)==([\w.]+)(?: ; [\w'!=. ]+)?(?: +--hash=sha256:[0-9a-f]{64})+", re.ASCII
)


def locked(name: str) -> dict[str, str]:
    """The version of every distribution in a lock file, after a look at the form of each line."""
    lines = [line for line in read(name).splitlines() if line and not line.startswith("#")]
    requirements = "\n".join(lines).replace(" \\\n", "").splitlines()
    versions = {}
    for requirement in requirements:
        found = re.fullmatch(
            r"([a-z0-9-]+)==([\w.]+)(?: ; [\w'!=. ]+)?(?: +--hash=sha256:[0-9a-f]{64})+",
            requirement,
        )
        assert found, f"{name}: {requirement[:80]}"
        assert found[1] not in versions, f"{name}: {found[1]} twice"
        versions[found[1]] = found[2]
    return versions


@pytest.mark.parametrize("name", _LOCKS)
def test_a_lock_file_is_hashed_and_names_no_place(name: str) -> None:
    assert locked(name)
    text = read(name)
    for place in ("://", "file:", "-e ", "--index", "--extra-index", "--find-links", " @ "):
        assert place not in text


@pytest.mark.parametrize("name", _LOCKS[1:])
def test_the_smaller_locks_are_parts_of_the_whole(name: str) -> None:
    assert locked(name).items() <= locked("requirements.lock").items()


def test_the_locks_fit_what_the_project_asks_for() -> None:
    project = _PYPROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    for lock, lines in (
        ("requirements-runtime.lock", project["dependencies"]),
        ("requirements.lock", project["dependencies"] + extras),
        ("requirements-build.lock", _PYPROJECT["build-system"]["requires"]),
    ):
        versions = locked(lock)
        for requirement in map(Requirement, lines):
            name = canonicalize_name(requirement.name)
            if name != project["name"]:
                assert name in versions, f"{lock} lacks {name}: run `make lock`"
                assert versions[name] in requirement.specifier, f"{lock}: {requirement}"


# ---- licence, version, commands ----


def test_the_licence_is_the_official_text() -> None:
    assert hashlib.sha256((_PROJECT / "LICENSE").read_bytes()).hexdigest() == _APACHE_2_SHA256


def test_the_version_stands_in_one_place_and_in_the_changelog() -> None:
    assert "version" in _PYPROJECT["project"]["dynamic"]
    assert _PYPROJECT["tool"]["hatch"]["version"]["path"] == "epp/__init__.py"
    assert __version__ in read("CHANGELOG.md")


def epp(*arguments: str) -> str:
    command = [sys.executable, "-m", "epp", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=_PROJECT, timeout=60
    ).stdout


def test_epp_tells_its_version_and_its_commands() -> None:
    assert epp("--version") == f"epp {__version__}\n"
    help_text = epp("--help")
    for command in ("up", "serve", "envoy-config", "modelserver"):
        assert re.search(rf"^ +{command}\b", help_text, re.MULTILINE)


# ---- make ----


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", read("Makefile"), re.MULTILINE))


def test_every_make_target_is_explained_and_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    assert set(phony.split()) == make_targets()
    listed = subprocess.run(
        ["make", "--no-print-directory"], check=True, capture_output=True, text=True, cwd=_PROJECT
    ).stdout
    assert set(re.findall(r"^make ([a-z-]+) ", listed, re.MULTILINE)) == make_targets()


@pytest.mark.parametrize("name", [".ci/run", "README.md"])
def test_the_make_targets_that_others_name_exist(name: str) -> None:
    named = set(re.findall(r"(?:^|`|step [a-z-]+ |\$ )make ([a-z-]+)", read(name), re.MULTILINE))
    assert "test" in named
    assert named <= make_targets()


def test_ci_runs_as_it_stands() -> None:
    assert os.access(_PROJECT / ".ci/run", os.X_OK)
    subprocess.run(["bash", "-n", ".ci/run"], check=True, cwd=_PROJECT)


# ---- the wheel ----


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, check=True, capture_output=True, cwd=_PROJECT)
    (path,) = directory.iterdir()
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = (path for path in (_PROJECT / "epp").rglob("*") if path.is_file())
    wanted = {str(path.relative_to(_PROJECT)) for path in files if "__pycache__" not in path.parts}
    metadata = f"inference_epp-{__version__}.dist-info/"
    assert {name for name in wheel.namelist() if not name.startswith(metadata)} == wanted
    assert "epp/py.typed" in wanted


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    directory = f"inference_epp-{__version__}.dist-info"
    metadata = wheel.read(f"{directory}/METADATA").decode()
    for line in (f"Version: {__version__}", "License-Expression: Apache-2.0"):
        assert line in metadata.splitlines()
    assert "epp = epp.cli:main" in wheel.read(f"{directory}/entry_points.txt").decode()
    assert f"{directory}/licenses/LICENSE" in wheel.namelist()


# ---- the image ----


def dockerfile() -> list[tuple[str, str]]:
    """The instructions with their arguments, continued lines joined, comments left out."""
    text = "\n".join(line for line in read("Dockerfile").splitlines() if not line.startswith("#"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_image_is_built_from_one_pinned_release() -> None:
    (argument,) = [rest for word, rest in dockerfile() if word == "ARG"]
    assert re.fullmatch(r"PYTHON=python:\d+\.\d+\.\d+-slim-[a-z]+", argument)
    bases = [rest.split()[0] for word, rest in dockerfile() if word == "FROM"]
    assert bases == ["${PYTHON}", "${PYTHON}"]


def test_the_image_installs_only_what_is_locked() -> None:
    runs = " && ".join(rest for word, rest in dockerfile() if word == "RUN").split(" && ")
    for command in runs:
        assert not re.search(r"\b(apt|apt-get|apk|curl|wget)\b", command)
        if " install " in command:
            assert "--require-hashes" in command or "--no-index" in command


def test_the_image_does_not_run_as_root() -> None:
    instructions = dockerfile()
    final = instructions[max(i for i, (word, _) in enumerate(instructions) if word == "FROM") :]
    (user,) = [rest for word, rest in final if word == "USER"]
    assert int(user.split(":")[0]) > 0
    after = [word for word, _ in final[final.index(("USER", user)) + 1 :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    sources = [
        source
        for word, rest in dockerfile()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    allowed = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert set(sources) == allowed
    for source in sources:
        assert (_PROJECT / source).exists()


def test_the_image_starts_a_command_that_there_is() -> None:
    starts = {
        word: json.loads(rest) for word, rest in dockerfile() if word in ("ENTRYPOINT", "CMD")
    }
    assert starts["ENTRYPOINT"] == ["epp"]
    command, *arguments = starts["CMD"]
    help_text = epp(command, "--help")
    for option in arguments:
        assert not option.startswith("-") or option in help_text
