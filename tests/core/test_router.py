"""The router: what a request is resolved to, and its way from the queue to the end of its lease."""

import random

import pytest
from msgspec import structs
from msgspec.structs import asdict

from epp.core.claims import RequestClaims
from epp.core.gate import Ending, Gate, Route
from epp.core.pool import EngineLoad, Lease, Mask, Pool
from epp.core.request import FlowKey, Outcome, Request
from epp.core.resources import EndpointChanges, ModelTarget, RewriteRule
from epp.core.router import DEFAULT_FAIRNESS_ID, RouterAdmission
from epp.core.scheduling import LeastLoaded
from epp.core.scheduling.plugin import Observer
from epp.core.timers import Timers

from .support import Harness, RecordingGateWaiter, destination, endpoint, request, resources

_OBJECTIVES = {"interactive": 10, "batch": -10, "default": 0}
_ENDING = Ending(status=200, cause="complete", duration_s=1.0, response_bytes=None)


def _admit(
    harness: Harness, objective: str = "", waiter: RecordingGateWaiter | None = None
) -> tuple[RecordingGateWaiter, RouterAdmission]:
    waiter = waiter or RecordingGateWaiter()
    claims = RequestClaims(objective=objective)
    return waiter, harness.router.admit(claims, waiter, harness.now)


def _pass(harness: Harness, *subset: int) -> RecordingGateWaiter:
    waiter = RecordingGateWaiter()
    hint = frozenset(map(destination, subset)) if subset else None
    harness.router.pass_by(RequestClaims(subset=hint), waiter, harness.now)
    return waiter


def _standing(admission: RouterAdmission) -> tuple[bool, float | None]:
    return admission.is_waiting, admission.deadline_s


@pytest.mark.parametrize(
    ("objective", "priority"), [("interactive", 10), ("batch", -10), ("unknown", 0), ("", 0)]
)
def test_the_priority_is_that_of_the_objective(objective: str, priority: int) -> None:
    harness = Harness([1], objectives=_OBJECTIVES)
    claims = RequestClaims(
        id="id",
        objective=objective,
        fairness_id="tenant",
        wait_limit_s=2.5,
        subset=frozenset({destination(1)}),
        model="m",
        body_bytes=7,
    )
    expected = Request(
        flow=FlowKey(priority, "tenant"),
        id="id",
        model="m",
        objective=objective,
        body_bytes=7,
        wait_limit_s=2.5,
        subset=frozenset({destination(1)}),
    )
    assert asdict(harness.router.resolve(claims)) == asdict(expected)


def test_without_resources_every_priority_is_0() -> None:
    router = Harness(None).router
    assert router.priority_of("interactive") == 0
    assert router.resolve(RequestClaims()).flow == FlowKey(0, DEFAULT_FAIRNESS_ID)


def test_ready_from_the_first_resources_until_the_drain() -> None:
    harness = Harness(None)
    assert not harness.router.is_ready
    assert harness.router.spec is None
    harness.apply([])
    assert harness.router.is_ready
    assert harness.router.spec == resources().pool
    harness.router.begin_drain()
    assert not harness.router.is_ready


def test_bands_exist_from_the_start_for_every_objective() -> None:
    harness = Harness([1], objectives=_OBJECTIVES)
    assert [band.priority for band in harness.router.flow.bands()] == [10, 0, -10]
    assert [band.priority for band in Harness(None).router.flow.bands()] == [0]


def test_a_change_of_objectives_makes_their_bands() -> None:
    harness = Harness([1], objectives=_OBJECTIVES)
    harness.router.apply(resources([1], {"batch": 20, "new": 7}), harness.now)
    assert [band.priority for band in harness.router.flow.bands()] == [20, 7, 0]


def test_the_same_resources_again_change_nothing() -> None:
    harness = Harness([1])
    version = harness.router.pool.version
    harness.apply([1])
    assert harness.router.pool.version == version


# From admission to the end


