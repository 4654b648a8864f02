"""The metrics page against what happened in a real router."""

import random

from prometheus_client.parser import text_string_to_metric_families

from epp.core.claims import RequestClaims
from epp.core.flow import FlowLimits, FlowOptions
from epp.core.gate import Ending, Route
from epp.core.request import WAIT_OUTCOMES, FlowKey, Outcome, Request
from epp.core.resources import Endpoint, Objective, PoolResources, PoolSpec
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.observability.metrics import Metrics

from ..core.support import at_most

Labels = dict[str, str]


class Page:
    """A parsed metrics page."""

    def __init__(self, metrics: Metrics) -> None:
        self.samples = [
            sample
            for family in text_string_to_metric_families(metrics.render().decode())
            for sample in family.samples
        ]

    def value(self, name: str, /, **labels: str) -> float:
        """Return the sum of the samples with this name and at least these labels."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == f"llm_d_epp_{name}" and labels.items() <= sample.labels.items()
        ]
        assert found, f"no sample {name} {labels}"
        return sum(found)

    def label_sets(self, name: str) -> list[Labels]:
        return [s.labels for s in self.samples if s.name == f"llm_d_epp_{name}"]


class Waiter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcome: Outcome | None = None

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        self.outcome = Outcome.DISPATCHED

    def passed(self, destination: str, now: float) -> None:
        self.outcome = Outcome.DISPATCHED

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        self.outcome = outcome


def make(limits: FlowLimits | None = None) -> tuple[Metrics, Router, Timers]:
    metrics = Metrics()
    timers = Timers()
    router = Router(
        scheduler=LeastLoaded(),
        options=FlowOptions(limits=limits or FlowLimits()),
        make_detector=at_most(1),
        timers=timers,
        rng=random.Random(1),
        recorder=metrics.recorder("p"),
    )
    metrics.watch(lambda: 7, lambda: 100.0)
    metrics.follow_pool(router, None)
    return metrics, router, timers


RESOURCES = PoolResources(
    pool=PoolSpec(name="p"),
    objectives={"interactive": Objective(name="interactive", priority=10)},
    endpoints=(Endpoint(name="default/a", address="127.0.0.1", port=80),),
)


def test_the_page_is_there_before_the_first_resources() -> None:
    metrics, _, _ = make()
    page = Page(metrics)
    assert page.value("extproc_streams_inflight") == 7
    assert page.value("resources_reload_total", result="rejected") == 0
    assert page.value("info") == 1


def test_every_series_of_a_known_priority_is_zero_from_the_start() -> None:
    metrics, router, _ = make()
    router.apply(RESOURCES, 0.0)
    metrics.resources_applied(router)
    page = Page(metrics)
    for priority in ("0", "10"):
        assert page.value("request_total", priority=priority) == 0
        assert page.value("request_running", priority=priority) == 0
        assert page.value("flow_control_queue_size", priority=priority, inference_pool="p") == 0
        for outcome in WAIT_OUTCOMES:
            labels = {"priority": priority, "outcome": outcome.value, "inference_pool": "p"}
            assert page.value("flow_control_requests_total", **labels) == 0
            assert page.value("flow_control_request_queue_duration_seconds_count", **labels) == 0
    assert page.value("ready_endpoints", name="p") == 1
    assert page.value("flow_control_pool_saturation") == 0


def test_a_request_from_queue_to_end() -> None:
    metrics, router, _ = make()
    router.apply(RESOURCES, 0.0)
    metrics.resources_applied(router)
    claims = RequestClaims(objective="interactive", fairness_id="t", model="m", body_bytes=300)
    first = router.admit(claims, Waiter(), 95.0)
    second = router.admit(claims, Waiter(), 96.0)
    page = Page(metrics)
    flow = {"model_name": "m", "fairness_id": "t", "priority": "10"}
    assert page.value("request_running", **flow) == 1
    assert page.value("flow_control_queue_size", priority="10") == 1
    assert page.value("flow_control_queue_bytes", priority="10") == 300
    assert page.value("flow_control_queue_oldest_age_seconds", priority="10") == 4
    assert page.value("inflight_requests", endpoint_name="default/a") == 1
    assert page.value("endpoint_concurrency_limit", model_server_endpoint="127.0.0.1:80") == 1
    assert page.value("flow_control_pool_saturation", inference_pool="p") == 1
    assert page.value("flow_control_global_capacity_utilization_requests") == 1 / 10_000

    served = Ending(status=200, cause="complete", duration_s=5.0, response_bytes=1000)
    router.finish(first, served, 100.0)
    failed = Ending(status=500, cause="complete", duration_s=5.0, response_bytes=None)
    router.finish(second, failed, 101.0)
    page = Page(metrics)
    assert page.value("request_total", **flow) == 2
    assert page.value("request_running", **flow) == 0
    assert page.value("request_duration_seconds_sum", **flow) == 10
    assert page.value("request_size_bytes_sum", **flow) == 600
    assert page.value("response_size_bytes_sum", **flow) == 1000
    assert page.value("response_size_bytes_count", **flow) == 1
    assert page.value("request_error_total", error_code="500", **flow) == 1
    assert page.value("flow_control_requests_total", outcome="dispatched", priority="10") == 2
    waits = page.value(
        "flow_control_request_queue_duration_seconds_sum", outcome="dispatched", priority="10"
    )
    assert waits == 4


def test_refusals_and_aborts_are_errors_and_cancellations_are_not() -> None:
    metrics, router, timers = make(FlowLimits(wait_limit_s=1.0))
    router.apply(RESOURCES, 0.0)
    metrics.resources_applied(router)
    claims = RequestClaims(model="m")
    expiring = Waiter()
    running = router.admit(claims, Waiter(), 0.0)
    router.admit(claims, expiring, 0.0)
    leaving = router.admit(claims, Waiter(), 0.0)
    router.withdraw(leaving, 0.5)
    timers.run(1.0)
    assert expiring.outcome is Outcome.EXPIRED
    aborted = Ending(status=200, cause="aborted", duration_s=1.0, response_bytes=5)
    router.finish(running, aborted, 2.0)
    router.refused_early("too-large")
    page = Page(metrics)
    assert page.value("request_error_total", error_code="expired", model_name="m") == 1
    assert page.value("request_error_total", error_code="aborted", model_name="m") == 1
    assert {labels["error_code"] for labels in page.label_sets("request_error_total")} == {
        "expired",
        "aborted",
    }
    assert page.value("flow_control_requests_total", outcome="cancelled", priority="0") == 1
    assert page.value("request_refused_early_total", reason="too-large") == 1


def test_an_empty_pool_is_saturated() -> None:
    metrics, router, _ = make()
    router.apply(PoolResources(pool=PoolSpec(name="p")), 0.0)
    metrics.resources_applied(router)
    page = Page(metrics)
    assert page.value("ready_endpoints", name="p") == 0
    assert page.value("flow_control_pool_saturation", inference_pool="p") == 1


def test_label_sets_are_bounded_whatever_clients_send() -> None:
    metrics, _, _ = make()
    for number in range(3_000):
        flow = FlowKey(0, f"tenant-{number}")
        metrics.recorder("p").wait_ended(
            Request(flow=flow, model=f"model-{number}"), Outcome.DISPATCHED, 0.0
        )
    page = Page(metrics)
    labels = page.label_sets("request_total")
    assert len(labels) == 1_001
    assert page.value("request_total", fairness_id="other", model_name="other") == 2_000
    assert page.value("request_total") == 3_000


def test_a_model_that_is_called_as_those_without_series_are_is_counted_with_them() -> None:
    metrics, _, _ = make()
    for number in range(1_500):
        request = Request(flow=FlowKey(0, f"tenant-{number}"), model="other")
        metrics.recorder("p").wait_ended(request, Outcome.DISPATCHED, 0.0)
    page = Page(metrics)
    assert len(page.label_sets("request_total")) == 1_001
    assert page.value("request_total", fairness_id="other", model_name="other") == 500


def test_label_sets_are_bounded_whatever_priorities_there_are_in_the_course_of_time() -> None:
    metrics, _, _ = make()
    recorder = metrics.recorder("p")
    for priority in range(3_000):
        request = Request(flow=FlowKey(priority, "tenant"))
        recorder.wait_ended(request, Outcome.DISPATCHED, 0.0)
        recorder.evicted(request)
    page = Page(metrics)
    assert len(page.label_sets("request_total")) == 1_101
    assert page.value("request_total", priority="other") == 1_900
    assert page.value("request_total") == 3_000
    for name in ("flow_control_requests_total", "flow_control_evictions_total"):
        assert len(page.label_sets(name)) == 101
        assert page.value(name, priority="other") == 2_900


def test_reloads_and_failed_look_ups_are_counted() -> None:
    metrics, _, _ = make()
    metrics.resources_rejected()
    metrics.name_unresolved()
    page = Page(metrics)
    assert page.value("resources_reload_total", result="rejected") == 1
    assert page.value("endpoint_resolve_errors_total") == 1
