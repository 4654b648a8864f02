"""R4 to R6: capacity is taken at once, by whoever can use it, and never left unused."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import FlowLimits, FlowOptions
from epp.core.pool import Mask, Pool
from epp.core.request import Outcome, Request
from epp.core.scheduling import LeastLoaded

from ..support import Harness, at_most, destination, request
from .offers import offer, outcomes, wait
from .traffic import Traffic

_PATIENT = FlowLimits(wait_limit_s=None, reject_hopeless=False)


@given(
    st.lists(
        st.tuples(st.sampled_from(["offer", "end", "limit"]), st.integers(0, 2_000)), max_size=80
    )
)
def test_r4_tokens_in_flight_pass_their_limit_by_one_request_at_most(
    steps: list[tuple[str, int]],
) -> None:
    harness = Harness([1], limits=_PATIENT, detector=at_most(1_000, max_tokens=4_000))
    waiters = []
    for step, number in steps:
        running = [w for w in waiters if w.lease is not None and not w.lease.is_released]
        if step == "offer":
            waiters.append(offer(harness, request(prompt_tokens=number))[0])
        elif step == "end" and running:
            harness.finish(running[number % len(running)])
        tokens = [
            w.request.prompt_tokens
            for w in waiters
            if w.lease is not None and not w.lease.is_released
        ]
        assert sum(tokens) - max(tokens, default=0) < 4_000
        assert None not in outcomes(waiters) or sum(tokens) >= 4_000


def test_r4_a_limit_that_shrinks_ends_nothing_and_lets_nothing_in() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_PATIENT), limit=3)
    for _ in range(5):
        traffic.offer(request())
    traffic.set_limit(1, 1)
    assert len(traffic.running) == 3
    traffic.end(traffic.running[0])
    traffic.end(traffic.running[0])
    assert (len(traffic.running), len(traffic.waiting)) == (1, 2)
    traffic.end(traffic.running[0])
    assert (len(traffic.running), len(traffic.waiting)) == (1, 1)


def test_r6_a_limit_that_grows_is_used_at_once() -> None:
    traffic = Traffic([1], options=FlowOptions(limits=_PATIENT))
    for _ in range(10):
        traffic.offer(request())
    traffic.set_limit(1, 6)
    assert (len(traffic.running), len(traffic.waiting)) == (6, 4)


class _Picky(LeastLoaded):
    """A scheduler with filters of its own: requests for a model go to its endpoint."""

    def __init__(self, homes: dict[str, str]) -> None:
        self.homes = homes
        self.asked = 0

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        slots = super().pick(request, pool, mask, now, rng)
        self.asked += 1
        home = self.homes.get(request.flow.fairness_id)
        return tuple(
            slot for slot in slots if home is None or pool.endpoint(slot).destination == home
        )


def test_r5_flows_whose_first_request_no_endpoint_takes_are_passed_over() -> None:
    harness = Harness([1, 2], scheduler=_Picky({"picky": destination(2)}))
    first, _ = harness.occupy(1), harness.occupy(2)
    picky, other, late = wait(harness, request(0, "picky"), request(0, "other"), request(0, "late"))
    harness.give_back(first)
    assert outcomes([picky, other, late]) == [None, Outcome.DISPATCHED, None]
    harness.finish(other)
    assert outcomes([picky, late]) == [None, Outcome.DISPATCHED]


@pytest.mark.parametrize("others", [10, 40])
def test_r5_only_so_many_are_looked_at(others: int) -> None:
    ids = [f"picky-{number}" for number in range(others)]
    scheduler = _Picky(dict.fromkeys(ids, destination(2)))
    harness = Harness([1, 2], scheduler=scheduler)
    first, _ = harness.occupy(1), harness.occupy(2)
    wait(harness, *(request(0, name) for name in ids))
    (able,) = wait(harness, request(0, "able"))
    scheduler.asked = 0
    harness.give_back(first)
    assert able.outcome is (Outcome.DISPATCHED if others == 10 else None)
    assert scheduler.asked <= 17


def test_r5_who_was_passed_over_keeps_its_virtual_time() -> None:
    traffic = Traffic([1, 2], options=FlowOptions(limits=_PATIENT))
    both = [traffic.offer(request(0, "x", subset={number}), 256) for number in (1, 2)]
    for _ in range(20):
        traffic.offer(request(0, "blocked", subset={2}), 256)
        traffic.offer(request(0, "free"), 256)
    running = both[0]
    for _ in range(8):
        traffic.end(running)
        (running,) = (e for e in traffic.running if e.waiter.destination == destination(1))
        assert running.request.flow.fairness_id == "free"
    second = both[1]
    for _ in range(8):
        traffic.end(second)
        (second,) = (e for e in traffic.running if e.waiter.destination == destination(2))
        assert second.request.flow.fairness_id == "blocked"


# R11: why the gate is closed


def test_r11_a_closed_gate_says_why() -> None:
    harness = Harness([], limits=_PATIENT)
    flow, pool = harness.router.flow, harness.router.pool
    (band,) = flow.bands()
    assert flow.closed_by(band) is None
    wait(harness, request())
    assert flow.closed_by(band) == "no-endpoints"
    harness.apply([1, 2, 3])
    for number in (1, 2, 3):
        if pool.with_room(pool.mask_of([destination(number)])).any():
            harness.occupy(number)
    wait(harness, request())
    assert flow.closed_by(band) == "inflight"
    for number, reason in ((1, "kv"), (2, "kv"), (3, "waiting")):
        slot = pool.slot_of(destination(number))
        assert slot is not None
        pool.set_limit(slot, 0, reason)
    assert flow.closed_by(band) == "kv"
    harness.apply([3])
    assert flow.closed_by(band) == "waiting"


def test_r11_a_request_that_waits_though_there_is_room_is_kept_by_a_filter() -> None:
    scheduler = _Picky({"picky": destination(2)})
    harness = Harness([1], scheduler=scheduler)
    wait(harness, request(0, "picky"))
    assert harness.router.flow.closed_by(harness.router.flow.bands()[0]) == "filtered"