def test_endpoints_come_and_go_without_the_whole_state() -> None:
    harness = Harness((1, 2))
    hint = frozenset([destination(2)])
    for _ in range(2):
        harness.router.admit(RequestClaims(), RecordingGateWaiter(), harness.now)
    waits, stranded = RecordingGateWaiter(), RecordingGateWaiter()
    harness.router.admit(RequestClaims(), waits, harness.now)
    harness.router.admit(RequestClaims(subset=hint), stranded, harness.now)
    harness.router.apply_endpoints(EndpointChanges(gone=(destination(2),)), harness.now)
    assert (waits.outcome, stranded.outcome) == (None, Outcome.REJECTED_NO_ENDPOINTS)
    harness.router.apply_endpoints(EndpointChanges(present=(endpoint(3),)), harness.now)
    assert waits.destination == destination(3)
    version = harness.router.pool.version
    harness.router.apply_endpoints(EndpointChanges(present=(endpoint(3),)), harness.now)
    assert harness.router.pool.version == version
    assert [each.destination for each, *_ in harness.router.pool] == [
        destination(1),
        destination(3),
    ]


def test_an_admission_waits_until_its_deadline_or_its_turn() -> None:
    harness = Harness([1])
    lease = harness.occupy(1)
    waiter, admission = _admit(harness)
    assert _standing(admission) == (True, harness.now + 60.0)
    harness.give_back(lease)
    assert _standing(admission) == (False, None)
    assert waiter.destination == destination(1)
    harness.router.finish(admission, _ENDING, harness.now)
    harness.assert_at_rest()


def test_an_admission_does_not_wait_before_it_stands_in_the_queue() -> None:
    assert _standing(
        RouterAdmission(request(), RecordingGateWaiter(), Harness([1]).router.detector)
    ) == (False, None)


def test_the_end_is_told_before_the_next_goes() -> None:
    harness, endings = Harness([1]), list[int]()
    _, first = _admit(harness)
    then = RecordingGateWaiter(lambda: endings.append(len(harness.recorder.endings)))
    _, second = _admit(harness, waiter=then)
    harness.router.finish(first, _ENDING, harness.now)
    assert endings == [1]
    harness.router.finish(second, _ENDING, harness.now)
    assert harness.recorder.endings == [_ENDING, _ENDING]
    assert harness.recorder.ended_requests == [first.request, second.request]
    harness.assert_at_rest()


def test_a_withdrawn_request_is_cancelled_once() -> None:
    harness = Harness([1])
    lease = harness.occupy(1)
    waiter, admission = _admit(harness)
    harness.router.withdraw(admission, harness.now)
    assert (waiter.outcome, harness.recorder.outcomes) == (None, {Outcome.CANCELLED: 1})
    with pytest.raises(AssertionError, match="does not wait"):
        harness.router.withdraw(admission, harness.now)
    with pytest.raises(AssertionError, match="holds no lease"):
        harness.router.finish(admission, _ENDING, harness.now)
    lease.release()
    harness.assert_at_rest()


def test_an_end_comes_once() -> None:
    harness = Harness([1])
    _, admission = _admit(harness)
    harness.router.finish(admission, _ENDING, harness.now)
    with pytest.raises(AssertionError, match="released twice"):
        harness.router.finish(admission, _ENDING, harness.now)


def test_admissions_of_another_gate_are_not_taken() -> None:
    class Other:
        is_waiting = True
        deadline_s = None

    gate: Gate = Harness([1]).router
    with pytest.raises(AssertionError, match="of another gate"):
        gate.withdraw(Other(), 0.0)


def test_following_a_fail_over_frees_the_place_it_left() -> None:
    harness = Harness([1, 2])
    (first, admission), (second, _), (third, _) = (_admit(harness) for _ in range(3))
    left, other = first.destination, second.destination
    harness.router.served_by(admission, "192.0.2.1:1", harness.now)
    harness.router.served_by(admission, left, harness.now)
    assert third.outcome is None
    harness.router.served_by(admission, other, harness.now)
    assert third.destination == left


