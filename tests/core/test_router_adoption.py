"""The router: what another one, which is no more, has dispatched or let wait."""

import pytest

from epp.core.claims import RequestClaims
from epp.core.gate import Ending
from epp.core.request import Outcome

from .support import Harness, RecordingGateWaiter, destination

_ENDING = Ending(status=200, cause="complete", duration_s=1.0, response_bytes=None)


@pytest.mark.parametrize("number", [1, 7])
def test_what_another_has_dispatched_is_adopted(number: int) -> None:
    harness = Harness([1], objectives={"batch": -10})
    claims = RequestClaims(objective="batch")
    admissions = [
        harness.router.adopt(claims, destination(number), 990.0, RecordingGateWaiter())
        for _ in range(2)
    ]
    assert harness.recorder.adoptions == 2
    assert [admission.request.flow.priority for admission in admissions] == [-10, -10]
    standing = [(admission.is_waiting, admission.deadline_s) for admission in admissions]
    assert standing == [(False, None)] * 2
    waiter = RecordingGateWaiter()
    admission = harness.router.admit(RequestClaims(), waiter, harness.now)
    assert waiter.outcome is (None if number == 1 else Outcome.DISPATCHED)
    for adopted in admissions:
        harness.router.finish(adopted, _ENDING, harness.now)
    assert waiter.outcome is Outcome.DISPATCHED
    harness.router.finish(admission, _ENDING, harness.now)
    harness.assert_at_rest()


def test_who_was_adopted_can_fail_over() -> None:
    harness = Harness([1, 2])
    admission = harness.router.adopt(RequestClaims(), destination(9), 990.0, RecordingGateWaiter())
    harness.router.served_by(admission, destination(2), harness.now)
    assert [count for _, count, _ in harness.router.pool] == [0, 1]


def test_an_adopted_request_has_nothing_to_wait_for() -> None:
    harness = Harness([1])
    waiter = RecordingGateWaiter()
    admission = harness.router.adopt(RequestClaims(), destination(1), 990.0, waiter)
    lease, charge = admission.held_lease(), admission.held_charge()
    with pytest.raises(AssertionError, match="dispatched again"):
        admission.dispatched(lease, charge, 0.0, 0.0)
    with pytest.raises(AssertionError, match="was refused"):
        admission.refused(Outcome.EXPIRED, 1, 0.0)
    with pytest.raises(AssertionError, match="let pass"):
        admission._waiter.passed(destination(1), 0.0)


def test_a_wait_that_began_elsewhere_goes_on() -> None:
    harness = Harness([1])
    lease = harness.occupy(1)
    waiter = RecordingGateWaiter()
    since_s = harness.now - 59.0
    admission = harness.router.admit(RequestClaims(), waiter, harness.now, since_s)
    assert admission.deadline_s == harness.now + 1.0
    harness.clock.advance(0.5)
    harness.give_back(lease)
    assert waiter.waited_s == 59.5
