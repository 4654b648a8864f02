"""The router: objectives that change while requests wait and run."""

from epp.core.claims import RequestClaims
from epp.core.flow import FlowOptions, UsageLimitOptions
from epp.core.gate import Ending
from epp.core.request import Outcome
from epp.core.router import RouterAdmission

from .support import Harness, RecordingGateWaiter, destination, resources

_ENDING = Ending(status=200, cause="complete", duration_s=1.0, response_bytes=None)


class _Pool:
    """A pool with one place at its only endpoint, which is taken."""

    def __init__(self, **objectives: int) -> None:
        self.harness = Harness([1], objectives=objectives)
        self.lease = self.harness.occupy(1)
        self.served: list[str] = []

    def admit(self, objective: str) -> RouterAdmission:
        waiter = RecordingGateWaiter(lambda: self.served.append(objective))
        claims = RequestClaims(objective=objective)
        return self.harness.router.admit(claims, waiter, self.harness.now)

    def apply(self, numbers: tuple[int, ...] = (1,), **objectives: int) -> None:
        self.harness.router.apply(resources(numbers, objectives), self.harness.now)

    def serve(self, admissions: list[RouterAdmission]) -> list[str]:
        """Let all go, one after the other, and end; return their objectives in that order."""
        self.harness.give_back(self.lease)
        while admissions:
            running = next(each for each in admissions if each.lease is not None)
            admissions.remove(running)
            self.harness.router.finish(running, _ENDING, self.harness.now)
        self.harness.assert_at_rest()
        return self.served


def test_another_priority_holds_for_those_who_wait_and_those_who_come() -> None:
    pool = _Pool(a=10, b=-10)
    admissions = [pool.admit(name) for name in ("b", "a", "")]
    pool.apply(a=10, b=20)
    admissions += [pool.admit("a"), pool.admit("b")]
    assert pool.serve(admissions) == ["b", "b", "a", "a", ""]


def test_an_objective_that_comes_or_goes_does_so_for_those_who_wait() -> None:
    pool = _Pool(a=10)
    admissions = [pool.admit(name) for name in ("new", "", "a", "new")]
    pool.apply(new=5)
    assert [band.requests for band in pool.harness.router.flow.bands()] == [2, 2]
    assert pool.serve(admissions) == ["new", "new", "", "a"]


def test_a_band_that_no_objective_asks_for_is_there_as_long_as_it_is_used() -> None:
    pool = _Pool(a=10)
    flow = pool.harness.router.flow
    running, waiting = pool.admit("a"), pool.admit("a")
    pool.harness.give_back(pool.lease)
    pool.apply(a=20)
    assert [(b.priority, b.requests, b.running) for b in flow.bands()] == [
        (20, 1, 0),
        (10, 0, 1),
        (0, 0, 0),
    ]
    for admission in (running, waiting):
        pool.harness.router.finish(admission, _ENDING, pool.harness.now)
    for priority in range(1_000):
        pool.apply(a=priority)
    assert [band.priority for band in flow.bands()] == [999, 0]
    pool.harness.assert_at_rest()


def test_those_who_came_before_the_first_resources_have_their_objective_then() -> None:
    harness = Harness(None)
    waiters = {name: RecordingGateWaiter() for name in ("", "a")}
    for name, waiter in waiters.items():
        harness.router.admit(RequestClaims(objective=name), waiter, harness.now)
    harness.router.apply(resources([1], {"a": 10}), harness.now)
    assert [waiter.outcome for waiter in waiters.values()] == [None, Outcome.DISPATCHED]


def test_what_is_the_same_shuffles_nothing() -> None:
    pool = _Pool(a=10, b=10)
    admissions = [pool.admit(name) for name in ("b", "a", "b")]
    requests = [admission.ticket.request for admission in admissions if admission.ticket]
    pool.apply(b=10, a=10)
    assert [each.ticket.request is request for each, request in
            zip(admissions, requests, strict=True) if each.ticket] == [True] * 3  # fmt: skip
    assert pool.serve(admissions) == ["b", "a", "b"]


def test_who_can_go_by_the_new_priorities_goes_to_the_new_endpoints() -> None:
    pool = _Pool(a=10, b=0)
    first, second = pool.admit("a"), pool.admit("b")
    pool.apply((2,), a=0, b=10)
    assert pool.served == ["b"]
    assert second.held_lease().destination == destination(2)
    assert first.is_waiting


def test_who_is_no_longer_kept_back_goes_at_once() -> None:
    held = UsageLimitOptions(policy="priority-holdback", ceiling=1.0, min_ceiling=0.5)
    harness = Harness(
        [1], objectives={"a": 10}, options=FlowOptions(usage_limit=held), max_concurrency=2
    )
    harness.router.admit(RequestClaims(objective="a"), RecordingGateWaiter(), harness.now)
    waiter = RecordingGateWaiter()
    harness.router.admit(RequestClaims(objective="b"), waiter, harness.now)
    assert waiter.outcome is None
    harness.router.apply(resources([1], {"a": 10, "b": 10}), harness.now)
    assert waiter.outcome is Outcome.DISPATCHED


def test_a_request_is_the_same_to_all_from_its_dispatch_to_its_end() -> None:
    pool = _Pool(a=10)
    admission = pool.admit("a")
    pool.apply(a=-5)
    pool.serve([admission])
    recorder = pool.harness.recorder
    assert [admission.request] == [told for told, _, _ in recorder.waits]
    assert recorder.ended_requests[0] is recorder.settlements[0][0] is recorder.waits[0][0]
    assert admission.request.flow.priority == -5
