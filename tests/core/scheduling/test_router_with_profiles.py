"""The whole router with scheduling profiles, under whatever may happen to it."""

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.claims import RequestClaims
from epp.core.flow import FlowLimits, FlowOptions
from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Lease, Mask, Pool
from epp.core.request import Request
from epp.core.resources import Objective, PoolResources, PoolSpec
from epp.core.router import RouterAdmission
from epp.core.scheduling import NamedFilter, ProfileScheduler, SchedulingProfile, WeightedScorer
from epp.core.scheduling.catalogue import CATALOGUE
from epp.core.scheduling.in_flight import InFlightProducer
from epp.core.scheduling.plugin import Filter, Observer, Scorer
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.core.scheduling.scorers.context_length import CONTEXT_LENGTH_LABEL
from epp.core.scheduling.scorers.first_token import FirstTokenScorer

from ..support import Harness, RecordingGateWaiter, at_most, destination, endpoint
from .support import PluginsByName, make

_OPTIONS = FlowOptions(limits=FlowLimits(wait_limit_s=None, reject_hopeless=False))

_SESSION_IDS = {"strategy": "session_id"}
_BOUND = {"operator": "LessThan", "value": 3}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "by-label": {"label": "zone", "validValues": ["a"], "allowsNoLabel": True},
    "by-label-selector": {"matchLabels": {"zone": "a"}},
    "endpoint-attribute-filter": {
        "attribute": "WaitingQueueSize",
        "algorithm": {"type": "threshold", "threshold": _BOUND},
    },
    "endpoint-attribute-scorer": {
        "attributeKey": "speed",
        "algorithm": {"type": "linear_lower_is_better"},
    },
    "utilization-filter": {"conditions": [{"metric": "active-requests", "maxValue": 1}]},
    "header-label-affinity-scorer": {"headerName": "x-zone", "labelKey": "zone"},
    "context-length-aware": {"enableFiltering": True},
    "session-affinity-filter": _SESSION_IDS,
    "session-id-producer": {"headerName": "x-session-id"},
    "inflight-load-producer": {"addEstimatedOutputTokens": True},
}
_PICKERS = ("max-score-picker", "random-picker", "weighted-random-picker")
_SCORING = sorted(
    name
    for name in CATALOGUE
    if not name.endswith(("-picker", "-handler", "-producer")) and name != "encode-filter"
)
_FILTERING_BY_LOAD = ("utilization-filter", "endpoint-attribute-filter")


class _CheckedScheduler(ProfileScheduler):
    """Insists that what is picked may be."""

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        slots = super().pick(request, pool, mask, now, rng)
        assert len(set(slots)) == len(slots)
        for slot in slots:
            assert mask[slot]
            assert request.subset is None or pool.endpoint(slot).destination in request.subset
        return slots


def _scheduler(names: tuple[str, ...], picker: str, most: int) -> _CheckedScheduler:
    context = PluginsByName()
    if "token-load-scorer" in names:
        load = "inflight-load-producer"
        context.plugins[load] = make(load, _PARAMETERS[load], context=context)
    made = {name: make(name, _PARAMETERS.get(name), context=context) for name in names}
    profile = SchedulingProfile(
        "profile",
        [NamedFilter(name, each) for name, each in made.items() if isinstance(each, Filter)],
        [
            WeightedScorer(name, each, 1.5)
            for name, each in made.items()
            if isinstance(each, Scorer)
        ],
        make(picker, {"maxNumOfEndpoints": most}),
    )
    plugins = [*context.plugins.values(), *made.values()]
    return _CheckedScheduler(profile, [each for each in plugins if isinstance(each, Observer)])


_SCHEDULERS = st.builds(
    _scheduler,
    st.lists(st.sampled_from(_SCORING), max_size=6, unique=True).map(tuple),
    st.sampled_from(_PICKERS),
    st.integers(min_value=1, max_value=3),
)
_DEFAULT = st.builds(lambda: _scheduler(("first-token-scorer",), "max-score-picker", 1))

