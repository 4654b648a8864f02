"""The pick: least loaded, and fair among those that are equally loaded; plugins that fail."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.pool import Column, Mask, Pool
from epp.core.scheduling import (
    Candidates,
    LeastLoaded,
    NamedFilter,
    ProfileScheduler,
    SchedulingProfile,
    WeightedScorer,
    least_loaded,
)
from epp.core.scheduling.pickers.max_score import MaxScorePicker

from ..support import endpoint, request
from .support import pool_of, request_of


@given(
    loads=st.lists(st.integers(min_value=0, max_value=5), min_size=8, max_size=8),
    mask=st.lists(st.booleans(), min_size=8, max_size=8),
    seed=st.integers(),
)
def test_picks_a_least_loaded_slot_of_the_mask(
    loads: list[int], mask: list[bool], seed: int
) -> None:
    pool = Pool(max_concurrency=2)
    pool.apply([endpoint(number) for number in range(8)])
    for slot, load in enumerate(loads):
        for _ in range(load):
            pool.lease(slot)
    slots = LeastLoaded().pick(request(), pool, np.array(mask), 0.0, random.Random(seed))
    eligible = [number for number in range(8) if mask[number]]
    if not slots:
        assert not eligible
    else:
        (slot,) = slots
        assert slot in eligible
        assert loads[slot] == min(loads[number] for number in eligible)


def test_load_is_by_limit_and_who_takes_nothing_is_full() -> None:
    for slots in (3, 200):
        pool, rng = Pool(max_concurrency=1), random.Random(1)
        pool.apply([endpoint(number) for number in range(slots)])
        for slot in range(2, slots):
            pool.lease(slot)
        pool.set_limit(0, 0, "inflight")
        pool.set_limit(1, 4, "inflight")
        for _ in range(3):
            assert least_loaded(pool, pool.active, rng) == 1
            pool.lease(1)
        pool.set_limit(1, 3, "inflight")
        assert pool.used_ratio[:3].tolist() == [1.0, 1.0, 1.0]


def test_breaks_ties_by_chance_and_evenly() -> None:
    pool, rng = Pool(max_concurrency=1), random.Random(1)
    pool.apply([endpoint(number) for number in range(4)])
    picks = Counter(least_loaded(pool, pool.active, rng) for _ in range(4000))
    assert set(picks) == {0, 1, 2, 3}
    assert all(900 < count < 1100 for count in picks.values())


@pytest.mark.parametrize("slots", [8, 200])
def test_many_slots_are_compared_as_few_are(slots: int) -> None:
    pool, rng = Pool(max_concurrency=4), random.Random(1)
    pool.apply([endpoint(number) for number in range(slots)])
    mask = pool.active.copy()
    assert least_loaded(pool, mask & False, rng) is None
    for slot in range(slots):
        pool.lease(slot)
    pool.lease(5)
    pool.set_limit(3, 8, "kv")
    pool.set_limit(7, 0, "kv")
    assert least_loaded(pool, mask, rng) == 3
    mask[3] = False
    picks = {least_loaded(pool, mask, rng) for _ in range(5_000)}
    assert picks == set(range(slots)) - {3, 5, 7}


class _Raises:
    """A plugin of somebody else that fails."""

    def filter(self, candidates: Candidates) -> Mask:
        raise KeyError("a plugin of others")

    def score(self, candidates: Candidates) -> Column:
        raise KeyError("a plugin of others")

    def pick(self, candidates: Candidates, scores: Column) -> list[int]:
        return [len(candidates)]


@pytest.mark.parametrize("part", ["filter", "scorer", "picker"])
def test_a_plugin_that_fails_does_not_stop_the_traffic(part: str) -> None:
    plugin = _Raises()
    filters = [NamedFilter("theirs", plugin)] if part == "filter" else []
    scorers = [WeightedScorer("theirs", plugin)] if part == "scorer" else []
    picker = plugin if part == "picker" else MaxScorePicker()
    scheduler = ProfileScheduler(SchedulingProfile("default", filters, scorers, picker))
    pool, rng = pool_of(3, in_flight=[2, 1, 2]), random.Random(1)
    with pytest.raises((KeyError, IndexError)):
        scheduler.pick(request_of(), pool, pool.active, 0.0, rng)
    failures: list[Exception] = []
    scheduler.on_failure = failures.append
    assert scheduler.pick(request_of(), pool, pool.active, 0.0, rng) == (1,)
    assert len(failures) == 1
    assert scheduler.pick(request_of(), pool, pool.active & False, 0.0, rng) == ()
    usable = scheduler.usable(request_of(), pool, pool.active, 0.0, rng)
    assert usable.tolist() == pool.active.tolist()
