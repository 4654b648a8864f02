"""R17: other priorities for requests that run already."""

from epp.core.flow import FlowLimits, FlowOptions
from epp.core.request import Request

from ..support import completed, request
from .traffic import Entry, Traffic

_UNBOUNDED = FlowLimits(wait_limit_s=None, reject_hopeless=False)


def test_r17_what_runs_keeps_its_lease_and_is_settled_where_it_was_charged() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED))
    runs = traffic.offer(request(0, objective="x", prompt_tokens=100))
    charge = runs.waiter.charge
    traffic.reprioritise({"x": 10})
    assert traffic.pool.total_in_flight == 1
    assert charge is not None
    assert charge.band.priority == runs.request.flow.priority == 0
    traffic.end(runs, completed(5))
    assert traffic.harness.recorder.settlements == [(runs.request, 132, 110)]
    traffic.assert_sums()


def _evicting(*running: Request) -> tuple[Traffic, list[Entry]]:
    options = FlowOptions(limits=_UNBOUNDED, eviction=True)
    traffic = Traffic([1], options=options, limit=len(running))
    return traffic, [traffic.offer(each) for each in running]


def _evicted(traffic: Traffic, running: list[Entry]) -> list[int]:
    """Have one come that matters most; return the places of those who are ended for it."""
    traffic.offer(request(100))
    return [index for index, entry in enumerate(running) if entry.waiter.evictions]


def test_r17_who_runs_and_is_raised_to_0_is_not_evicted_until_it_is_lowered() -> None:
    traffic, running = _evicting(request(-1, objective="x"))
    traffic.reprioritise({"x": 0})
    assert _evicted(traffic, running) == []
    traffic.reprioritise({"x": -2})
    assert _evicted(traffic, running) == [0]


def test_r17_who_ran_with_a_priority_of_0_is_not_evicted_for_being_lowered() -> None:
    traffic, running = _evicting(request(0, objective="x"))
    traffic.reprioritise({"x": -1})
    assert _evicted(traffic, running) == []


def test_r17_who_is_lowest_by_now_is_evicted_first() -> None:
    traffic, running = _evicting(request(-2), request(-1, objective="x"), request(-3))
    traffic.reprioritise({"x": -5})
    assert _evicted(traffic, running) == [1]
    traffic.end(running[1])
    assert _evicted(traffic, running) == [1, 2]


def test_r17_who_waits_and_is_lowered_can_be_evicted_when_it_runs() -> None:
    traffic, running = _evicting(request(0))
    lowered = traffic.offer(request(0, objective="x"))
    traffic.reprioritise({"x": -1})
    traffic.end(running[0])
    assert _evicted(traffic, [lowered]) == [0]
