"""R5 and R6 with scheduling filters: who finds no endpoint holds up none of another kind."""

from collections.abc import Hashable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow import FlowOptions
from epp.core.pool import Pool
from epp.core.request import Request
from epp.core.resources import Endpoint, EndpointChanges, PoolResources, PoolSpec
from epp.core.scheduling import NamedFilter, ProfileScheduler, SchedulingProfile
from epp.core.scheduling.handlers import HeaderProfileHandler
from epp.core.scheduling.pickers.max_score import MaxScorePicker
from epp.core.scheduling.scorers.context_length import CONTEXT_LENGTH_LABEL, ContextLengthAware

from ..scheduling.support import make
from ..support import Harness, RecordingWaiter, destination, endpoint, request

_SHORT, _LONG = 10, 1_000


def _by_length() -> ProfileScheduler:
    lengths = NamedFilter("lengths", ContextLengthAware(filters=True))
    return ProfileScheduler(SchedulingProfile("one", [lengths], [], MaxScorePicker()))


def _made_for(number: int, lengths: str) -> Endpoint:
    return endpoint(number, **{CONTEXT_LENGTH_LABEL: lengths})


def _apply(harness: Harness, *endpoints: Endpoint) -> None:
    pool = PoolSpec(name="pool")
    resources = PoolResources(pool=pool, objectives={}, endpoints=endpoints)
    harness.router.apply(resources, harness.now)


def _offer(
    harness: Harness, prompt_tokens: int, fairness_id: str = "one", priority: int = 0
) -> RecordingWaiter:
    waiter = RecordingWaiter()
    waiter.request = request(priority, fairness_id, prompt_tokens=prompt_tokens)
    harness.router.flow.offer(waiter.request, waiter, harness.now)
    return waiter


def _harness(*, evicts: bool = False) -> Harness:
    harness = Harness(None, scheduler=_by_length(), options=FlowOptions(eviction=evicts))
    _apply(harness, _made_for(1, "0-100"), _made_for(2, "101-9999"))
    return harness


def test_a_flow_is_not_held_up_by_its_own_first_request() -> None:
    harness = _harness()
    _, waits = _offer(harness, _LONG), _offer(harness, _LONG)
    assert waits.outcome is None
    assert _offer(harness, _SHORT).lease is not None


def test_many_flows_that_find_no_endpoint_hold_up_nobody() -> None:
    harness = _harness()
    for number in range(40):
        _offer(harness, _LONG, f"long-{number}")
    short = _offer(harness, _SHORT, "short")
    last = _offer(harness, _SHORT, "last")
    assert last.outcome is None
    harness.finish(short)
    assert last.lease is not None


def test_what_waits_is_sorted_anew_for_other_plugins() -> None:
    harness = Harness(None, scheduler=ProfileScheduler(_anyone()))
    _apply(harness, _made_for(1, "0-100"), _made_for(2, "101-9999"))
    running = [_offer(harness, _LONG), _offer(harness, _LONG)]
    _, short = _offer(harness, _LONG), _offer(harness, _SHORT)
    flow = harness.router.flow
    flow.reconfigure(flow.options, _by_length(), harness.now)
    (at_short,) = (each for each in running if each.destination == destination(1))
    harness.finish(at_short)
    assert short.lease is not None


def test_what_waits_is_sorted_anew_when_the_endpoints_or_the_plugins_are_others() -> None:
    harness = _harness()
    running = _offer(harness, _LONG)
    waiting = [_offer(harness, tokens) for tokens in (_LONG, _LONG, _SHORT, _SHORT)]
    _apply(harness, _made_for(1, "0-100"), _made_for(2, "101-9999"), _made_for(3, "0-20"))
    assert [each.lease is not None for each in waiting] == [False, False, True, True]
    flow = harness.router.flow
    flow.reconfigure(flow.options, ProfileScheduler(_anyone()), harness.now)
    harness.finish(waiting[3])
    harness.finish(running)
    assert all(each.lease is not None for each in waiting)
    for each in waiting[:3]:
        harness.finish(each)
    assert not any(band.lanes or band.flows for band in flow.bands())


class _TellsKindsAlone:
    """Does not say what its kinds go by."""

    def __init__(self, lengths: ContextLengthAware) -> None:
        self.filter = lengths.filter
        self.kind = lengths.kind


@pytest.mark.parametrize("says_what_they_follow", [True, False])
def test_those_who_were_of_one_kind_part_with_the_endpoints(says_what_they_follow: bool) -> None:
    lengths = ContextLengthAware(filters=True)
    named = NamedFilter("lengths", lengths if says_what_they_follow else _TellsKindsAlone(lengths))
    scheduler = ProfileScheduler(SchedulingProfile("one", [named], [], MaxScorePicker()))
    harness = Harness(None, scheduler=scheduler)
    _apply(harness, _made_for(1, "0-9999"))
    _offer(harness, _LONG)
    for number in range(40):
        _offer(harness, _LONG, f"long-{number}")
    short = _offer(harness, _SHORT, "short")
    harness.router.apply_endpoints(EndpointChanges(present=(_made_for(2, "0-100"),)), harness.now)
    assert short.destination == destination(2)


