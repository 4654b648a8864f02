"""Bands: whose turn it is, one lane for each set of candidates, nothing left behind."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import Band, BandOptions, Ticket
from epp.core.flow.band import Lane

from ..support import RecordingWaiter, request

_TTL_S = 60.0


def _band(max_flows: int = 1_000, shared_flows: int = 4, **options: object) -> Band:
    return Band(
        0,
        BandOptions(**options),  # type: ignore[arg-type]
        weights={},
        max_flows=max_flows,
        shared_flows=shared_flows,
    )


def _add(band: Band, sequence: int, fairness_id: str = "a", **claims: object) -> Ticket:
    offered = request(0, fairness_id, body_bytes=10, **claims)  # type: ignore[arg-type]
    flow = band.flow(fairness_id)
    ticket = Ticket(offered, RecordingWaiter(), sequence, float(sequence), flow, 100)
    band.add(ticket, sequence + _TTL_S)
    return ticket


def _remove(band: Band, ticket: Ticket) -> None:
    ticket.is_waiting = False
    band.remove(ticket)


def _heads(band: Band) -> list[Ticket]:
    lanes = sorted(band.lanes.values(), key=Lane.first_entry)
    return [lane.first().head() for lane in lanes]


def test_the_heads_are_the_oldest_of_each_lane_in_order_of_arrival() -> None:
    band = _band()
    subsets: list[set[int] | None] = [{2}, None, {1}, {2}, None, {1, 2}]
    tickets = [_add(band, number, subset=subset) for number, subset in enumerate(subsets)]
    assert _heads(band) == [tickets[0], tickets[1], tickets[2], tickets[5]]
    _remove(band, tickets[0])
    _remove(band, tickets[2])
    assert _heads(band) == [tickets[1], tickets[3], tickets[5]]
    assert band.oldest() is tickets[1]


def test_youngest_goes_backwards_over_all_lanes_and_flows() -> None:
    band = _band()
    tickets = [_add(band, number, "abc"[number % 3], subset={number % 2}) for number in range(6)]
    assert list(band.youngest()) == tickets[::-1]
    _remove(band, tickets[1])
    _remove(band, tickets[5])
    assert list(band.youngest()) == [tickets[4], tickets[3], tickets[2], tickets[0]]


def test_an_empty_band_holds_nothing() -> None:
    band = _band()
    for ticket in [_add(band, number, "abc"[number % 3]) for number in range(9)]:
        _remove(band, ticket)
    assert (band.requests, band.bytes, band.cost, band.running) == (0, 0, 0, 0)
    left = (band.lanes, band.flows, band.arrivals, band._indebted, band._weight)
    assert not any(left)


@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=300))
def test_whoever_leaves_from_the_middle_the_rest_stays_in_order(leaving: list[int]) -> None:
    band = _band()
    waiting = [_add(band, number, "abc"[number % 3]) for number in range(200)]
    for index in leaving:
        if waiting:
            _remove(band, waiting.pop(index % len(waiting)))
    order = []
    while band.requests:
        order.append(_heads(band)[0])
        _remove(band, order[-1])
    assert order == waiting


def test_what_has_left_or_changed_its_rank_does_not_pile_up() -> None:
    band, rng = _band(ordering="slo-deadline"), random.Random(1)
    sequence = 0
    waiting = []
    for _ in range(50):
        waiting.append(_add(band, sequence, slo_ttft_s=rng.random()))
        sequence += 1
    for _ in range(5_000):
        waiting.append(_add(band, sequence, slo_ttft_s=rng.random()))
        sequence += 1
        _remove(band, waiting.pop(rng.randrange(len(waiting))))
    (lane,) = band.lanes.values()
    (queue,) = lane.queues.values()
    assert len(queue._heap) <= 128
    assert len(lane._heap) <= 65


def test_the_next_flows_of_a_lane_are_told_in_order_and_stay() -> None:
    band = _band()
    for number in range(5):
        _add(band, number, "abcde"[number])
        flow = band.flow("abcde"[number])
        band.raise_charge(flow, [30, 10, 50, 20, 40][number])
    (lane,) = band.lanes.values()
    assert [queue.flow.id for queue in lane.in_order(3)] == ["b", "d", "a"]
    assert [queue.flow.id for queue in lane.in_order(16)] == ["b", "d", "a", "e", "c"]
    assert lane.first().flow.id == "b"


def test_r3_a_new_deadline_is_a_new_place() -> None:
    class Timer:
        def __init__(self, deadline_s: float) -> None:
            self.deadline_s = deadline_s

    band = _band(ordering="edf")
    first, second, gone = (_add(band, number) for number in range(3))
    _remove(band, gone)
    assert _heads(band) == [first]
    first.timer, second.timer = Timer(90.0), Timer(80.0)  # type: ignore[assignment]
    band.deadlines_changed()
    assert _heads(band) == [second]


# R16: bounded flows


def test_r16_more_flows_than_are_told_apart_share_some() -> None:
    band = _band(max_flows=100, shared_flows=8)
    tickets = [_add(band, number, f"id-{number}") for number in range(10_000)]
    assert len(band.flows) == 108
    assert sum(flow.requests for flow in band.flows.values()) == 10_000
    assert [band.flow("id-5").id, band.flow("shared-3").id] == ["id-5", "shared-3"]
    late = band.flow("id-9999")
    assert late.id.startswith("shared-")
    assert late is tickets[9999].flow
    for ticket in tickets:
        _remove(band, ticket)
    assert not band.flows


def test_r16_what_idle_flows_owe_takes_bounded_room() -> None:
    band = _band(max_flows=100, shared_flows=8)
    _add(band, 0, "waits")
    for number in range(5_000):
        flow = band.flow(f"id-{number % 500}")
        band.admit(flow, 100)
        band.settle(flow, 100, 150)
    assert len(band.flows) <= 108
    assert len(band._indebted) <= 2 * 108


# Fairness as a number


@pytest.mark.parametrize(
    ("charges", "expected"), [((300, 300), 1.0), ((300, 0), 0.5), ((300, 100), 0.8)]
)
def test_fairness_is_jains_index(charges: tuple[int, int], expected: float) -> None:
    band = _band()
    for number, charge in enumerate(charges):
        _add(band, number, "ab"[number])
        band.raise_charge(band.flow("ab"[number]), charge)
    band.flow("b").backlogged_s = 0.0  # both since the same moment
    assert band.fairness(0.5) is None
    assert band.fairness(10.0) == pytest.approx(expected)
