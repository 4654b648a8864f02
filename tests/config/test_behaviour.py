"""What a configuration says is what the flow control does."""

from epp.core.request import Outcome

from ..core.flow.offers import offer
from ..core.support import Harness, request
from .support import parse


def test_a_band_whose_wait_has_no_limit_waits_without_end() -> None:
    flow = parse("""
        flowControl:
          defaultRequestTTL: 1s
          priorityBands: [{priority: 1, requestTTL: 0s}, {priority: 2, requestTTL: 3s}]
        """).flow
    harness = Harness([1], options=flow)
    harness.occupy(1)
    waiters = {priority: offer(harness, request(priority))[0] for priority in (0, 1, 2)}
    own, ticket = offer(harness, request(1, wait_limit_s=5.0))
    assert ticket.deadline_s == harness.now + 5.0
    harness.clock.advance(2.0)
    assert waiters[0].outcome is Outcome.EXPIRED
    assert waiters[2].outcome is None
    harness.clock.advance(2.0)
    assert waiters[2].outcome is Outcome.EXPIRED
    harness.clock.advance(1e9)
    assert waiters[1].outcome is None
    assert own.outcome is Outcome.EXPIRED


def test_bounds_are_those_of_each_band() -> None:
    flow = parse("""
        flowControl:
          defaultPriorityBand: {maxRequests: 2}
          defaultNegativePriorityBand: {maxRequests: 1}
          priorityBands: [{priority: 5, maxRequests: 3}]
        """).flow
    harness = Harness([1], options=flow)
    harness.occupy(1)
    for priority, room in ((7, 2), (5, 3), (0, 2), (-1, 1)):
        waiters = [offer(harness, request(priority))[0] for _ in range(room + 1)]
        outcomes = [waiter.outcome for waiter in waiters]
        assert outcomes == [None] * room + [Outcome.REJECTED_CAPACITY]
