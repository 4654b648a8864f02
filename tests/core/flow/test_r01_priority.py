"""R1: strictly by priority, with the shares and the ages that may override it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import BandOptions, FlowLimits, FlowOptions
from epp.core.request import Outcome

from ..support import completed, request
from .traffic import STEPS, Traffic

_UNBOUNDED = FlowLimits(wait_limit_s=None, reject_hopeless=False)


@given(steps=STEPS, limit=st.integers(min_value=1, max_value=2))
def test_r1_r4_r5_r6_no_inversion_under_any_interleaving(
    steps: list[tuple[object, ...]], limit: int
) -> None:
    """The scheduler of the traffic insists on R1, R4 and R5 at each single dispatch."""
    traffic = Traffic(options=FlowOptions(), limit=limit)
    for step in steps:
        traffic.step(step)
        traffic.assert_work_conserving()
    traffic.end_all()


# minShare


def _backlog(traffic: Traffic, priorities: list[int], each: int) -> None:
    for priority in priorities:
        for _ in range(each):
            traffic.offer(request(priority))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.15, 0.25, 1 / 3, 0.5, 0.9])
def test_r1_min_share_is_that_share_and_no_more(share: float) -> None:
    options = FlowOptions(limits=_UNBOUNDED, bands={-10: BandOptions(min_share=share)})
    traffic = Traffic([1], options=options, strict=False)
    running = traffic.offer(request(0))
    _backlog(traffic, [0, -10], 500)
    for count in range(1, 401):
        traffic.end(running, completed(256))
        (running,) = traffic.running
        low = sum(entry.request.flow.priority == -10 for entry in traffic.order[1:])
        assert math.floor(share * count + 1e-6) - 1 <= low <= math.ceil(share * count) + 1
    assert traffic.harness.recorder.overrides == {(-10, "min-share"): low}


def test_r1_min_shares_of_several_bands_are_kept_together() -> None:
    low, lower = BandOptions(min_share=0.2), BandOptions(min_share=0.1)
    options = FlowOptions(limits=_UNBOUNDED, bands={-1: low, -2: lower})
    traffic = Traffic([1], options=options, strict=False)
    running = traffic.offer(request(0))
    _backlog(traffic, [0, -1, -2, -3], 300)
    for _ in range(200):
        traffic.end(running, completed(256))
        (running,) = traffic.running
    served = [entry.request.flow.priority for entry in traffic.order[1:]]
    assert [served.count(priority) for priority in (0, -1, -2, -3)] == [
        pytest.approx(140, abs=2),
        pytest.approx(40, abs=1),
        pytest.approx(20, abs=1),
        0,
    ]


def test_r1_a_band_that_does_not_wait_saves_up_no_more_than_one_turn() -> None:
    options = FlowOptions(limits=_UNBOUNDED, bands={-1: BandOptions(min_share=0.5)})
    traffic = Traffic([1, 2], options=options, strict=False)
    running = traffic.offer(request(0))
    traffic.set_limit(2, 0)
    for _ in range(20):
        traffic.offer(request(0))
    blocked = [traffic.offer(request(-1, subset={2})) for _ in range(5)]
    for _ in range(10):
        traffic.end(running)
        (running,) = traffic.running
    assert all(entry.is_waiting for entry in blocked)
    traffic.members([1])
    _backlog(traffic, [-1], 5)
    for _ in range(4):
        traffic.end(running)
        (running,) = traffic.running
    order = [entry.request.flow.priority for entry in traffic.order[-4:]]
    assert order == [-1, -1, 0, -1]


def test_r1_a_share_that_nobody_asks_for_is_used_by_others() -> None:
    options = FlowOptions(limits=_UNBOUNDED, bands={-1: BandOptions(min_share=0.5)})
    traffic = Traffic([1], options=options)
    running = traffic.offer(request(0))
    _backlog(traffic, [0], 20)
    for _ in range(20):
        traffic.end(running)
        (running,) = traffic.running
    assert not traffic.harness.recorder.overrides


# maxWait


def test_r1_max_wait_lets_the_oldest_go_next() -> None:
    options = FlowOptions(limits=_UNBOUNDED, bands={-1: BandOptions(max_wait_s=5.0)})
    traffic = Traffic([1], options=options, strict=False)
    running = traffic.offer(request(0))
    old = traffic.offer(request(-1))
    traffic.wait(1.0)
    younger = traffic.offer(request(-1))
    _backlog(traffic, [0], 10)
    traffic.wait(3.999)
    for expected in (0, -1, 0, -1):
        traffic.end(running)
        (running,) = traffic.running
        assert running.request.flow.priority == expected
        traffic.wait(0.4)
    assert [old.waiter.waited_s, younger.waiter.waited_s] == pytest.approx([5.399, 5.199])
    assert traffic.harness.recorder.overrides == {(-1, "max-wait"): 2}


def test_r1_max_wait_does_not_go_where_there_is_no_room() -> None:
    options = FlowOptions(limits=_UNBOUNDED, bands={-1: BandOptions(max_wait_s=5.0)})
    traffic = Traffic([1, 2], options=options, strict=False)
    first, second = traffic.offer(request(0, subset={1})), traffic.offer(request(0, subset={2}))
    old = traffic.offer(request(-1, subset={2}))
    high = traffic.offer(request(0))
    traffic.wait(10.0)
    traffic.end(first)
    assert (old.waiter.outcome, high.waiter.outcome) == (None, Outcome.DISPATCHED)
    traffic.end(second)
    assert old.waiter.outcome is Outcome.DISPATCHED


def test_r1_r2_who_goes_out_of_turn_does_not_make_newcomers_owe_what_it_owes() -> None:
    """One flow has had far more than its share, and its old requests go first: others who come
    still share evenly among each other."""
    band = BandOptions(max_wait_s=5.0)
    options = FlowOptions(limits=_UNBOUNDED, band=band)
    traffic = Traffic([1], options=options, strict=False)
    running = traffic.offer(request(0, "greedy", prompt_tokens=1_000_000))
    traffic.offer(request(0, "greedy", prompt_tokens=100))
    traffic.wait(4.0)
    for _ in range(50):
        traffic.offer(request(0, "patient", prompt_tokens=100), 256)
    traffic.wait(1.0)
    traffic.end(running)
    (running,) = traffic.running
    assert running.request.flow.fairness_id == "greedy"
    for _ in range(50):
        traffic.offer(request(0, "newcomer", prompt_tokens=100), 256)
    for _ in range(20):
        traffic.end(running)
        (running,) = traffic.running
    served = [entry.request.flow.fairness_id for entry in traffic.order[-20:]]
    assert served.count("newcomer") == pytest.approx(10, abs=1)
