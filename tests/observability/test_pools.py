"""The metrics of several pools that come and go on one page."""

import random
from collections import Counter

import pytest

from epp.core.claims import RequestClaims
from epp.core.flow import FlowOptions
from epp.core.gate import Ending
from epp.core.request import FlowKey, Outcome, Request
from epp.core.resources import Endpoint, PoolResources, PoolSpec
from epp.core.router import Router
from epp.core.scheduling.default import default_scheduler
from epp.core.timers import Timers
from epp.observability.metrics import Metrics

from ..core.support import at_most
from .test_metrics import Page, Waiter

_ENDING = Ending(status=200, cause="complete", duration_s=1.0, response_bytes=10)


class Scrapes:
    """What a scraper tells."""

    def __init__(self, ok: int) -> None:
        self.results = Counter({"ok": ok, "timeout": 1})
        self.untold = Counter({"waiting": 0})
        self.page_bytes = 100 * ok
        self.fetch_s = 0.5

    def engine_at(self, destination: str) -> str:
        return "vllm"


class World:
    """Pools and their metrics."""

    def __init__(self, *names: str) -> None:
        self.metrics = Metrics()
        self.metrics.watch(lambda: 0, lambda: 10.0)
        self.routers: dict[str, Router] = {}
        for number, name in enumerate(names, 1):
            self.add(name, number)

    def add(self, name: str, number: int = 1, scrapes: Scrapes | None = None) -> Router:
        router = self.routers[name] = Router(
            scheduler=default_scheduler(),
            options=FlowOptions(),
            make_detector=at_most(2),
            timers=Timers(),
            rng=random.Random(1),
            recorder=self.metrics.recorder(name),
        )
        endpoint = Endpoint(name=f"default/{name}", address=f"10.0.0.{number}", port=80)
        router.apply(PoolResources(pool=PoolSpec(name=name), endpoints=(endpoint,)), 0.0)
        self.metrics.follow_pool(router, scrapes)
        self.metrics.resources_applied(router)
        return router

    def serve(self, name: str, count: int) -> None:
        router = self.routers[name]
        for _ in range(count):
            claims = RequestClaims(model="m", fairness_id="t")
            router.finish(router.admit(claims, Waiter(), 0.0), _ENDING, 1.0)

    def remove(self, name: str) -> None:
        del self.routers[name]
        self.metrics.forget_pool(f"default/{name}")

    def page(self) -> Page:
        text = self.metrics.render().decode()
        types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        helps = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
        assert max(Counter(types).values()) == 1
        assert max(Counter(helps).values()) == 1
        series = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
        assert max(Counter(series).values()) == 1
        return Page(self.metrics)


def test_each_pool_has_its_series_and_what_has_no_pool_is_the_sum() -> None:
    world = World("a", "b", "c")
    world.serve("a", 1)
    world.serve("b", 2)
    held = world.routers["b"].admit(RequestClaims(model="m", fairness_id="t"), Waiter(), 0.0)
    page = world.page()
    flow = {"model_name": "m", "fairness_id": "t", "priority": "0"}
    assert page.value("request_total", **flow) == 4
    assert page.value("request_running", **flow) == 1
    for name, dispatched in {"a": 1, "b": 3, "c": 0}.items():
        labels = {"inference_pool": name, "outcome": "dispatched"}
        assert page.value("flow_control_requests_total", **labels) == dispatched
        assert page.value("flow_control_queue_size", inference_pool=name) == 0
        assert page.value("ready_endpoints", name=name) == 1
        saturation = page.value("flow_control_pool_saturation", inference_pool=name)
        assert saturation == (0.5 if name == "b" else 0)
        running = page.value("inflight_requests", inference_pool=name)
        assert running == (1 if name == "b" else 0)
        assert page.value("prefix_indexer_size", inference_pool=name) == 0
        used = "flow_control_global_capacity_utilization_requests"
        assert page.value(used, inference_pool=name) == 0
    assert page.value("resources_reload_total", result="applied") == 3
    world.routers["b"].finish(held, _ENDING, 1.0)


def test_a_pool_is_followed_once_however_often_it_is_said() -> None:
    world = World("a")
    world.metrics.follow_pool(world.routers["a"], Scrapes(1))
    page = world.page()
    assert page.label_sets("ready_endpoints") == [{"name": "a"}]
    assert page.value("engine_scrapes_total", result="ok") == 1


def test_a_pool_that_is_gone_has_no_state_and_its_counters_go_on_when_it_is_back() -> None:
    world = World("a", "b")
    world.serve("a", 3)
    evicted = Request(flow=FlowKey(-1, "t"))
    world.routers["a"].recorder.evicted(evicted)
    world.remove("a")
    page = world.page()
    assert {each["inference_pool"] for each in page.label_sets("flow_control_queue_size")} == {"b"}
    assert {each["name"] for each in page.label_sets("ready_endpoints")} == {"b"}
    labels = {"inference_pool": "a", "outcome": "dispatched"}
    assert page.value("flow_control_requests_total", **labels) == 3
    world.add("a")
    world.serve("a", 1)
    world.routers["a"].recorder.evicted(evicted)
    page = world.page()
    assert page.value("flow_control_requests_total", **labels) == 4
    assert page.value("flow_control_evictions_total", inference_pool="a", priority="-1") == 2
    assert page.value("ready_endpoints", name="a") == 1


def test_series_stay_bounded_while_pools_come_and_go() -> None:
    world = World("stays")
    world.serve("stays", 1)
    for number in range(50):
        name = f"pool-{number}"
        world.add(name)
        world.serve(name, 1)
        world.remove(name)
        if number == 40:
            world.add("pool-40")
    page = world.page()
    pools = {each["inference_pool"] for each in page.label_sets("flow_control_requests_total")}
    last = {f"pool-{number}" for number in range(33, 50)}
    assert pools == {"stays"} | last
    assert page.value("request_total", model_name="m") == 51


@pytest.mark.parametrize("outcome", [Outcome.MODEL_NOT_FOUND, Outcome.POOL_NOT_FOUND])
def test_what_no_pool_is_found_for_is_counted_with_none(outcome: Outcome) -> None:
    world = World("a")
    assert world.page().value("request_refused_early_total", reason=outcome.value) == 0
    world.metrics.recorder().refused_early(outcome.value)
    page = world.page()
    assert page.value("request_refused_early_total", reason=outcome.value) == 1
    pools = {each["inference_pool"] for each in page.label_sets("flow_control_requests_total")}
    assert pools == {"a"}


def test_scrapes_of_all_pools_are_added_up_and_never_fall() -> None:
    world = World()
    for number, name in enumerate(("a", "b"), 1):
        world.add(name, number, Scrapes(number))
    world.add("not-scraped", 3)
    for gone in ("b", "a"):
        page = world.page()
        assert page.value("engine_scrapes_total", result="ok") == 3
        assert page.value("engine_scrapes_total", result="timeout") == 2
        assert page.value("engine_values_missing_total", value="waiting") == 0
        assert page.value("engine_scrape_bytes_total") == 300
        assert page.value("engine_scrape_seconds_total") == 1.0
        world.remove(gone)
    assert page.label_sets("engine_values_missing_total") == [{"value": "waiting"}]
    assert world.page().value("engine_scrapes_total", result="ok") == 3
