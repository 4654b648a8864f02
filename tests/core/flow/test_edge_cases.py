"""What is rare: empty pools, long requests, takeovers, limits beyond all reason."""

import math

from epp.core.claims import RequestClaims
from epp.core.flow import BandOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.request import Outcome, Request

from ..support import (
    Harness,
    RecordingGateWaiter,
    RecordingWaiter,
    at_most,
    completed,
    destination,
    request,
)
from .offers import offer, outcomes


class _Busy:
    """One endpoint that serves one request of 1,000 tokens in each second."""

    def __init__(self, options: FlowOptions) -> None:
        self.harness = Harness(options=options)
        self.waiters: list[RecordingWaiter] = []

    def offer(self, offered: Request) -> RecordingWaiter:
        self.waiters.append(offer(self.harness, offered)[0])
        return self.waiters[-1]

    def serve(self, requests: int) -> None:
        for _ in range(requests):
            self.harness.clock.advance(1.0)
            running = next(each for each in self.waiters if each.outcome is Outcome.DISPATCHED)
            self.waiters.remove(running)
            self.harness.finish(running, completed(0))


def _served(tenant: str, prompt_tokens: int = 1_000, wait_limit_s: float | None = None) -> Request:
    return request(
        0,
        tenant,
        prompt_tokens=prompt_tokens,
        max_output_tokens=0,
        wait_limit_s=wait_limit_s,
    )


def test_r07_how_fast_a_pool_is_is_not_told_by_the_time_in_which_it_is_empty() -> None:
    limits = FlowLimits(wait_limit_s=60.0, no_endpoint_wait_limit_s=600.0)
    busy = _Busy(FlowOptions(limits=limits))
    for _ in range(50):
        busy.offer(_served("tenant"))
    busy.serve(20)
    busy.harness.apply([])
    busy.harness.clock.advance(55.0)
    busy.offer(_served("tenant"))
    busy.harness.apply([1])
    newcomers = [busy.offer(_served("tenant")) for _ in range(20)]
    assert outcomes(newcomers) == [None] * 20, "refused, though their turn comes in a minute"


def test_r07_who_comes_while_the_pool_is_empty_does_not_slow_it_down() -> None:
    limits = FlowLimits(wait_limit_s=60.0, no_endpoint_wait_limit_s=600.0)
    busy = _Busy(FlowOptions(limits=limits))
    for _ in range(20):
        busy.offer(_served("tenant"))
    busy.serve(20)
    busy.harness.apply([])
    for _ in range(30):
        busy.offer(_served("tenant"))
    busy.harness.clock.advance(55.0)
    busy.harness.apply([1])
    assert outcomes([busy.offer(_served("tenant")) for _ in range(20)]) == [None] * 20


def test_r07_a_long_request_is_not_refused_for_its_own_length() -> None:
    busy = _Busy(FlowOptions(band=BandOptions(wait_limit_s=math.inf)))
    for _ in range(3):
        for number in range(40):
            busy.offer(_served(f"tenant-{number}"))
    busy.serve(60)
    long = busy.offer(_served("newcomer", prompt_tokens=20_000, wait_limit_s=45.0))
    assert long.outcome is None
    while long.outcome is None:
        busy.serve(1)
    assert long.outcome is Outcome.DISPATCHED


def test_r11_what_is_taken_over_counts_with_its_tokens() -> None:
    harness = Harness(detector=at_most(100, 1_000))
    claims = RequestClaims(prompt_tokens=1_000)
    where = destination(1)
    adopted = harness.router.adopt(claims, where, harness.now, RecordingGateWaiter())
    waiter, _ = offer(harness, request(prompt_tokens=1))
    assert waiter.outcome is None
    harness.router.finish(adopted, completed(0), harness.now)
    assert waiter.outcome is Outcome.DISPATCHED
    harness.finish(waiter)
    assert not any(harness.router.pool._tokens)


def test_a_limit_beyond_all_reason_is_as_good_as_none() -> None:
    harness = Harness(max_concurrency=10**15)
    waiter, _ = offer(harness, request())
    assert waiter.outcome is Outcome.DISPATCHED


def test_r12_a_reflective_ceiling_keeps_nobody_waiting_where_nothing_else_happens() -> None:
    options = FlowOptions(usage_limit=UsageLimitOptions(policy="soft-reflective-ceiling"))
    harness = Harness(options=options, max_concurrency=4)
    high = [offer(harness, request(10))[0] for _ in range(3)]
    low, _ = offer(harness, request(0))
    assert low.outcome is None
    harness.clock.advance(1.0)
    assert low.outcome is Outcome.DISPATCHED
    for waiter in (*high, low):
        harness.finish(waiter)
    harness.clock.advance(61.0)
    assert len(harness.timers) == 0


def test_r12_what_has_left_the_queue_is_not_asked_for_again() -> None:
    options = FlowOptions(usage_limit=UsageLimitOptions(policy="soft-reflective-ceiling"))
    harness = Harness(options=options, max_concurrency=4)
    for _ in range(3):
        offer(harness, request(10))
    _, ticket = offer(harness, request(0, wait_limit_s=math.inf))
    assert ticket.is_waiting
    harness.router.flow.cancel(ticket, harness.now)
    harness.clock.advance(61.0)
    assert len(harness.timers) == 0


def test_r05_an_oldest_request_that_cannot_go_takes_max_wait_from_nobody() -> None:
    bands = {0: BandOptions(max_wait_s=2.0)}
    harness = Harness([1, 2], options=FlowOptions(bands=bands))
    harness.occupy(2)
    high = [offer(harness, request(10, subset=[1]))[0] for _ in range(4)]
    blocked, _ = offer(harness, request(0, subset=[2]))
    low, _ = offer(harness, request(0, subset=[1]))
    harness.clock.advance(2.0)
    harness.finish(high[0])
    assert low.outcome is Outcome.DISPATCHED
    assert blocked.outcome is None
