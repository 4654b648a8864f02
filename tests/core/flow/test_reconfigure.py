"""Another configuration while requests wait and run."""

from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import BandOptions, CostOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.request import Outcome

from ..support import completed, request
from .traffic import STEPS, Traffic

_UNBOUNDED = FlowLimits(wait_limit_s=None, reject_hopeless=False)
_FAIR = FlowOptions(limits=_UNBOUNDED)
_STRICT = FlowOptions(
    limits=_UNBOUNDED, band=BandOptions(fairness="global-strict"), weights={"a": 3.0}, max_flows=2
)
_IN_TURN = FlowOptions(
    limits=FlowLimits(max_requests=3, wait_limit_s=5.0),
    band=BandOptions(fairness="round-robin", ordering="edf", wait_limit_s=6.0),
    bands={10: BandOptions(min_share=0.2)},
    cost=CostOptions(unit="slot-time"),
)
_ALL = (_FAIR, _STRICT, _IN_TURN)


def _reconfigure(traffic: Traffic, options: FlowOptions) -> None:
    flow, router = traffic.flow, traffic.harness.router
    flow.reconfigure(options, router.scheduler, traffic.harness.now)
    traffic._sort()


@given(
    steps=st.lists(
        st.one_of(STEPS.map(lambda steps: steps[:12]), st.sampled_from(_ALL)), max_size=8
    )
)
def test_nothing_is_lost_and_nothing_waits_that_could_go(
    steps: list[list[tuple[object, ...]] | FlowOptions],
) -> None:
    traffic = Traffic(options=_FAIR, strict=False)
    for each in steps:
        if isinstance(each, FlowOptions):
            _reconfigure(traffic, each)
        else:
            for step in each:
                traffic.step(step)
                traffic.assert_work_conserving()
        traffic.assert_work_conserving()
        traffic.assert_sums()
    traffic.end_all()
    traffic.assert_sums()


def test_another_fairness_policy_orders_what_waits_already() -> None:
    traffic = Traffic([1], options=_STRICT)
    running = traffic.offer(request(fairness_id="x"))
    for tenant in "aabb":
        traffic.offer(request(fairness_id=tenant))
    _reconfigure(traffic, FlowOptions(limits=_UNBOUNDED, band=BandOptions(fairness="round-robin")))
    for _ in range(4):
        traffic.end(running, completed(1))
        (running,) = traffic.running
    assert [entry.request.flow.fairness_id for entry in traffic.order] == ["x", *"abab"]


def test_another_order_within_a_flow_holds_for_what_waits_already() -> None:
    traffic = Traffic([1], options=_FAIR)
    running = traffic.offer(request())
    for limit_s in (30.0, 10.0, 20.0):
        traffic.offer(request(wait_limit_s=limit_s))
    _reconfigure(traffic, FlowOptions(limits=_UNBOUNDED, band=BandOptions(ordering="edf")))
    for _ in range(3):
        traffic.end(running, completed(1))
        (running,) = traffic.running
    assert [entry.request.wait_limit_s for entry in traffic.order[1:]] == [10.0, 20.0, 30.0]


def test_a_shorter_budget_holds_for_what_waits_already() -> None:
    traffic = Traffic([1], options=_FAIR)
    traffic.offer(request())
    waits = traffic.offer(request())
    traffic.wait(3.0)
    _reconfigure(traffic, FlowOptions(limits=FlowLimits(wait_limit_s=5.0, reject_hopeless=False)))
    traffic.wait(1.9)
    assert waits.is_waiting
    traffic.wait(0.2)
    assert waits.waiter.outcome is Outcome.EXPIRED


def test_a_lower_bound_turns_newcomers_away_and_nobody_who_waits() -> None:
    traffic = Traffic([1], options=_FAIR)
    traffic.offer(request())
    early = [traffic.offer(request()) for _ in range(3)]
    limits = FlowLimits(max_requests=2, wait_limit_s=None, reject_hopeless=False)
    _reconfigure(traffic, FlowOptions(limits=limits))
    late = traffic.offer(request())
    assert late.waiter.outcome is Outcome.REJECTED_CAPACITY
    assert all(entry.is_waiting for entry in early)


def test_weights_hold_for_flows_that_there_are() -> None:
    traffic = Traffic([1], options=_FAIR)
    running = traffic.offer(request(fairness_id="x"))
    for tenant in "ab":
        for _ in range(60):
            traffic.offer(request(fairness_id=tenant, prompt_tokens=100))
    _reconfigure(traffic, FlowOptions(limits=_UNBOUNDED, weights={"a": 3.0}))
    for _ in range(40):
        traffic.end(running, completed(0))
        (running,) = traffic.running
    served = [entry.request.flow.fairness_id for entry in traffic.order[1:]]
    assert 28 <= served.count("a") <= 32


def test_what_holds_back_is_let_go_and_the_other_way_round() -> None:
    held = UsageLimitOptions(policy="static", ceiling=0.5)
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED, usage_limit=held), limit=4)
    for _ in range(4):
        traffic.offer(request())
    assert len(traffic.running) == 2
    _reconfigure(traffic, _FAIR)
    assert len(traffic.running) == 4
    _reconfigure(traffic, FlowOptions(limits=_UNBOUNDED, usage_limit=held))
    traffic.end(traffic.running[0])
    assert traffic.offer(request()).is_waiting


def test_a_change_is_no_traffic() -> None:
    """Nothing is kept back for a band that nobody has used."""
    held = UsageLimitOptions(policy="priority-holdback", ceiling=1.0, min_ceiling=0.0)
    holding = FlowOptions(limits=_UNBOUNDED, usage_limit=held)
    traffic = Traffic([1], options=_FAIR, limit=4)
    traffic.flow.keep_bands((0, 10))
    for _ in range(2):
        _reconfigure(traffic, holding)
        assert not traffic.offer(request()).is_waiting
    high = traffic.offer(request(10))
    _reconfigure(traffic, holding)
    traffic.end(high)
    _reconfigure(traffic, holding)
    low = traffic.offer(request())
    assert low.is_waiting, "there was some of it a moment ago"
    traffic.wait(61.0)
    assert not low.is_waiting


def test_eviction_can_be_switched_on_and_off() -> None:
    traffic = Traffic([1], options=_FAIR)
    unknown = traffic.offer(request(-1))
    _reconfigure(traffic, FlowOptions(limits=_UNBOUNDED, eviction=True))
    traffic.offer(request(10))
    assert not unknown.waiter.evictions, "it was dispatched before"
    traffic.end(unknown)
    traffic.end(traffic.running[0])
    victim = traffic.offer(request(-1))
    traffic.offer(request(10))
    assert len(victim.waiter.evictions) == 1
    traffic.end(victim)
    traffic.end(traffic.running[0])
    _reconfigure(traffic, _FAIR)
    spared = traffic.offer(request(-1))
    traffic.offer(request(10))
    assert not spared.waiter.evictions
