import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from epp.core.resources import EndpointChanges, PoolResources
from epp.discovery import FileSource, ManifestError, files
from epp.discovery.directory import Entry, scan
from epp.errors import UsageError
from tests.discovery.support import POOL, documents, endpoints, objective, wait_until


class Watch:
    """A running source, what it said, and how often it looked."""

    def __init__(self) -> None:
        self.states: list[PoolResources] = []
        self.gone: list[str] = []
        self.errors = 0
        self.scans = 0

    def pool_applied(self, resources: PoolResources) -> None:
        self.states.append(resources)

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        raise AssertionError("files are told of as whole states")

    def pool_gone(self, key: str) -> None:
        self.gone.append(key)

    def rejected(self) -> None:
        self.errors += 1

    @property
    def destinations(self) -> list[str]:
        return [endpoint.destination for endpoint in self.states[-1].endpoints]

    async def look_again(self) -> None:
        """Wait until the source has certainly seen all that is there now, and settled on it."""
        seen = self.scans
        await wait_until(lambda: self.scans >= seen + 6)


Watching = Callable[..., Any]


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    @asynccontextmanager
    async def start(*directories: Path, load: bool = True, **options: Any) -> AsyncIterator[Watch]:
        watch = Watch()

        def counted(where: Sequence[Path]) -> tuple[Entry, ...]:
            watch.scans += 1
            return scan(where)

        monkeypatch.setattr(files, "scan", counted)
        source = FileSource(directories, **{"poll_interval_s": 0.005} | options)
        if load:
            watch.states += await source.load()
        task = asyncio.create_task(source.run(watch))
        try:
            yield watch
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    return start


