"""The pick: least loaded, and fair among those that are equally loaded."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.pool import Pool
from epp.core.scheduling import LeastLoaded

from ..support import endpoint, request


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
    slot = LeastLoaded().pick(request(), pool, np.array(mask), random.Random(seed))
    eligible = [number for number in range(8) if mask[number]]
    if slot is None:
        assert not eligible
    else:
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
            assert LeastLoaded().pick(None, pool, pool.active, rng) == 1
            pool.lease(1)
        pool.set_limit(1, 3, "inflight")
        assert pool.used_ratio[:3].tolist() == [1.0, 1.0, 1.0]


def test_breaks_ties_by_chance_and_evenly() -> None:
    pool, rng = Pool(max_concurrency=1), random.Random(1)
    pool.apply([endpoint(number) for number in range(4)])
    picks = Counter(LeastLoaded().pick(None, pool, pool.active, rng) for _ in range(4000))
    assert set(picks) == {0, 1, 2, 3}
    assert all(900 < count < 1100 for count in picks.values())


@pytest.mark.parametrize("slots", [8, 200])
def test_many_slots_are_compared_as_few_are(slots: int) -> None:
    pool, rng = Pool(max_concurrency=4), random.Random(1)
    pool.apply([endpoint(number) for number in range(slots)])
    mask = pool.active.copy()
    assert LeastLoaded().pick(None, pool, mask & False, rng) is None
    for slot in range(slots):
        pool.lease(slot)
    pool.lease(5)
    pool.set_limit(3, 8, "kv")
    pool.set_limit(7, 0, "kv")
    assert LeastLoaded().pick(None, pool, mask, rng) == 3
    mask[3] = False
    picks = {LeastLoaded().pick(None, pool, mask, rng) for _ in range(5_000)}
    assert picks == set(range(slots)) - {3, 5, 7}