def test_kinds_that_stay_the_same_are_asked_for_no_more() -> None:
    asked: list[Request] = []

    class Lengths(ContextLengthAware):
        def kind(self, request: Request, pool: Pool) -> Hashable:
            asked.append(request)
            return super().kind(request, pool)

    named = NamedFilter("lengths", Lengths(filters=True))
    scheduler = ProfileScheduler(SchedulingProfile("one", [named], [], MaxScorePicker()))
    harness = Harness(None, scheduler=scheduler)
    _apply(harness, _made_for(1, "0-100"))
    _offer(harness, _SHORT)
    _offer(harness, _LONG)
    asked.clear()
    _apply(harness, _made_for(1, "0-100"), _made_for(2, "0-100"))
    assert not asked
    _apply(harness, _made_for(1, "0-100"), _made_for(2, "0-200"))
    assert asked


def _anyone() -> SchedulingProfile:
    return SchedulingProfile("any", [], [], MaxScorePicker())


def test_r13_nobody_is_evicted_where_the_one_who_waits_cannot_go() -> None:
    harness = _harness(evicts=True)
    short, long = _offer(harness, _SHORT, priority=-1), _offer(harness, _LONG)
    _offer(harness, _LONG, priority=10)
    assert not short.evictions
    flow = harness.router.flow
    assert flow.closed_by(flow.bands()[0]) == "inflight"
    harness.finish(short)
    harness.finish(long)


def test_r13_room_that_is_of_no_use_saves_nobody() -> None:
    harness = _harness(evicts=True)
    long = _offer(harness, _LONG, priority=-1)
    _offer(harness, _LONG, priority=10)
    assert len(long.evictions) == 1


def test_r11_requests_that_no_endpoint_is_for_are_filtered() -> None:
    harness = _harness()
    _offer(harness, 1_000_000)
    flow = harness.router.flow
    assert flow.closed_by(flow.bands()[0]) == "filtered"


def test_what_filters_only_prefer_is_not_all_that_a_request_can_use() -> None:
    ids = make("session-affinity-filter", {"strategy": "session_id"})
    profile = SchedulingProfile("one", [NamedFilter("sticky", ids)], [], MaxScorePicker())
    scheduler = ProfileScheduler(profile, [ids])
    harness = Harness([1, 2, 3], scheduler=scheduler)
    asked = msgspec.structs.replace(request(), headers={"x-session-id": "s"})
    pool, rng = harness.router.pool, harness.router._rng
    ids.placed(asked, pool.lease(1), harness.now)
    usable = scheduler.usable(asked, pool, pool.active, harness.now, rng)
    assert usable.tolist() == pool.active.tolist()


def test_profiles_are_kinds() -> None:
    picky = make("by-label", {"label": "is", "validValues": ["picky"]})
    profiles = [
        SchedulingProfile("picky", [NamedFilter("picky", picky)], [], MaxScorePicker()),
        _anyone(),
    ]
    handler = HeaderProfileHandler(default_profile="any")
    scheduler = ProfileScheduler(profiles, handler=handler)
    pool = Harness([1]).router.pool
    kinds = [
        scheduler.kind(_with_profile(name), pool) for name in ("picky", "any", "unknown", "picky")
    ]
    assert kinds[0] == kinds[3] != kinds[1] == kinds[2]


def _with_profile(name: str) -> Request:
    return msgspec.structs.replace(request(), headers={"epp-profile": name})


@given(
    steps=st.lists(
        st.one_of(
            st.sampled_from([_SHORT, _LONG, 150]),
            st.just(None),
            st.lists(st.sampled_from(["0-100", "101-9999", "100-200", "x"]), max_size=3),
        ),
        max_size=40,
    )
)
def test_nothing_waits_that_an_endpoint_with_room_would_take(
    steps: list[int | list[str] | None],
) -> None:
    harness = _harness()
    scheduler, pool = harness.router.scheduler, harness.router.pool
    waiters: list[RecordingWaiter] = []
    for step in steps:
        running = [each for each in waiters if each.lease and not each.lease.is_released]
        if isinstance(step, int):
            waiters.append(_offer(harness, step))
        elif step is not None:
            members = [_made_for(index + 1, lengths) for index, lengths in enumerate(step)]
            _apply(harness, *members)
        elif running:
            harness.finish(running[0])
        for each in waiters:
            if each.outcome is None:
                room = pool.with_room()
                rng = harness.router._rng
                assert not scheduler.pick(each.request, pool, room, harness.now, rng)