_NUMBERS = st.integers(min_value=0, max_value=1_000)
_ENDPOINTS = st.integers(min_value=1, max_value=20)
_LABELS = st.sampled_from(
    [{}, {"zone": "a"}, {"zone": "b"}, {CONTEXT_LENGTH_LABEL: "0-100", "zone": "a"}]
)
_GAUGE = st.sampled_from([0.0, 1.0, 40.0, math.nan])
_LOADS = st.builds(
    EngineLoad,
    waiting=_GAUGE,
    running=_GAUGE,
    kv_ratio=st.sampled_from([0.0, 0.5, 1.0, math.nan]),
    active_adapters=st.frozensets(st.sampled_from("abc"), max_size=2),
    waiting_adapters=st.frozensets(st.sampled_from("cd"), max_size=2),
    max_adapters=st.sampled_from([0, 2]),
    block_tokens=st.sampled_from([0, 16, 256]),
    cache_blocks=st.sampled_from([0, 1, 40]),
    started_s=st.sampled_from([math.nan, 1.0, 2.0]),
    attributes=st.sampled_from([{}, {"speed": 3.0}, {"speed": math.nan}]),
)
_CLAIMS = st.builds(
    RequestClaims,
    objective=st.sampled_from(["", "high"]),
    fairness_id=st.sampled_from(["x", "y"]),
    subset=st.one_of(st.none(), st.none(), st.frozensets(_ENDPOINTS.map(destination), max_size=3)),
    model=st.sampled_from(["", "a", "c"]),
    prompt_tokens=st.sampled_from([0, 50, 300, 1 << 20]),
    cache_salt=st.sampled_from(["", "salt"]),
    prefix=st.integers(min_value=0, max_value=3).flatmap(
        lambda blocks: st.binary(min_size=8 * blocks, max_size=8 * blocks)
    )
    | st.sampled_from([b"a" * 8, b"a" * 8 + b"b" * 72]),
    headers=st.dictionaries(
        st.sampled_from(["x-session-id", "x-zone", "x-session-token"]),
        st.sampled_from(["a", "b", ""]),
    ),
)
_STEPS = st.one_of(
    st.tuples(st.just("admit"), _CLAIMS),
    st.tuples(st.just("admit"), _CLAIMS),
    st.tuples(st.just("adopt"), _CLAIMS, _ENDPOINTS),
    st.tuples(st.just("finish"), _NUMBERS, st.sampled_from([0, 200, 400, 503])),
    st.tuples(st.just("withdraw"), _NUMBERS),
    st.tuples(st.just("move"), _NUMBERS, _ENDPOINTS),
    st.tuples(st.just("members"), st.dictionaries(_ENDPOINTS, _LABELS, max_size=12)),
    st.tuples(st.just("scrape"), _ENDPOINTS, _LOADS),
    st.tuples(st.just("report"), _NUMBERS, _LOADS),
    st.tuples(st.just("reconfigure"), st.one_of(_SCHEDULERS, _DEFAULT), st.sampled_from([0, 1, 3])),
    st.tuples(st.just("explain"), _CLAIMS),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 6.0, 400.0])),
)


