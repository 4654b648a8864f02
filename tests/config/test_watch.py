"""Watching a configuration's file."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from epp.config.watch import ConfigWatch
from epp.errors import UsageError


class _Log:
    """What a watch has told, with a way to wait for the next."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        return await asyncio.wait_for(self.told.get(), 10.0)


class _Watched:
    """A file and its watch; a file that begins with ``bad`` is no good."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("first")
        self.log = _Log()
        self.watch = ConfigWatch(path, self._read, poll_interval_s=0.02)

    def _read(self) -> str:
        try:
            text = self.path.read_text()
        except OSError as error:
            raise UsageError(f"cannot read: {error.strerror}") from error
        if text.startswith("bad"):
            raise UsageError(f"{text} is bad")
        return text

    async def run(self) -> None:
        def reject(error: UsageError) -> None:
            self.log.told.put_nowait(f"rejected: {error}")

        await self.watch.run(self.log.told.put_nowait, reject)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[_Watched]:
    watched = _Watched(tmp_path / "config.yaml")
    task = asyncio.create_task(watched.run())
    yield watched
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert watched.log.told.empty()


async def test_a_change_is_read_once(watched: _Watched) -> None:
    watched.path.write_text("second")
    assert await watched.log.next() == "second"
    watched.path.write_text("third")
    assert await watched.log.next() == "third"


async def test_the_same_content_is_no_change(watched: _Watched) -> None:
    watched.path.write_text("first")
    os.utime(watched.path, ns=(1, 1))
    watched.path.write_text("other")
    assert await watched.log.next() == "other"


async def test_what_is_no_good_is_told_once(watched: _Watched) -> None:
    watched.path.write_text("bad one")
    assert await watched.log.next() == "rejected: bad one is bad"
    watched.path.write_text("good again")
    assert await watched.log.next() == "good again"


async def test_a_file_that_vanishes_is_told_once_and_its_return_as_well(watched: _Watched) -> None:
    watched.path.unlink()
    assert await watched.log.next() == "rejected: cannot read: No such file or directory"
    watched.path.write_text("back")
    assert await watched.log.next() == "back"


async def test_a_symlink_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted ConfigMap."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(name)
    data = tmp_path / "data"
    data.symlink_to("one")
    log = _Log()
    path = data / "config.yaml"
    watch = ConfigWatch(path, path.read_text, poll_interval_s=0.02)
    task = asyncio.create_task(watch.run(log.told.put_nowait, lambda error: None))
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").replace(data)
    assert await log.next() == "two"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_poke_looks_now(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("first")
    log = _Log()
    watch = ConfigWatch(path, path.read_text, poll_interval_s=3600.0)
    task = asyncio.create_task(watch.run(log.told.put_nowait, lambda error: None))
    path.write_text("second")
    watch.poke()
    assert await log.next() == "second"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
