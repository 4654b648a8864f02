"""What holds for every scorer, whatever it prefers and whatever has happened before."""

import math
import random
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.pool import EngineLoad, Lease
from epp.core.request import Request
from epp.core.scheduling import (
    Observer,
    ProfileScheduler,
    SchedulingProfile,
    Scorer,
    WeightedScorer,
)
from epp.core.scheduling.catalogue import CATALOGUE
from epp.core.scheduling.pickers.max_score import MaxScorePicker

from ..support import completed
from .support import NOW, PluginsByName, candidates_of, make, pool_of, request_of, told

_HEAT: dict[str, Any] = {"attributeKey": "heat"}
_FIXED = {"fixedRange": {"min": 0.2, "max": 0.8}}
_PARAMETERS: Mapping[str, list[dict[str, Any]]] = {
    "prefix-cache-scorer": [{}, {"matchLengthWeight": 0.4, "matchLengthScaleTokens": 256}],
    "active-request-scorer": [{}, {"idleThreshold": 1, "maxBusyScore": 0.5}],
    "load-aware-scorer": [{"threshold": 3}],
    "token-load-scorer": [{"queueThresholdTokens": 1000}],
    "no-hit-lru-scorer": [{}, {"lruSize": 2}],
    "header-label-affinity-scorer": [{"headerName": "x-tier", "labelKey": "tier"}],
    "endpoint-attribute-scorer": [
        {**_HEAT, "algorithm": {"type": "linear_lower_is_better"}},
        {**_HEAT, "algorithm": {"type": "linear_higher_is_better", "normalization": _FIXED}},
    ],
    "session-affinity-scorer": [{}, {"strategy": "session_id"}],
}
"""What types are tried with that need parameters, or do little without."""

_SCORERS = [
    (type_, parameters)
    for type_ in CATALOGUE
    if type_.endswith("-scorer") or type_ == "context-length-aware"
    for parameters in _PARAMETERS.get(type_, [{}])
]


def test_the_scorers_are_scorers() -> None:
    assert all(isinstance(make(*each), Scorer) for each in _SCORERS)
    assert len(_SCORERS) > 13


def test_all_parameters_are_explained() -> None:
    for definition in CATALOGUE.values():
        fields = msgspec.structs.fields(definition.parameters)
        assert set(definition.explains) == {field.encode_name for field in fields}


_NUMBERS = st.just(math.nan) | st.integers(0, 9)
_RATIOS = st.just(math.nan) | st.floats(0, 1)
_NAMES = st.frozensets(st.sampled_from(["a", "b", "c"]))
_LOADS = st.builds(
    told,
    waiting=_NUMBERS,
    running=_NUMBERS,
    kv_ratio=_RATIOS,
    active_adapters=_NAMES,
    waiting_adapters=_NAMES,
    max_adapters=st.integers(0, 3),
    attributes=st.just({}) | st.builds(lambda heat: {"heat": heat}, _RATIOS),
)
_LABELS = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.sampled_from(["gold", "iron"]),
        "llm-d.ai/context-length-range": st.sampled_from(["0-300", "200-200", "100-5000", "x"]),
    },
)
_REQUESTS = st.builds(
    lambda prefix, blocks, **others: request_of(prefix=prefix[: 8 * blocks], **others),
    prefix=st.sampled_from([b"one-head" * 8, b"one-head" * 4 + b"the-tail" * 4, b"another." * 8]),
    blocks=st.integers(0, 8),
    model=st.sampled_from(["base", "a", "b"]),
    prompt_tokens=st.sampled_from([0, 1, 200, 511, 10_000]),
    headers=st.fixed_dictionaries(
        {}, optional={"x-tier": st.just("gold"), "x-session-id": st.sampled_from(["s", "t"])}
    ),
)
_INDEX = st.integers(0, 1000)
_STEPS = st.one_of(
    st.tuples(st.just("place"), _REQUESTS, _INDEX),
    st.tuples(st.just("place"), _REQUESTS, _INDEX),
    st.tuples(st.just("end"), _INDEX, st.booleans()),
    st.tuples(st.just("move"), _INDEX, _INDEX),
    st.tuples(st.just("tell"), _INDEX, _LOADS),
    st.tuples(st.just("restart"), _INDEX),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 60.0])),
)