def test_the_route_has_the_endpoints_to_fall_back_to_and_what_the_lease_adds() -> None:
    class Picky(LeastLoaded):
        def __init__(self) -> None:
            self.observers = (Guest(),)

        def pick(
            self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
        ) -> tuple[int, ...]:
            slots = [pool.slot_of(destination(number)) for number in (2, 3, 1)]
            return tuple(slot for slot in slots if slot is not None)

    class Guest(Observer):
        def placed(self, request: Request, lease: Lease, now: float) -> None:
            lease.response_headers = ((b"x-token", b"t"),)

    harness = Harness([1, 2, 3], scheduler=Picky())
    waiter, admission = _admit(harness)
    where = ",".join(map(destination, (2, 3, 1)))
    assert waiter.route == Route(where, "", ((b"x-token", b"t"),))
    assert waiter.route.endpoint == destination(2)
    harness.router.served_by(admission, destination(3), harness.now)
    assert [count for _, count, _ in harness.router.pool] == [0, 0, 1]


# Other models


def _with_rewrites(harness: Harness, *rules: RewriteRule) -> None:
    harness.router.apply(structs.replace(resources([1]), rewrites=rules), harness.now)


def test_a_request_is_for_the_model_that_stands_for_its_clients() -> None:
    """From the queue on: all that is decided of it goes by that."""
    harness = Harness([1])
    _with_rewrites(harness, RewriteRule(models=("m",), targets=(ModelTarget("target"),)))
    models = []
    for model in ("m", "other"):
        waiter = RecordingGateWaiter()
        admission = harness.router.admit(RequestClaims(model=model), waiter, harness.now)
        assert waiter.route is not None
        models.append((admission.request.model, admission.request.client_model, waiter.route.model))
        harness.router.finish(admission, _ENDING, harness.now)
    assert models == [("target", "m", "target"), ("other", "", "")]
    assert harness.recorder.skipped == []
    _with_rewrites(harness)
    assert harness.router.resolve(RequestClaims(model="m")).model == "m"


def test_a_model_that_is_not_seen_is_counted_where_there_are_rules() -> None:
    harness = Harness([1])
    _admit(harness)
    assert harness.recorder.skipped == []
    _with_rewrites(harness, RewriteRule(targets=(ModelTarget("target"),)))
    _, admission = _admit(harness)
    assert harness.recorder.skipped == ["model-unknown"]
    assert admission.request.model == ""
    harness.router.rewrite_skipped("response-not-seen")
    assert harness.recorder.skipped == ["model-unknown", "response-not-seen"]


def test_what_is_adopted_is_for_the_model_that_it_was_sent_for() -> None:
    harness = Harness([1])
    _with_rewrites(harness, RewriteRule(targets=(ModelTarget("today"),)))
    waiter, claims = RecordingGateWaiter(), RequestClaims(model="m")
    requests = [
        harness.router.adopt(claims, destination(1), 990.0, waiter, model).request
        for model in ("yesterday", "")
    ]
    assert [(r.model, r.client_model) for r in requests] == [("yesterday", "m"), ("m", "")]


# While it runs


class _Spy:
    """A detector that keeps what it hears, and gives an endpoint twice what its engine runs."""

    def __init__(self, pool: Pool, timers: Timers) -> None:
        self._pool = pool
        self.heard: list[tuple[object, ...]] = []

    def joined(self, slot: int) -> None:
        self.heard.append(("joined", slot))
        self._pool.set_limit(slot, 1, "warming")

    def changed(self, slot: int) -> None:
        self.heard.append(("changed", slot))

    def dispatched(self, slot: int, now: float) -> None:
        self.heard.append(("dispatched", slot, now))

    def ended(self, slot: int, ending: Ending, slot_s: float, now: float) -> None:
        self.heard.append(("ended", slot, slot_s, now))

    def scraped(self, slot: int, load: EngineLoad, now: float) -> None:
        self.heard.append(("scraped", slot, load, now))
        self._pool.set_limit(slot, 2 * int(load.running), "kv")


