"""R17: other priorities for requests that wait already."""

from collections.abc import Hashable

import pytest

from epp.core.flow import BandOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.pool import Pool
from epp.core.request import FlowKey, Outcome, Request
from epp.core.scheduling import LeastLoaded

from ..support import Harness, destination, request
from .offers import offer
from .traffic import Traffic, full

_UNBOUNDED = FlowLimits(wait_limit_s=None, reject_hopeless=False)
_FREE = FlowOptions(limits=_UNBOUNDED)


def test_r17_who_is_raised_goes_before_those_who_are_not() -> None:
    traffic = full(_FREE)
    first = traffic.offer(request(5))
    traffic.wait(2.0)
    raised = traffic.offer(request(0, objective="x", body_bytes=3))
    traffic.wait(1.0)
    traffic.reprioritise({"x": 10})
    assert {band.priority: (band.requests, band.bytes) for band in traffic.flow.bands()} == {
        1_000: (0, 0), 10: (1, 3), 5: (1, 0), 0: (0, 0),
    }  # fmt: skip
    assert traffic.serve(2) == [raised, first]
    assert raised.waiter.waited_s == 1.0
    told = [told for told, _, _ in traffic.harness.recorder.waits]
    assert [told.flow.priority for told in told] == [1_000, 10, 5]


def test_r17_who_names_another_objective_or_none_stays_where_it_is() -> None:
    traffic = full(_FREE)
    stays = [traffic.offer(request(0, objective=name)) for name in ("", "y")]
    tickets = [entry.request for entry in stays]
    traffic.reprioritise({"x": 10})
    traffic.reprioritise({"y": 0})
    assert all(entry.request is ticket for entry, ticket in zip(stays, tickets, strict=True))
    assert [band.priority for band in traffic.flow.bands()] == [1_000, 0]


def test_r17_the_order_within_a_flow_is_that_of_all_arrivals() -> None:
    traffic = full(_FREE)
    names = ["x", "", "y", "x", "", "y"]
    entries = [traffic.offer(request({"": 0}.get(name, 5), objective=name)) for name in names]
    traffic.reprioritise({"x": 0, "y": 0})
    assert traffic.serve(6) == entries


def test_r17_flows_that_move_take_their_turns_by_arrival() -> None:
    traffic = full(FlowOptions(limits=_UNBOUNDED, band=BandOptions(fairness="round-robin")))
    entries = [
        traffic.offer(request(priority, tenant, objective="x"))
        for priority, tenant in ((0, "a"), (10, "b"), (0, "c"))
    ]
    traffic.reprioritise({"x": 5})
    assert traffic.serve(3) == entries


def test_r17_who_leaves_the_middle_of_its_flow_goes_in_its_own_turn() -> None:
    traffic = full(_FREE)
    stays, moves, last = [traffic.offer(request(0, objective=name)) for name in "yxy"]
    traffic.reprioritise({"x": -10})
    assert traffic.serve(3) == [stays, last, moves]


def test_r17_who_has_waited_for_longest_is_known_by_its_arrival() -> None:
    favoured = BandOptions(max_wait_s=5.0)
    traffic = full(FlowOptions(limits=_UNBOUNDED, bands={0: favoured}), strict=False)
    raised = traffic.offer(request(-10, objective="x"))
    traffic.wait(3.0)
    traffic.offer(request(10))
    traffic.offer(request(0))
    traffic.reprioritise({"x": 0})
    traffic.wait(2.0)
    assert traffic.serve(1) == [raised]


class _ByPriority(LeastLoaded):
    """Has each priority be of a kind of its own."""

    def kind(self, request: Request, pool: Pool) -> Hashable:
        return request.flow.priority


def test_r17_who_moves_stands_with_those_of_its_kind() -> None:
    harness = Harness([1], scheduler=_ByPriority())
    harness.occupy(1)
    _, ticket = offer(harness, request(0, objective="x"))
    harness.router.flow.reprioritise({"x": 10}, harness.now)
    assert ticket.lane == (None, 10)