class _World:
    """A scorer in a pool that lives."""

    def __init__(self, type_: str, parameters: Any, labels: list[dict[str, str]]) -> None:
        plugins = PluginsByName()
        self.scorer = make(type_, parameters, context=plugins)
        everybody = [*plugins.plugins.values(), self.scorer]
        self.observers = [each for each in everybody if isinstance(each, Observer)]
        self.count = len(labels)
        self.pool = pool_of(self.count, labels=labels)
        for observer in self.observers:
            for slot in range(self.count):
                observer.joined(self.pool, slot)
        self.now = NOW
        self.placed: list[tuple[Request, Lease]] = []

    def step(self, step: tuple[Any, ...]) -> None:
        """Do one of the steps."""
        match step:
            case ("place", Request() as request, int(index)):
                self.scorer.score(candidates_of(self.pool, request, now=self.now))
                lease = self.pool.lease(index % self.count, request.prompt_tokens)
                for observer in self.observers:
                    observer.placed(request, lease, self.now)
                self.placed.append((request, lease))
            case ("end", int(index), bool(is_served)) if self.placed:
                request, lease = self.placed.pop(index % len(self.placed))
                ending = completed()
                if not is_served:
                    ending = msgspec.structs.replace(ending, status=500)
                for observer in self.observers:
                    observer.ended(request, lease, ending, self.now)
                lease.release()
            case ("move", int(index), int(to)) if self.placed:
                request, lease = self.placed[index % len(self.placed)]
                from_slot = lease.slot
                if lease.move(self.pool.endpoint(to % self.count).destination):
                    for observer in self.observers:
                        observer.moved(request, lease, from_slot, self.now)
            case ("tell", int(index), EngineLoad() as load):
                self.pool.scraped(index % self.count, load, self.now)
                for observer in self.observers:
                    observer.scraped(self.pool, index % self.count, load, self.now)
            case ("restart", int(index)):
                for observer in self.observers:
                    observer.restarted(index % self.count)
            case ("wait", float(seconds)):
                self.now += seconds

    def scores(self, request: Request, slots: list[int]) -> Any:
        """Return the scores of some endpoints."""
        return self.scorer.score(candidates_of(self.pool, request, slots=slots, now=self.now))

    def columns(self) -> list[Any]:
        """Return copies of what the pool knows."""
        pool = self.pool
        told_columns = (pool.waiting, pool.running, pool.kv_ratio, pool.scraped_s)
        counted = (pool.active, pool.in_flight, pool.in_flight_tokens, pool.used_ratio)
        return [column.copy() for column in (*told_columns, *counted)]


@pytest.mark.parametrize(("type_", "parameters"), _SCORERS)
@settings(max_examples=25)
@given(data=st.data())
def test_scores_are_from_0_to_1_and_those_of_the_endpoints(
    type_: str, parameters: dict[str, Any], data: st.DataObject
) -> None:
    world = _World(type_, parameters, data.draw(st.lists(_LABELS, min_size=1, max_size=10)))
    for step in data.draw(st.lists(_STEPS, max_size=25)):
        world.step(step)
    request = data.draw(_REQUESTS)
    every = list(range(world.count))
    before = world.columns()

    scores = world.scores(request, every)
    assert scores.shape == (world.count,)
    assert scores.dtype == np.float64
    assert all(0 <= score <= 1 for score in scores), scores

    shuffled = data.draw(st.permutations(every))
    assert world.scores(request, shuffled).tolist() == scores[shuffled].tolist()
    assert world.scores(request, every).tolist() == scores.tolist()
    assert all(
        np.array_equal(now, then, equal_nan=True)
        for now, then in zip(world.columns(), before, strict=True)
    )

    some = data.draw(st.sets(st.sampled_from(every), min_size=1))
    mask = np.zeros_like(world.pool.active)
    mask[list(some)] = True
    profile = SchedulingProfile(
        "default", [], [WeightedScorer(type_, world.scorer)], MaxScorePicker(3)
    )
    picked = ProfileScheduler(profile).pick(request, world.pool, mask, world.now, random.Random(1))
    assert len(picked) == min(3, len(some))
    assert set(picked) <= some
