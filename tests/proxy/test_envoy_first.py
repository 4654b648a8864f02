"""Envoy's file has an endpoint before the core does."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from epp.core.resources import Endpoint, EndpointChanges, PoolResources, PoolSpec
from epp.errors import UsageError
from epp.proxy.envoy_first import EnvoyFirst

from ..e2e.support import eventually

POOL = PoolSpec(name="pool", target_ports=(8000,))


def endpoint(number: int, **labels: str) -> Endpoint:
    return Endpoint(name=f"default/{number}", address=f"10.0.0.{number}", port=8000, labels=labels)


def state(*numbers: int, pool: PoolSpec = POOL) -> PoolResources:
    return PoolResources(pool=pool, endpoints=tuple(map(endpoint, numbers)))


class Core:
    """Who hears of it last; notes what Envoy's file said at that moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pools: dict[str, dict[str, Endpoint]] = {}
        self.surprises: list[str] = []
        self.rejections = 0

    def pool_applied(self, resources: PoolResources) -> None:
        self.pools[resources.pool.key] = {}
        self._take(resources.pool.key, resources.endpoints)

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        for destination in changes.gone:
            self.pools[key].pop(destination, None)
        self._take(key, changes.present)

    def pool_gone(self, key: str) -> None:
        del self.pools[key]

    def rejected(self) -> None:
        self.rejections += 1

    def _take(self, key: str, endpoints: tuple[Endpoint, ...]) -> None:
        known = written(self.path) if self.path.exists() else None
        for each in endpoints:
            self.pools[key][each.destination] = each
            if known is not None and each.address not in known:
                self.surprises.append(each.address)

    def numbers(self, key: str = POOL.key) -> set[int]:
        return {int(each.address.rpartition(".")[2]) for each in self.pools[key].values()}


def written(path: Path) -> set[str]:
    return set(re.findall(r"10\.0\.0\.\d+", path.read_text()))


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return Core(tmp_path / "eds.json")


@pytest.fixture
async def envoy(core: Core) -> AsyncIterator[EnvoyFirst]:
    first = EnvoyFirst(core, core.path)
    first.pool_applied(state(1, 2))
    assert core.numbers() == {1, 2}  # nobody has asked for anything yet
    first.start()
    yield first
    first.stop()
    assert core.surprises == []


async def test_a_new_endpoint_is_written_first(core: Core, envoy: EnvoyFirst) -> None:
    assert written(core.path) == {"10.0.0.1", "10.0.0.2"}
    envoy.pool_applied(state(2, 3))
    assert core.numbers() == {2}  # what has gone goes at once
    await eventually(lambda: core.numbers() == {2, 3})
    assert written(core.path) == {"10.0.0.2", "10.0.0.3"}


async def test_changes_of_endpoints_come_in_the_same_way(core: Core, envoy: EnvoyFirst) -> None:
    relabelled = endpoint(1, gpu="l4")
    changes = EndpointChanges(present=(relabelled, endpoint(3)), gone=(endpoint(2).destination,))
    envoy.endpoints_changed(POOL.key, changes)
    assert core.pools[POOL.key] == {relabelled.destination: relabelled}
    await eventually(lambda: core.numbers() == {1, 3})
    assert written(core.path) == {"10.0.0.1", "10.0.0.3"}


async def test_what_goes_before_its_time_never_comes(core: Core, envoy: EnvoyFirst) -> None:
    envoy.endpoints_changed(POOL.key, EndpointChanges(present=(endpoint(3), endpoint(4))))
    await eventually(lambda: "10.0.0.3" in written(core.path))
    envoy.endpoints_changed(POOL.key, EndpointChanges(gone=(endpoint(3).destination,)))
    await eventually(lambda: 4 in core.numbers())
    assert core.numbers() == {1, 2, 4}
    await eventually(lambda: "10.0.0.3" not in written(core.path))


async def test_an_endpoint_that_comes_back_is_new(core: Core, envoy: EnvoyFirst) -> None:
    envoy.endpoints_changed(POOL.key, EndpointChanges(gone=(endpoint(1).destination,)))
    await eventually(lambda: "10.0.0.1" not in written(core.path))
    envoy.endpoints_changed(POOL.key, EndpointChanges(present=(endpoint(1),)))
    assert core.numbers() == {2}
    await eventually(lambda: core.numbers() == {1, 2})


async def test_the_file_has_the_endpoints_of_all_pools(core: Core, envoy: EnvoyFirst) -> None:
    other = replace(POOL, name="other")
    envoy.pool_applied(state(7, pool=other))
    assert core.numbers(other.key) == set()
    await eventually(lambda: core.numbers(other.key) == {7})
    assert written(core.path) == {"10.0.0.1", "10.0.0.2", "10.0.0.7"}
    envoy.pool_gone(other.key)
    assert other.key not in core.pools
    await eventually(lambda: "10.0.0.7" not in written(core.path))


async def test_many_changes_are_few_writes(
    core: Core, envoy: EnvoyFirst, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []
    monkeypatch.setattr(
        "epp.proxy.envoy_first.write_eds", lambda path, endpoints: writes.append(len(endpoints))
    )
    for number in range(10, 110):
        envoy.endpoints_changed(POOL.key, EndpointChanges(present=(endpoint(number),)))
        await asyncio.sleep(0)
    monkeypatch.setattr(core, "path", Path("/nowhere"))
    await eventually(lambda: len(core.numbers()) == 102)
    assert len(writes) <= 2


async def test_a_file_that_cannot_be_written_is_told(
    core: Core, envoy: EnvoyFirst, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="cannot write --eds-file"):
        EnvoyFirst(core, tmp_path / "none" / "eds.json").start()
    core.path.unlink()
    core.path.mkdir()
    envoy.endpoints_changed(POOL.key, EndpointChanges(present=(endpoint(3),)))
    core.path = tmp_path / "other"
    await eventually(lambda: core.numbers() == {1, 2, 3})  # traffic goes on
    assert "the endpoints could not be handed to Envoy" in caplog.text


async def test_bad_resources_are_passed_on(core: Core, envoy: EnvoyFirst) -> None:
    envoy.rejected()
    assert core.rejections == 1