def test_r17_two_objectives_exchange_their_priorities() -> None:
    traffic = full(_FREE)
    entries = [traffic.offer(request(priority, objective=name)) for priority, name in
               ((10, "x"), (0, "y"), (10, "x"), (0, "y"))]  # fmt: skip
    traffic.reprioritise({"x": 0, "y": 10})
    traffic.reprioritise({"x": 10, "y": 0})
    traffic.reprioritise({"x": 0, "y": 10})
    assert traffic.serve(4) == [entries[1], entries[3], entries[0], entries[2]]


def test_r17_a_full_band_takes_in_all_and_newcomers_when_it_has_drained() -> None:
    limits = FlowLimits(max_requests=4, wait_limit_s=None, reject_hopeless=False)
    traffic = full(FlowOptions(limits=limits, bands={10: BandOptions(max_requests=2)}))
    there = [traffic.offer(request(10)) for _ in range(2)]
    moved = [traffic.offer(request(0, objective="x")) for _ in range(2)]
    traffic.reprioritise({"x": 10})
    assert all(entry.is_waiting for entry in there + moved)
    traffic.serve(2)
    assert traffic.offer(request(10)).waiter.outcome is Outcome.REJECTED_CAPACITY
    traffic.serve(1)
    assert traffic.offer(request(10)).is_waiting


@pytest.mark.parametrize(
    ("own_s", "to", "over_after_s"),
    [(None, 10, 5.0), (3.0, 10, 3.0), (None, 20, 100.0), (70.0, 20, 70.0), (None, 5, 60.0)],
)
def test_r17_the_budget_is_that_of_the_new_band_from_the_arrival_on(
    own_s: float | None, to: int, over_after_s: float
) -> None:
    options = FlowOptions(
        bands={10: BandOptions(wait_limit_s=5.0), 20: BandOptions(wait_limit_s=100.0)}
    )
    traffic = full(options)
    entry = traffic.offer(request(0, objective="x", wait_limit_s=own_s))
    traffic.wait(2.0)
    traffic.reprioritise({"x": to})
    traffic.wait(over_after_s - 2.0 - 1e-3)
    assert entry.is_waiting
    traffic.wait(2e-3)
    assert entry.waiter.outcome is Outcome.EXPIRED
    assert traffic.harness.recorder.waits[-1][0].flow.priority == to
    traffic.assert_sums()


def test_r17_a_budget_that_is_over_by_the_new_band_ends_the_wait_once() -> None:
    traffic = full(FlowOptions(bands={10: BandOptions(wait_limit_s=5.0)}))
    entry = traffic.offer(request(0, objective="x"))
    traffic.wait(20.0)
    traffic.reprioritise({"x": 10})
    assert entry.is_waiting
    traffic.wait(0.0)
    assert entry.waiter.outcome is Outcome.EXPIRED


def test_r17_the_ends_of_budgets_order_by_the_new_band() -> None:
    bands = {10: BandOptions(ordering="edf", wait_limit_s=50.0)}
    traffic = full(FlowOptions(limits=_UNBOUNDED, bands=bands))
    late = traffic.offer(request(0, objective="x"))
    soon = traffic.offer(request(0, objective="x", wait_limit_s=10.0))
    traffic.reprioritise({"x": 10})
    assert traffic.serve(2) == [soon, late]


def test_r17_who_has_moved_can_go_away() -> None:
    traffic = full(_FREE)
    entries = [traffic.offer(request(0, objective="x", body_bytes=7)) for _ in range(3)]
    traffic.reprioritise({"x": 10})
    traffic.cancel(entries[1])
    traffic.assert_sums()
    traffic.reprioritise({"x": 0})
    traffic.cancel(entries[0])
    traffic.assert_sums()
    assert traffic.serve(1) == [entries[2]]


