"""What the metrics page says of the flow control, against what happened in a real router."""

import random
from functools import partial

import pytest

from epp.core.claims import RequestClaims
from epp.core.flow import BandOptions, CostOptions, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions, make_detector
from epp.core.gate import Ending
from epp.core.resources import Endpoint, PoolResources, PoolSpec
from epp.core.router import Router, RouterAdmission
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.observability.metrics import Metrics

from .test_metrics import Page, Waiter

POOL = PoolSpec(name="p")
ENDPOINT = Endpoint(name="default/a", address="127.0.0.1", port=80)


class World:
    """A router with one endpoint that takes one request at a time, and its metrics."""

    def __init__(self, *, endpoints: int = 1, options: FlowOptions | None = None) -> None:
        self.now = 0.0
        self.metrics = Metrics()
        self.router = Router(
            scheduler=LeastLoaded(),
            options=options or FlowOptions(cost=CostOptions(default_output_tokens=256)),
            make_detector=partial(make_detector, ConcurrencyOptions(max_requests=1)),
            timers=Timers(),
            rng=random.Random(1),
            recorder=self.metrics.recorder("p"),
        )
        self.metrics.watch(lambda: 0, lambda: self.now)
        self.metrics.follow_pool(self.router, None)
        self.router.apply(PoolResources(pool=POOL, endpoints=(ENDPOINT,) * endpoints), 0.0)

    def admit(self, tenant: str = "t", prompt_tokens: int = 100) -> RouterAdmission:
        claims = RequestClaims(fairness_id=tenant, model="m", prompt_tokens=prompt_tokens)
        return self.router.admit(claims, Waiter(), self.now)

    def finish(self, admission: RouterAdmission, output_tokens: int) -> None:
        ending = Ending(
            status=200,
            cause="complete",
            duration_s=1.0,
            response_bytes=None,
            output_tokens=output_tokens,
        )
        self.router.finish(admission, ending, self.now)

    def page(self) -> Page:
        return Page(self.metrics)


def test_a_closed_gate_says_why() -> None:
    world = World()
    world.admit()
    reasons = {labels["reason"] for labels in world.page().label_sets("flow_control_gate_closed")}
    assert reasons >= {"inflight", "waiting", "kv", "stale", "warming", "no-endpoints", "holdback"}
    assert "filtered" in reasons
    assert world.page().value("flow_control_gate_closed", priority="0") == 0
    world.admit()
    assert world.page().value("flow_control_gate_closed", priority="0", reason="inflight") == 1
    assert world.page().value("flow_control_gate_closed", priority="0") == 1


def test_an_empty_pool_is_a_reason_of_its_own() -> None:
    world = World(endpoints=0)
    world.admit()
    assert world.page().value("flow_control_gate_closed", priority="0", reason="no-endpoints") == 1


def test_cost_and_misjudgement_are_counted() -> None:
    world = World()
    first = world.admit(prompt_tokens=100)  # charged 100 + 2 x 256
    world.admit(prompt_tokens=100)
    assert world.page().value("flow_control_queue_cost", priority="0") == 612
    world.finish(first, output_tokens=10)
    page = world.page()
    assert page.value("flow_control_served_cost_total", fairness_id="t") == 120
    assert page.value("flow_control_misjudged_cost_total", fairness_id="t") == 612 - 120


def test_drain_rate_and_estimated_wait() -> None:
    world = World()
    running = world.admit()
    waiting = [world.admit() for _ in range(40)]
    for admission in [running, *waiting[:20]]:
        world.now += 1.0
        world.finish(admission, output_tokens=256)
    page = world.page()
    assert page.value("flow_control_drain_rate", priority="0") == pytest.approx(1.0, rel=0.05)
    assert page.value("flow_control_queue_size", priority="0") == 19
    wait_s = page.value("flow_control_estimated_wait_seconds", priority="0")
    assert wait_s == pytest.approx(19.0, rel=0.05)


def test_two_equal_flows_are_served_alike() -> None:
    world = World()
    running = [world.admit("a")]
    waiting = {tenant: [world.admit(tenant) for _ in range(20)] for tenant in "ab"}
    for _ in range(20):
        world.now += 1.0
        world.finish(running.pop(), output_tokens=256)
        running = [a for each in waiting.values() for a in each if a.lease and a.lease.slot >= 0]
    page = world.page()
    assert page.value("flow_control_fairness_index", priority="0") == pytest.approx(1.0, abs=0.02)
    assert page.value("flow_control_flow_queue_size", fairness_id="a") + page.value(
        "flow_control_flow_queue_size", fairness_id="b"
    ) == page.value("flow_control_queue_size", priority="0")
    lags = [
        s.value for s in page.samples if s.name == "llm_d_epp_flow_control_flow_virtual_time_lag"
    ]
    assert len(lags) == 2
    assert all(abs(lag) <= 612 for lag in lags)


def test_flows_without_a_place_on_the_page_are_added_up() -> None:
    world = World()
    for number in range(150):
        world.admit(f"tenant-{number}")
    page = world.page()
    assert len(page.label_sets("flow_control_flow_queue_size")) == 101
    assert page.value("flow_control_flow_queue_size", fairness_id="other") == 49
    assert page.value("flow_control_flow_queue_size") == 149


def test_dispatches_out_of_turn_are_counted_by_their_rule() -> None:
    world = World(options=FlowOptions(bands={-1: BandOptions(max_wait_s=5.0)}))
    world.router.flow.keep_bands((-1,))
    world.router.recorder.overridden(-1, "max-wait")
    page = world.page()
    assert page.value("flow_control_out_of_turn_total", priority="-1", rule="max-wait") == 1


def test_a_band_tells_how_full_it_is() -> None:
    world = World(options=FlowOptions(band=BandOptions(max_requests=10)))
    for _ in range(6):
        world.admit()
    assert world.page().value("flow_control_capacity_utilization_requests", priority="0") == 0.5
