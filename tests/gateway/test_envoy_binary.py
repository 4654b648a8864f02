import sys
from pathlib import Path

import pytest

from epp.errors import UsageError
from epp.gateway.envoy_binary import find_envoy


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_the_packaged_one() -> None:
    assert find_envoy(None).name == "envoy"


def test_one_of_the_users_own(tmp_path: Path) -> None:
    path = script(tmp_path / "envoy", "#!/bin/sh\necho 'envoy  version: 1.41'\n")
    assert find_envoy(path) == Path(path)


@pytest.mark.parametrize("name", [".", "missing", "plain"])
def test_no_executable(tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(UsageError, match=r"--envoy: .* is not an executable file"):
        find_envoy(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#!/no/such/interpreter\n", "cannot be run"),
        ("#!/bin/sh\necho broken >&2; exit 1\n", "does not answer as Envoy does: broken; give"),
        ("#!/bin/sh\necho hello\n", "does not answer as Envoy does: hello; give"),
        ("#!/bin/sh\n", "does not answer as Envoy does; give"),
    ],
)
def test_something_else(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_envoy(script(tmp_path / "envoy", text))


@pytest.mark.parametrize("with_namesake", [False, True])
def test_no_wheel_for_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_namesake: bool
) -> None:
    monkeypatch.delitem(sys.modules, "envoy", raising=False)
    if with_namesake:
        # xds-protos installs a package of this name as well.
        (tmp_path / "envoy.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
    else:
        monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(UsageError, match=r"pip install .*--envoy PATH"):
        find_envoy(None)