def test_r17_who_is_no_longer_kept_back_goes_at_once() -> None:
    held = UsageLimitOptions(policy="priority-holdback", ceiling=1.0, min_ceiling=0.5)
    traffic = Traffic([1], options=FlowOptions(limits=_UNBOUNDED, usage_limit=held), limit=2)
    traffic.offer(request(10))
    waits = traffic.offer(request(0, objective="x"))
    assert waits.is_waiting
    traffic.reprioritise({"x": 10})
    assert waits.waiter.destination == destination(1)


def test_r17_a_band_that_all_have_left_keeps_nothing_back_before_long() -> None:
    held = UsageLimitOptions(policy="priority-holdback", ceiling=1.0, min_ceiling=0.5)
    options = FlowOptions(limits=_UNBOUNDED, usage_limit=held)
    harness = Harness([1], options=options, max_concurrency=2)
    leases = [harness.occupy(1), harness.occupy(1)]
    waiter, _ = offer(harness, request(10, objective="x"))
    harness.router.flow.reprioritise({"x": 0}, harness.now)
    harness.give_back(leases[0])
    harness.clock.advance(59.0)
    assert waiter.outcome is None, "it had traffic a moment ago"
    harness.clock.advance(2.0)
    assert waiter.outcome is Outcome.DISPATCHED


def test_r17_a_flow_begins_in_its_new_band_with_what_all_are_taken_to_have_had() -> None:
    traffic = full(_FREE)
    for tenant in "ab":
        for _ in range(3):
            traffic.offer(request(5, tenant, prompt_tokens=100))
    traffic.serve(3)
    for _ in range(3):
        traffic.offer(request(0, "a", objective="x", prompt_tokens=100))
    moved = traffic.offer(request(0, "c", objective="x", prompt_tokens=100))
    traffic.reprioritise({"x": 5})
    tenants = [entry.request.flow.fairness_id for entry in traffic.serve(7)]
    assert tenants.index("c") <= 2, "it owes nothing"
    assert tenants[-2:] == ["a", "a"], "it has banked no credit, nor has a flow that was there"
    assert moved.request.flow == FlowKey(5, "c")


def test_r17_what_a_flow_owes_stays_in_the_band_where_it_was_served() -> None:
    traffic = full(_FREE)
    heavy = traffic.offer(request(0, "heavy", prompt_tokens=1_000))
    for _ in range(2):
        traffic.offer(request(0, "light", prompt_tokens=10))
    traffic.offer(request(0, "heavy", objective="x", prompt_tokens=10))
    assert traffic.serve(1) == [heavy]
    traffic.reprioritise({"x": -10})
    late = traffic.offer(request(0, "heavy", prompt_tokens=10))
    assert traffic.serve(3)[-1] is late


def test_r17_the_share_that_a_flow_gets_is_told_from_its_move_on() -> None:
    traffic = full(_FREE)
    for tenant in "ab":
        traffic.offer(request(0, tenant, objective="x"))
    traffic.wait(50.0)
    for tenant in "cd":
        traffic.offer(request(10, tenant))
    traffic.reprioritise({"x": 10})
    (band,) = [each for each in traffic.flow.bands() if each.priority == 10]
    assert {flow.backlogged_s for flow in band.flows.values()} == {traffic.harness.now}


def test_r17_each_band_drains_as_fast_as_what_waits_in_it_goes() -> None:
    traffic = full(_FREE)
    for _ in range(30):
        traffic.offer(request(0, objective="x"))
    for _ in range(10):
        traffic.wait(1.0)
        traffic.serve(1)
    traffic.reprioritise({"x": 10})
    for _ in range(10):
        traffic.wait(0.5)
        traffic.serve(1)
    rates = {
        band.priority: band.drain_rate.requests_per_s(traffic.harness.now)
        for band in traffic.flow.bands()
    }
    assert rates == {1_000: None, 10: pytest.approx(2.0, rel=0.1), 0: pytest.approx(1.0, rel=0.1)}