class _World:
    """A router, and all that was asked of it."""

    def __init__(self, scheduler: ProfileScheduler) -> None:
        self.harness = Harness(None, options=_OPTIONS, scheduler=scheduler, max_concurrency=2)
        self.router = self.harness.router
        self.pool = self.router.pool
        self.admissions: list[tuple[RouterAdmission, RecordingGateWaiter]] = []
        self.members({1: {}, 2: {"zone": "a"}, 3: {"zone": "b"}})

    @property
    def running(self) -> list[RouterAdmission]:
        return [each for each, _ in self.admissions if each.lease is not None]

    @property
    def waiting(self) -> list[RouterAdmission]:
        return [each for each, _ in self.admissions if each.is_waiting]

    def admit(self, claims: RequestClaims) -> None:
        waiter = RecordingGateWaiter()
        self.admissions.append((self.router.admit(claims, waiter, self.harness.now), waiter))

    def serve(self, claims: RequestClaims) -> None:
        self.admit(claims)
        self.finish(0, 200)

    def adopt(self, claims: RequestClaims, number: int) -> None:
        waiter, since_s = RecordingGateWaiter(), self.harness.now - 1.0
        admission = self.router.adopt(claims, destination(number), since_s, waiter)
        self.admissions.append((admission, waiter))

    def finish(self, number: int, status: int) -> None:
        if self.running:
            admission = self.running[number % len(self.running)]
            first_byte_s = 0.1 if status else None
            ending = Ending(
                status=status,
                cause="complete" if status else "aborted",
                duration_s=1.0,
                response_bytes=None,
                first_byte_s=first_byte_s,
            )
            self.admissions = [each for each in self.admissions if each[0] is not admission]
            self.router.finish(admission, ending, self.harness.now)

    def withdraw(self, number: int) -> None:
        if self.waiting:
            admission = self.waiting[number % len(self.waiting)]
            self.admissions = [each for each in self.admissions if each[0] is not admission]
            self.router.withdraw(admission, self.harness.now)

    def move(self, number: int, to: int) -> None:
        if self.running:
            admission = self.running[number % len(self.running)]
            self.router.served_by(admission, destination(to), self.harness.now)

    def report(self, number: int, load: EngineLoad) -> None:
        if self.running:
            admission = self.running[number % len(self.running)]
            self.router.reported(admission, load, self.harness.now)

    def members(self, labels: dict[int, dict[str, str]]) -> None:
        resources = PoolResources(
            pool=PoolSpec(name="pool"),
            objectives={"high": Objective(name="high", priority=10)},
            endpoints=tuple(endpoint(number, **each) for number, each in labels.items()),
        )
        self.router.apply(resources, self.harness.now)

    def scrape(self, number: int, load: EngineLoad) -> None:
        self.router.scraped(destination(number), load, self.harness.now)

    def reconfigure(self, scheduler: ProfileScheduler, limit: int) -> None:
        self.router.reconfigure(
            scheduler=scheduler,
            options=_OPTIONS,
            make_detector=at_most(limit) if limit else None,
            now=self.harness.now,
        )

    def explain(self, claims: RequestClaims) -> None:
        found = self.router.explain_pick(self.router.resolve(claims), self.harness.now)
        assert found is not None
        assert set(found.picked) <= set(found.scored) <= set(found.considered)
        assert all(map(math.isfinite, found.totals))

    def wait(self, seconds: float) -> None:
        self.harness.clock.advance(seconds)

    def check(self) -> None:
        self.admissions = [
            each for each in self.admissions if each[0].is_waiting or each[0].lease is not None
        ]
        in_flight = Counter(each.lease.slot for each in self.running if each.lease is not None)
        assert in_flight == Counter(dict(enumerate(self.pool.in_flight.tolist())))
        for each in self.running:
            assert each.lease is not None
            assert self.pool.slot_of(each.lease.endpoint.destination) == each.lease.slot
        self.check_prefixes()
        self.check_waiting()

    def check_prefixes(self) -> None:
        for observer in self.router.scheduler.observers:
            if isinstance(observer, PrefixCache):
                for slot in observer.index._holders:
                    assert self.pool._endpoints[slot] is not None

    def check_counts(self) -> None:
        """Nothing runs, so nothing of it is counted."""
        for observer in self.router.scheduler.observers:
            if isinstance(observer, FirstTokenScorer):
                assert not observer._pending.any()
            if isinstance(observer, InFlightProducer):
                assert not observer._output_tokens.any()

    def check_waiting(self) -> None:
        scheduler, pool = self.router.scheduler, self.pool
        assert isinstance(scheduler, ProfileScheduler)
        (profile,) = scheduler.profiles.values()
        if any(each.name in _FILTERING_BY_LOAD for each in profile.filters):
            return  # loads change with time alone
        now, rng = self.harness.now, random.Random(0)
        for each in self.waiting:
            mask = pool.with_room()
            if each.request.subset is not None:
                mask = mask & pool.mask_of(each.request.subset)
            assert not scheduler.pick(each.request, pool, mask, now, rng)
            assert profile.filters or not mask.any()


@given(scheduler=st.one_of(_DEFAULT, _SCHEDULERS), steps=st.lists(_STEPS, min_size=5, max_size=40))
@settings(max_examples=150)
def test_leases_are_exact_and_nothing_waits_that_could_go(
    scheduler: ProfileScheduler, steps: list[tuple[Any, ...]]
) -> None:
    world = _World(scheduler)
    world.check()
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
        world.check()
    while world.admissions:
        if world.running:
            world.finish(0, 200)
        else:
            world.withdraw(0)
        world.check()
    world.check_counts()
    world.members({})
    assert world.pool.total_in_flight == 0
    assert not any(world.pool._endpoints)


class _Failing(Observer):
    """A plugin of others that has a mistake."""

    def __init__(self, where: str) -> None:
        self._where = where

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        if self._where == "placed":
            raise KeyError("a mistake")

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        if self._where == "ended":
            raise KeyError("a mistake")


@pytest.mark.parametrize("where", ["placed", "ended"])
def test_a_plugin_that_fails_keeps_no_capacity(where: str) -> None:
    profile = SchedulingProfile("any", [], [], make("max-score-picker"))
    world = _World(ProfileScheduler(profile, [_Failing(where)]))
    with pytest.raises(KeyError):
        world.serve(RequestClaims())
    assert world.pool.total_in_flight == 0
    assert not any(band.running for band in world.router.flow.bands())