def test_the_detector_hears_all_that_happens_and_its_limits_hold_at_once() -> None:
    harness = Harness([1], detector=_Spy)
    spy, start_s = harness.router.detector, harness.now
    assert isinstance(spy, _Spy)
    (first, admission), (second, _) = _admit(harness), _admit(harness)
    assert (first.outcome, second.outcome) == (Outcome.DISPATCHED, None)
    load = EngineLoad(waiting=0, running=1, kv_ratio=0.2)
    harness.router.scraped(destination(9), load, harness.now)
    harness.router.scraped(destination(1), load, harness.now)
    assert second.outcome is Outcome.DISPATCHED
    pool = harness.router.pool
    assert (pool.waiting[0], pool.running[0], pool.kv_ratio[0]) == (0, 1, 0.2)
    assert pool.scraped_s[0] == start_s
    harness.clock.advance(3.0)
    harness.router.finish(admission, _ENDING, harness.now)
    assert spy.heard == [
        ("joined", 0),
        ("dispatched", 0, start_s),
        ("scraped", 0, load, start_s),
        ("dispatched", 0, start_s),
        ("ended", 0, 3.0, start_s + 3.0),
    ]


def test_a_report_with_a_response_is_for_the_next_picks_alone() -> None:
    """Detectors reckon with pages, one each second."""
    spies: list[_Spy] = []

    def spy(pool: Pool, timers: Timers) -> _Spy:
        spies.append(_Spy(pool, timers))
        return spies[-1]

    harness = Harness([1, 2], detector=spy)
    _, admission = _admit(harness)
    heard = len(spies[0].heard)
    slot = admission.held_lease().slot
    harness.router.reported(admission, EngineLoad(4.0, 2.0, 0.5), harness.now)
    assert harness.router.pool.told(slot) == EngineLoad(4.0, 2.0, 0.5)
    assert len(spies[0].heard) == heard


def test_progress_raises_what_a_flow_is_charged() -> None:
    harness = Harness([1])
    _, admission = _admit(harness)
    harness.router.progress(admission, 100, harness.now)
    assert admission.held_charge().cost == 512
    harness.router.progress(admission, 300, harness.now)
    assert admission.held_charge().cost == 600
    harness.router.finish(admission, _ENDING, harness.now)
    harness.assert_at_rest()


def test_what_was_not_dispatched_has_no_charge() -> None:
    admission = RouterAdmission(request(), RecordingGateWaiter(), Harness([1]).router.detector)
    with pytest.raises(AssertionError, match="was not charged"):
        admission.held_charge()


# Requests that are no inference


def test_what_passes_takes_no_capacity_and_needs_none() -> None:
    harness = Harness([1, 2])
    for number in (1, 2, 2):
        harness.occupy(number)
    assert _pass(harness).destination == destination(1)
    assert _pass(harness, 2, 9).destination == destination(2)
    assert harness.router.pool.total_in_flight == 3
    assert harness.recorder.waits == []


@pytest.mark.parametrize(
    ("numbers", "subset", "drains", "outcome"),
    [
        ([], (), False, Outcome.REJECTED_NO_ENDPOINTS),
        ([1], (9,), False, Outcome.REJECTED_NO_ENDPOINTS),
        ([1], (), True, Outcome.SHUTTING_DOWN),
    ],
)
def test_what_cannot_pass_is_refused(
    numbers: list[int], subset: tuple[int, ...], drains: bool, outcome: Outcome
) -> None:
    harness = Harness(numbers)
    if drains:
        harness.router.begin_drain()
    waiter = _pass(harness, *subset)
    assert (waiter.has_passed, waiter.outcome) == (False, outcome)
    assert waiter.retry_after_s in range(1, 61)
    assert harness.recorder.early == [outcome.value]


def test_what_an_exchange_refuses_itself_is_counted() -> None:
    harness = Harness([1])
    harness.router.refused_early("too-large")
    assert harness.recorder.early == ["too-large"]
