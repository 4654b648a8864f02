from pathlib import Path

import pytest

from epp.core.resources import Endpoint
from epp.discovery import FileSource
from epp.errors import UsageError
from epp.gateway.state import StateDirectory


async def test_the_default_manifests_and_endpoints_make_a_pool(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    manifests = state.default_manifests()
    [found] = await FileSource([manifests]).load()
    servers = state.write_endpoints(
        found.pool, [Endpoint(name="server-1", address="127.0.0.1", port=8101)]
    )
    [resources] = await FileSource([manifests, servers]).load()
    assert [endpoint.destination for endpoint in resources.endpoints] == ["127.0.0.1:8101"]
    priorities = {name: found.priority for name, found in resources.objectives.items()}
    assert priorities == {"interactive": 10, "batch": -10}


def test_edited_manifests_are_kept(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path).default_manifests()
    (directory / "objectives.yaml").write_text("# mine\n")
    again = StateDirectory(tmp_path).default_manifests()
    assert (again / "objectives.yaml").read_text() == "# mine\n"


def test_only_a_temporary_directory_is_removed(tmp_path: Path) -> None:
    own = StateDirectory(tmp_path / "own")
    own.remove()
    assert own.path.is_dir()
    temporary = StateDirectory(None)
    assert temporary.logs.is_dir()
    temporary.remove()
    assert not temporary.path.exists()


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--state-dir .*file: File exists"):
        StateDirectory(tmp_path / "file")
