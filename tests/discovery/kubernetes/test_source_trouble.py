"""What a source does when the API server, or the source itself, is in trouble."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, objective, pod, pool
from tests.discovery.kubernetes.sourcing import serving, source_of
from tests.discovery.support import wait_until


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    async with ApiServer() as server:
        yield server


async def test_without_an_api_server_it_is_waited_for(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(pool())
    async with source_of(api, tmp_path) as served:
        await api.stop()
        loading = asyncio.create_task(served.source.load(served.told))
        await wait_until(lambda: "inferencepools" in caplog.text)
        assert not loading.done()
        assert served.told.calls == []
        await api.start()
        async with asyncio.timeout(10):
            await loading
        assert served.has()
    assert {record.levelno for record in caplog.records if "epp" in record.name} <= {
        logging.INFO,
        logging.WARNING,
    }


async def test_an_outage_changes_nothing(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    api.put(pod("one", "10.0.0.1"))
    async with serving(api, tmp_path) as served:
        served.told.take()
        await api.stop()
        api.put(pod("two", "10.0.0.2"))
        watches = served.source.statistics().watches
        await wait_until(lambda: all(sum(each.restarts.values()) for each in watches[:-1]))
        assert served.told.calls == []
        await api.start()
        await wait_until(lambda: served.has("one", "two"))
        assert [what for what, _, _ in served.told.calls] == ["changed"]


async def test_kinds_that_are_not_installed_are_none(api: ApiServer, tmp_path: Path) -> None:
    for kind in ("InferenceObjective", "InferenceModelRewrite"):
        api.uninstall("llm-d.ai/v1alpha2", kind)
    api.put(pool())
    api.put(objective("a", 3))
    async with serving(api, tmp_path) as served:
        assert list(served.told.pools["default/pool"].objectives) == ["a"]


async def test_what_is_forbidden_is_waited_for(
    api: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(pool())
    fault = api.fail(403, times=None, resource="pods")
    async with source_of(api, tmp_path) as served:
        loading = asyncio.create_task(served.source.load(served.told))
        await wait_until(lambda: fault.hits >= 3)
        assert not loading.done()
        fault.cancel()
        async with asyncio.timeout(10):
            await loading
        assert served.has()
    assert "may not list" in caplog.text


async def test_without_rights_to_objectives_and_rewrites_the_pool_is_served(
    api: ApiServer, tmp_path: Path
) -> None:
    api.put(pool())
    api.put(pod("one", "10.0.0.1"))
    api.put(objective("a", 3))
    faults = [
        api.fail(403, times=None, resource=kind)
        for kind in ("inferenceobjectives", "inferencemodelrewrites")
    ]
    async with serving(api, tmp_path) as served:
        assert served.has("one")
        assert served.told.pools["default/pool"].objectives == {}
        for fault in faults:
            fault.cancel()
        await wait_until(lambda: "a" in served.told.pools["default/pool"].objectives)


async def test_run_loads_what_was_not_loaded(api: ApiServer, tmp_path: Path) -> None:
    api.put(pool())
    async with source_of(api, tmp_path) as served:
        running = asyncio.create_task(served.source.run(served.told))
        await wait_until(served.has)
        running.cancel()
        await asyncio.wait([running])
        await wait_until(lambda: api.open_watches == [])


@pytest.mark.parametrize("is_loaded", [True, False])
async def test_a_failure_of_our_own_is_no_silence(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_loaded: bool
) -> None:
    async with source_of(api, tmp_path) as served:
        if is_loaded:
            await served.source.load(served.told)

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(served.source._view, "pools_changed", fail)
        api.put(pool())
        with pytest.raises(RuntimeError, match="a bug"):
            async with asyncio.timeout(10):
                await served.source.run(served.told)
        assert served.source._watching._tasks == set()


async def test_a_failure_while_changes_are_gathered_is_no_silence(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = asyncio.Event()

    async def sleep(_pause_s: float) -> None:
        await may_go_on.wait()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with source_of(api, tmp_path, sleep=sleep) as served:
        await served.source.load(served.told)
        running = asyncio.create_task(served.source.run(served.told))
        api.put(objective("a"))
        await wait_until(lambda: len(served.heard) == 1)
        followers = len(served.source._watching._tasks)
        monkeypatch.setattr(served.source._view, "pools_changed", fail)
        api.put(pool())
        await wait_until(lambda: len(served.source._watching._tasks) == followers - 1)
        may_go_on.set()
        with pytest.raises(RuntimeError, match="a bug"):
            async with asyncio.timeout(10):
                await running
