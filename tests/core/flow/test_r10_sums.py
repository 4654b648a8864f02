"""R8 to R10: exact deadlines, cancellation at once, one outcome each, and nothing left over."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.flow import BandOptions, CostOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.request import Outcome

from ..support import request
from .traffic import STEPS, Traffic

_OPTIONS = st.builds(
    FlowOptions,
    limits=st.builds(
        FlowLimits,
        max_requests=st.sampled_from([2, 1_000]),
        max_bytes=st.sampled_from([500, 1 << 30]),
        wait_limit_s=st.sampled_from([None, 3.0, 60.0]),
        no_endpoint_wait_limit_s=st.sampled_from([None, 1.0]),
    ),
    band=st.builds(
        BandOptions,
        max_requests=st.sampled_from([3, 1_000]),
        fairness=st.sampled_from(["weighted-fair", "round-robin", "global-strict"]),
        ordering=st.sampled_from(["fcfs", "edf", "slo-deadline"]),
        min_share=st.sampled_from([0.0, 0.3]),
        max_wait_s=st.sampled_from([None, 2.0]),
    ),
    cost=st.builds(CostOptions, unit=st.sampled_from(["tokens", "slot-time"])),
    usage_limit=st.builds(
        UsageLimitOptions,
        policy=st.sampled_from(["static", "priority-holdback", "soft-reflective-ceiling"]),
        ceiling=st.sampled_from([1.0, 0.5]),
    ),
    max_flows=st.sampled_from([1, 2, 1_000]),
    shared_flows=st.just(1),
)


@settings(max_examples=200)
@given(steps=STEPS, options=_OPTIONS, limit=st.integers(min_value=1, max_value=2))
def test_r10_all_that_is_counted_adds_up_under_any_interleaving(
    steps: list[tuple[object, ...]], options: FlowOptions, limit: int
) -> None:
    traffic = Traffic(options=options, limit=limit, strict=False)
    for step in steps:
        traffic.step(step)
        traffic.assert_sums()
    traffic.end_all()
    traffic.assert_sums()
    traffic.wait(61.0)  # that long the ceilings remember who had traffic
    traffic.harness.recorder.endings = [None] * len(traffic.order)  # type: ignore[list-item]
    traffic.harness.assert_at_rest()


@given(
    budgets_s=st.lists(st.floats(min_value=1e-6, max_value=100.0), min_size=1, max_size=30),
    cancelled=st.sets(st.integers(min_value=0, max_value=29)),
)
def test_r8_every_wait_ends_at_its_very_deadline(
    budgets_s: list[float], cancelled: set[int]
) -> None:
    traffic = Traffic([1], options=FlowOptions(limits=FlowLimits(reject_hopeless=False)))
    traffic.offer(request())
    entries = [traffic.offer(request(wait_limit_s=budget_s)) for budget_s in budgets_s]
    start_s = traffic.harness.now
    for number in sorted(cancelled):
        if number < len(entries):
            traffic.cancel(entries[number])
    traffic.wait(60.0)
    for number, entry in enumerate(entries):
        if number in cancelled:
            assert entry.waiter.outcome is None
        else:
            assert entry.waiter.outcome is Outcome.EXPIRED
            assert entry.waiter.decided_s == start_s + min(60.0, budgets_s[number])


@given(st.lists(st.integers(min_value=0, max_value=199), unique=True, max_size=200))
def test_r9_who_leaves_is_gone_at_once_and_was_never_charged(leaving: list[int]) -> None:
    options = FlowOptions(limits=FlowLimits(max_requests=200, max_bytes=200 * 10))
    traffic = Traffic([1], options=options)
    running = traffic.offer(request(0, "other"))
    entries = [
        traffic.offer(
            request(0, "abc"[n % 3], body_bytes=10, subset=[None, {1}, {1, 2}][n // 3 % 3])
        )
        for n in range(200)
    ]
    for number in leaving:
        traffic.cancel(entries[number])
        traffic.assert_sums()
    for _ in leaving:
        traffic.offer(request(0, "a", body_bytes=10))
    assert len(traffic.waiting) == 200
    assert traffic.flow.bands()[0].policy.virtual_time == 0.0
    flows = traffic.flow.bands()[0].flows
    assert all(flow.virtual_time == 0.0 for name, flow in flows.items() if name != "other")
    traffic.end(running)
    assert len(traffic.harness.timers) == 199


def test_r9_leaving_costs_the_same_however_many_wait() -> None:
    """Counted in steps of the heaps, not in seconds."""
    traffic = Traffic([1], options=FlowOptions(limits=FlowLimits(wait_limit_s=None)))
    traffic.offer(request())
    entries = [traffic.offer(request(0, f"flow-{number % 50}")) for number in range(2_000)]
    band = traffic.flow.bands()[0]
    (lane,) = band.lanes.values()
    for entry in entries[:1_900]:
        traffic.cancel(entry)
    assert len(lane._heap) <= 2 * 65
    assert sum(len(queue._heap) for queue in lane.queues.values()) <= 50 * 65
    assert math.isclose(band._weight, 50.0)
