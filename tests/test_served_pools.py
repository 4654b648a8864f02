"""What hangs on each pool comes and goes with it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from epp.config import ServeOptions
from epp.core.claims import RequestClaims
from epp.core.flow.saturation import ConcurrencyOptions
from epp.core.request import Outcome
from epp.core.resources import (
    Endpoint,
    EndpointChanges,
    ModelTarget,
    PoolResources,
    PoolSpec,
    RewriteRule,
)
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.errors import UsageError
from epp.observability.metrics import Metrics
from epp.served_pools import ServedPools

from .core.support import RecordingGateWaiter

OPTIONS = ServeOptions(
    manifests=(), saturation=ConcurrencyOptions(max_requests=1), new_scheduler=LeastLoaded
)
FIRST, SECOND = (
    PoolSpec(name=name, target_ports=(1,), models=(name,)) for name in ("first", "second")
)


def endpoint(number: int) -> Endpoint:
    # Port 1 of loopback: whoever scrapes there is refused at once.
    return Endpoint(name=f"default/{number}", address=f"127.0.0.{number}", port=1)


def state(pool: PoolSpec, *numbers: int, **more: Any) -> PoolResources:
    return PoolResources(pool=pool, endpoints=tuple(map(endpoint, numbers)), **more)


@dataclass
class Hub:
    said: list[str] = field(default_factory=list)

    def announce_resources(self, resources: PoolResources) -> None:
        self.said.append(f"{resources.pool.key} {len(resources.endpoints)}")

    def announce_endpoints(self, key: str, changes: EndpointChanges) -> None:
        self.said.append(f"{key} +{len(changes.present)} -{len(changes.gone)}")

    def announce_gone(self, key: str) -> None:
        self.said.append(f"{key} gone")

    def announce_configuration(self) -> None:
        self.said.append("configuration")


class World:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.metrics.watch(lambda: 0, lambda: 0.0)
        self.changes = 0
        self.served = ServedPools(OPTIONS, Timers(), self.metrics, on_change=self._changed)
        self.hub = Hub()
        self.served.hub = self.hub  # type: ignore[assignment]

    def _changed(self) -> None:
        self.changes += 1

    async def page(self) -> str:
        return b"".join(self.metrics.pieces()).decode()

    def pool_of(self, model: str) -> str:
        router = self.served.pools.find(RequestClaims(model=model))
        assert router is not None
        assert router.spec is not None
        return router.spec.key


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.served.stop()


async def test_each_pool_has_its_own_and_loses_it(world: World) -> None:
    world.served.pool_applied(state(FIRST, 1))
    world.served.pool_applied(state(SECOND, 2, 3))
    assert [world.pool_of(name) for name in ("first", "second")] == [FIRST.key, SECOND.key]
    ready = 'llm_d_epp_ready_endpoints{name="%s"} %.1f'
    page = await world.page()
    assert ready % ("first", 1) in page
    assert ready % ("second", 2) in page
    assert world.changes == 2

    world.served.pool_gone(SECOND.key)
    assert set(world.served.pools.routers) == {FIRST.key}
    assert 'llm_d_epp_ready_endpoints{name="second"}' not in await world.page()
    assert world.changes == 3
    assert world.hub.said == ["default/first 1", "default/second 2", "default/second gone"]

    world.served.pool_applied(state(SECOND, 4))
    assert ready % ("second", 1) in await world.page()


async def test_changes_of_endpoints_reach_router_scraper_and_workers(world: World) -> None:
    world.served.pool_applied(state(FIRST, 1, 2))
    changes = EndpointChanges(present=(endpoint(3),), gone=(endpoint(1).destination,))
    world.served.endpoints_changed(FIRST.key, changes)
    pool = world.served.pools.routers[FIRST.key].pool
    assert {each.address for each, _, _ in pool} == {"127.0.0.2", "127.0.0.3"}
    scraper = world.served._scrapers[FIRST.key]
    assert set(scraper._targets) == {endpoint(2).destination, endpoint(3).destination}
    assert world.hub.said[-1] == "default/first +1 -1"


async def test_a_pool_without_endpoints_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "epp.served_pools")
    world.served.pool_applied(state(FIRST))
    world.served.pool_applied(state(FIRST))
    world.served.endpoints_changed(FIRST.key, EndpointChanges(present=(endpoint(1), endpoint(2))))
    world.served.endpoints_changed(FIRST.key, EndpointChanges(gone=(endpoint(1).destination,)))
    world.served.endpoints_changed(FIRST.key, EndpointChanges(gone=(endpoint(2).destination,)))
    world.served.pool_gone(FIRST.key)
    world.served.pool_applied(state(FIRST))
    told = [each.getMessage() for each in caplog.records if "ready" in each.getMessage()]
    empty = "no endpoint is ready, requests wait for one pool=default/first"
    assert told == [empty, "endpoints are ready again pool=default/first endpoints=2", empty, empty]


async def test_conversations_are_told_apart_while_any_pool_chooses(world: World) -> None:
    targets = (ModelTarget("a", 1), ModelTarget("b", 1))
    world.served.pool_applied(state(FIRST, 1))
    assert not world.served.claims.reads_conversation
    world.served.pool_applied(state(SECOND, 2, rewrites=(RewriteRule(targets=targets),)))
    assert world.served.claims.reads_conversation
    world.served.reconfigure(OPTIONS)
    assert world.served.claims.reads_conversation
    world.served.pool_gone(SECOND.key)
    assert not world.served.claims.reads_conversation


async def test_a_configuration_holds_for_all_pools_and_those_to_come(world: World) -> None:
    world.served.pool_applied(state(FIRST, 1))
    before = world.served.pools.routers[FIRST.key].scheduler
    world.served.reconfigure(replace(OPTIONS, saturation=ConcurrencyOptions(max_requests=7)))
    world.served.pool_applied(state(SECOND, 2))
    routers = world.served.pools.routers
    assert routers[FIRST.key].scheduler is not before
    assert [limit for router in routers.values() for _, _, limit in router.pool] == [7, 7]
    assert world.hub.said[-2:] == ["configuration", "default/second 1"]


async def test_a_configuration_whose_files_are_no_good_changes_nothing(
    world: World, tmp_path: Any
) -> None:
    world.served.pool_applied(state(FIRST, 1))
    router = world.served.pools.routers[FIRST.key]
    before = router.scheduler
    assert OPTIONS.scrape is not None
    scrape = replace(OPTIONS.scrape, scheme="https", ca_file=tmp_path / "none")
    with pytest.raises(UsageError):
        world.served.reconfigure(replace(OPTIONS, scrape=scrape))
    assert router.scheduler is before
    assert world.hub.said == ["default/first 1"]


async def test_a_pool_that_comes_while_credentials_are_replaced_has_the_last_good_ones(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("good")
    assert OPTIONS.scrape is not None
    options = replace(OPTIONS, scrape=replace(OPTIONS.scrape, bearer_token_file=token))
    served = ServedPools(options, Timers(), Metrics())
    token.unlink()
    served.pool_applied(state(FIRST, 1))
    served.pool_applied(state(SECOND, 2))
    assert list(served.pools.routers) == [FIRST.key, SECOND.key]
    await served.stop()


def test_credentials_that_are_no_good_at_the_start_are_told(tmp_path: Path) -> None:
    assert OPTIONS.scrape is not None
    scrape = replace(OPTIONS.scrape, bearer_token_file=tmp_path / "none")
    with pytest.raises(UsageError, match="none"):
        ServedPools(replace(OPTIONS, scrape=scrape), Timers(), Metrics())


async def test_who_waits_for_a_pool_that_goes_is_answered(world: World) -> None:
    world.served.pool_applied(state(FIRST, 1))
    world.served.pool_applied(state(SECOND, 2))
    waiters = [RecordingGateWaiter(), RecordingGateWaiter()]
    for waiter in waiters:
        world.served.pools.admit(RequestClaims(model="second"), waiter, 0.0)
    world.served.pool_gone(SECOND.key)
    assert [each.outcome for each in waiters] == [
        Outcome.DISPATCHED,
        Outcome.REJECTED_NO_ENDPOINTS,
    ]
    assert world.served.pools.waiting == 0
    assert world.served.pools.running == 1


async def test_a_plugin_that_fails_is_told_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.served.pool_applied(state(FIRST, 1))
    for _ in range(2):
        world.served._plugin_failed(ValueError("too bad"))
    assert caplog.text.count("a scheduling plugin has failed") == 1
    assert "llm_d_epp_scheduling_plugin_failures_total 2.0" in await world.page()