def write(path: Path, text: str) -> None:
    """Put a file in place as careful programs do: all of it at once."""
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text)
    scratch.rename(path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "manifests"
    path.mkdir()
    write(path / "pool.yaml", POOL)
    write(path / "endpoints.yaml", endpoints({"a": "10.0.0.1"}))
    return path


async def test_load(directory: Path) -> None:
    [found] = await FileSource([directory]).load()
    assert found.pool.name == "llm"
    assert [endpoint.destination for endpoint in found.endpoints] == ["10.0.0.1:8000"]


async def test_load_from_several_directories(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "more"
    other.mkdir()
    write(other / "objectives.json", '{"apiVersion": "v1", "kind": "List", "items": []}')
    write(other / "objectives.yml", objective("a", 1))
    [found] = await FileSource([directory, other]).load()
    assert list(found.objectives) == ["a"]


async def test_the_pool_is_chosen(directory: Path) -> None:
    write(directory / "second.yaml", POOL.replace("name: llm", "name: second"))
    with pytest.raises(ManifestError, match="more than one InferencePool"):
        await FileSource([directory]).load()
    source = FileSource([directory], pool_names=("second",), pool_namespace="default")
    assert [found.pool.name for found in await source.load()] == ["second"]


async def test_pools_of_a_selector_come_and_go(directory: Path, watching: Watching) -> None:
    def labelled(name: str, team: str) -> str:
        return POOL.replace("name: llm", f"name: {name}\n  labels: {{team: {team}}}")

    write(directory / "second.yaml", labelled("second", "a"))
    write(directory / "third.yaml", labelled("third", "b"))
    async with watching(directory, pool_selector="team") as watch:
        assert [found.pool.key for found in watch.states] == ["default/second", "default/third"]
        write(directory / "endpoints.yaml", endpoints({"a": "10.0.0.2"}))
        await wait_until(lambda: len(watch.states) == 4)
        assert watch.destinations == ["10.0.0.2:8000"]
        (directory / "third.yaml").unlink()
        write(directory / "fourth.yaml", labelled("fourth", "c"))
        await wait_until(lambda: len(watch.states) == 5)
        assert watch.gone == ["default/third"]
        assert watch.states[-1].pool.key == "default/fourth"
    assert watch.errors == 0


async def test_what_is_no_selector_is_told(directory: Path) -> None:
    with pytest.raises(UsageError, match="--pool-selector: found 'a in'"):
        FileSource([directory], pool_selector="a in")


async def test_load_tells_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        await FileSource([tmp_path]).load()
    assert str(caught.value) == f"{tmp_path} (files: 0): found no InferencePool; expected one"
    with pytest.raises(ManifestError) as caught:
        await FileSource([tmp_path / "none"]).load()
    assert str(caught.value) == f"{tmp_path}/none: cannot be read: No such file or directory"


async def test_a_change_is_taken(directory: Path, watching: Watching) -> None:
    async with watching(directory) as watch:
        write(directory / "endpoints.yaml", endpoints({"a": "10.0.0.2"}))
        await wait_until(lambda: len(watch.states) == 2)
        assert watch.destinations == ["10.0.0.2:8000"]
        write(directory / "objectives.yaml", objective("a", 1))
        await wait_until(lambda: len(watch.states) == 3)
        assert list(watch.states[-1].objectives) == ["a"]
        (directory / "objectives.yaml").unlink()
        await wait_until(lambda: len(watch.states) == 4)
        assert watch.states[3] == watch.states[1]
    assert watch.errors == 0


async def test_what_makes_no_difference_is_not_told(directory: Path, watching: Watching) -> None:
    async with watching(directory) as watch:
        write(directory / "endpoints.yaml", "# a comment\n" + endpoints({"a": "10.0.0.1"}))
        await watch.look_again()
        os.utime(directory / "pool.yaml", ns=(1, 1))
        await watch.look_again()
        (directory / "pool.yaml").rename(directory / "renamed.yaml")
        await watch.look_again()
    assert len(watch.states) == 1
    assert watch.errors == 0


async def test_a_broken_change_is_rejected_once_and_as_a_whole(
    directory: Path, watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(directory) as watch:
        write(directory / "objectives.yaml", objective("a", 1))
        write(directory / "endpoints.yaml", "endpoints: [")
        await wait_until(lambda: watch.errors == 1)
        await watch.look_again()
        os.utime(directory / "endpoints.yaml", ns=(1, 1))
        await watch.look_again()
        assert watch.errors == 1
        assert len(watch.states) == 1
        write(directory / "endpoints.yaml", "endpoints: {")
        await wait_until(lambda: watch.errors == 2)
        write(directory / "endpoints.yaml", endpoints({"a": "10.0.0.1"}))
        await wait_until(lambda: len(watch.states) == 2)
        assert list(watch.states[-1].objectives) == ["a"]
    rejections = [
        message for message in caplog.messages if message.startswith("manifests rejected")
    ]
    assert len(rejections) == watch.errors == 2
    assert f"{directory}/endpoints.yaml:2:1: not valid YAML" in rejections[0]


async def test_the_way_back_from_a_broken_change_is_seen(
    directory: Path, watching: Watching
) -> None:
    async with watching(directory) as watch:
        for count in (1, 2):
            write(directory / "pool.yaml", "x")
            await wait_until(lambda count=count: watch.errors == count)  # type: ignore[misc]
            write(directory / "pool.yaml", POOL)
            await watch.look_again()
    assert len(watch.states) == 1


async def test_a_file_that_is_written_slowly_is_not_read_half(
    directory: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part of the file would be taken if it were the whole: only its growth tells."""
    path = directory / "endpoints.yaml"
    text = endpoints({f"e{index}": f"10.0.1.{index}" for index in range(1, 4)})
    lines: list[str] = []
    real_scan = scan

    def write_a_line_and_scan(directories: Sequence[Path]) -> tuple[Entry, ...]:
        if lines:
            with path.open("a") as file:
                file.write(lines.pop(0))
        return real_scan(directories)

    monkeypatch.setattr("tests.discovery.test_files.scan", write_a_line_and_scan)
    async with watching(directory) as watch:
        await watch.look_again()
        lines.extend(text.splitlines(keepends=True)[1:])
        await wait_until(lambda: len(watch.states) == 2)
    assert [state.endpoints[-1].name for state in watch.states] == ["default/a", "default/e3"]
    assert watch.errors == 0


async def test_files_that_never_settle_are_read_in_the_end(
    directory: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_scan = scan
    count = 0

    def restless(directories: Sequence[Path]) -> tuple[Entry, ...]:
        nonlocal count
        count += 1
        return (*real_scan(directories), Entry("x", mtime_ns=count))

    monkeypatch.setattr(files, "_SETTLE_ROUNDS", 3)
    monkeypatch.setattr("tests.discovery.test_files.scan", restless)
    async with watching(directory) as watch:
        write(directory / "endpoints.yaml", endpoints({"a": "10.0.0.2"}))
        await wait_until(lambda: len(watch.states) == 2)
    assert watch.destinations == ["10.0.0.2:8000"]


async def test_a_file_cut_short_keeps_the_last_good_state(
    directory: Path, watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(directory) as watch:
        (directory / "endpoints.yaml").write_text("")
        await wait_until(lambda: watch.errors == 1)
        assert caplog.messages[-1] == (
            f"manifests rejected: {directory}/endpoints.yaml: the file is empty; expected "
            "manifests, or no such file"
        )
        (directory / "endpoints.yaml").write_text("# none at the moment\n")
        await wait_until(lambda: len(watch.states) == 2)
        assert watch.destinations == []


async def test_a_directory_that_vanishes_keeps_the_last_good_state(
    directory: Path, watching: Watching
) -> None:
    async with watching(directory) as watch:
        away = directory.with_name("away")
        os.rename(directory, away)
        await wait_until(lambda: watch.errors == 1)
        await watch.look_again()
        assert watch.errors == 1
        write(away / "endpoints.yaml", endpoints({"a": "10.0.0.2"}))
        away.rename(directory)
        await wait_until(lambda: len(watch.states) == 2)
        assert watch.destinations == ["10.0.0.2:8000"]
        shutil.rmtree(directory)
        await wait_until(lambda: watch.errors >= 2)
    assert len(watch.states) == 2


async def test_a_config_map_that_is_updated(tmp_path: Path, watching: Watching) -> None:
    """Kubernetes swaps one symlink that all files go through; the files' own links stay."""
    for version, address in ((1, "10.0.0.1"), (2, "10.0.0.2")):
        data = tmp_path / f"..{version}"
        data.mkdir()
        (data / "all.yaml").write_text(documents(POOL, endpoints({"a": address})))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "all.yaml").symlink_to("..data/all.yaml")
    async with watching(tmp_path) as watch:
        assert watch.destinations == ["10.0.0.1:8000"]
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await wait_until(lambda: len(watch.states) == 2)
        assert watch.destinations == ["10.0.0.2:8000"]
    assert watch.errors == 0


async def test_a_change_that_left_no_trace_is_found(
    directory: Path, watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes of one length within a tick of the file system's clock look like one."""
    monkeypatch.setattr(files, "_CONFIRM_S", 0.02)
    frozen = scan([directory])
    monkeypatch.setattr("tests.discovery.test_files.scan", lambda _directories: frozen)
    monkeypatch.setattr("epp.discovery.directory.scan", lambda _directories: frozen)
    async with watching(directory) as watch:
        (directory / "endpoints.yaml").write_text(endpoints({"a": "10.0.0.9"}))
        await wait_until(lambda: len(watch.states) == 2)
        assert watch.destinations == ["10.0.0.9:8000"]
        reads = 0

        def read(_directories: object) -> None:
            nonlocal reads
            reads += 1

        monkeypatch.setattr(files, "read_directories", read)
        await watch.look_again()
        assert reads == 0


async def test_without_load_the_first_state_is_told(directory: Path, watching: Watching) -> None:
    pool = directory / "pool.yaml"
    pool.write_text("kind: x")
    async with watching(directory, load=False) as watch:
        await wait_until(lambda: watch.errors == 1)
        await watch.look_again()
        assert watch.states == []
        write(pool, POOL)
        await wait_until(lambda: len(watch.states) == 1)
    assert watch.errors == 1


async def test_what_load_raised_is_not_told_again(directory: Path) -> None:
    write(directory / "pool.yaml", "kind: x")
    source = FileSource([directory], poll_interval_s=0.001)
    with pytest.raises(ManifestError):
        await source.load()
    watch = Watch()
    task = asyncio.create_task(source.run(watch))
    write(directory / "pool.yaml", POOL)
    await wait_until(lambda: len(watch.states) == 1)
    task.cancel()
    await asyncio.wait([task])
    assert watch.errors == 0


async def test_a_failed_load_keeps_what_was_loaded(directory: Path) -> None:
    source = FileSource([directory])
    before = await source.load()
    write(directory / "pool.yaml", "kind: x")
    with pytest.raises(ManifestError):
        await source.load()
    write(directory / "pool.yaml", POOL)
    assert await source.load() == before


async def test_dns_names_are_resolved_and_followed(directory: Path, watching: Watching) -> None:
    table = {"a.example": ["10.1.0.1"]}
    failures: list[str] = []

    async def lookup(name: str) -> Sequence[str]:
        if name not in table:
            raise OSError("no such name")
        return table[name]

    write(directory / "endpoints.yaml", endpoints({"a": "a.example", "b": "b.example"}))
    options = {"lookup": lookup, "resolve_interval_s": 0.01, "on_lookup_failure": failures.append}
    async with watching(directory, **options) as watch:
        assert watch.destinations == ["10.1.0.1:8000"]
        assert failures[0] == "b.example"
        table["a.example"] = ["10.1.0.2", "10.1.0.1"]
        await wait_until(lambda: len(watch.states) == 2)
        assert [endpoint.name for endpoint in watch.states[-1].endpoints] == [
            "default/a@10.1.0.1",
            "default/a@10.1.0.2",
        ]
        table["b.example"] = ["2001:db8::1"]
        await wait_until(lambda: len(watch.states) == 3)
        assert watch.destinations == ["10.1.0.1:8000", "10.1.0.2:8000", "[2001:db8::1]:8000"]
        table.clear()
        counted = len(failures)
        await wait_until(lambda: len(failures) >= counted + 4)
    assert len(watch.states) == 3
    assert watch.errors == 0


async def test_a_new_name_is_resolved_at_once(directory: Path, watching: Watching) -> None:
    asked: list[str] = []

    async def lookup(name: str) -> Sequence[str]:
        asked.append(name)
        return ["10.1.0.1"]

    async with watching(directory, lookup=lookup, resolve_interval_s=3600.0) as watch:
        write(directory / "endpoints.yaml", endpoints({"a": "a.example"}))
        await wait_until(lambda: len(watch.states) == 2)
        assert watch.destinations == ["10.1.0.1:8000"]
        await watch.look_again()
    assert asked == ["a.example"]


async def test_stopping_leaves_nothing_behind(directory: Path, watching: Watching) -> None:
    started = asyncio.Event()

    async def lookup(_name: str) -> Sequence[str]:
        started.set()
        await asyncio.Event().wait()
        return []

    write(directory / "endpoints.yaml", endpoints({"a": "a.example"}))
    async with watching(directory, load=False, lookup=lookup):
        await started.wait()
    await wait_until(lambda: len(asyncio.all_tasks()) == 1)


async def test_notes_are_logged_once(
    directory: Path, watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(directory / "service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x}\n")
    async with watching(directory) as watch:
        write(directory / "endpoints.yaml", endpoints({"a": "10.0.0.2"}))
        await wait_until(lambda: len(watch.states) == 2)
    assert caplog.messages == [
        "manifests accepted: pool default/llm, 0 objectives, 0 rewrite rules, 1 endpoint entries",
        f"manifests of other kinds ignored: Service default/x ({directory}/service.yaml:1)",
        "manifests accepted: pool default/llm, 0 objectives, 0 rewrite rules, 1 endpoint entries",
    ]
