"""The load of the engines between their pages."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.pool import EffectiveLoad, EngineLoad, Pool

from ..support import endpoint

_NOW = 1000.0
_NAN = math.nan


def _pool(*loads: EngineLoad | None, in_flight: tuple[int, ...] = ()) -> Pool:
    """Return a pool whose engines have told these loads, with requests in flight by then."""
    pool = Pool(max_concurrency=100, stale_after_s=5.0)
    pool.apply([endpoint(number) for number in range(len(loads))])
    for slot, count in enumerate(in_flight):
        for _ in range(count):
            pool.lease(slot)
    for slot, load in enumerate(loads):
        if load is not None:
            pool.scraped(slot, load, _NOW)
    return pool


def _columns(pool: Pool, now: float = _NOW) -> list[list[float]]:
    """Return waiting, running and KV use of the endpoints."""
    load = pool.effective_load(now)
    return [column[pool.active].tolist() for column in (load.waiting, load.running, load.kv_ratio)]


def test_what_was_told_is_the_load() -> None:
    pool = _pool(EngineLoad(3, 7, 0.5), EngineLoad(0, 0, 0), in_flight=(4, 9))
    assert _columns(pool) == [[3, 0], [7, 0], [0.5, 0]]
    assert _columns(pool, _NOW + 5) == [[3, 0], [7, 0], [0.5, 0]]


def test_what_came_and_went_since_is_added_and_taken_away() -> None:
    pool = _pool(EngineLoad(3, 7, 0.5), EngineLoad(0, 1, 0.1))
    leases = [pool.lease(0) for _ in range(4)]
    assert _columns(pool) == [[7, 0], [11, 1], [0.5, 0.1]]
    for lease in leases:
        lease.release()
    assert _columns(pool) == [[3, 0], [7, 1], [0.5, 0.1]]
    pool.lease(1)
    pool.scraped(1, EngineLoad(0, 2, 0.2), _NOW + 1)
    assert _columns(pool) == [[3, 0], [7, 2], [0.5, 0.2]]


def test_nothing_is_below_zero() -> None:
    pool = _pool(None)
    leases = [pool.lease(0) for _ in range(5)]
    pool.scraped(0, EngineLoad(2, 3, 0), _NOW)
    for lease in leases:
        lease.release()
    assert _columns(pool)[:2] == [[0], [0]]


def test_an_endpoint_that_tells_nothing_is_like_the_others() -> None:
    pool = _pool(EngineLoad(9, 4, 0.2), EngineLoad(9, 8, 0.6), None, None, in_flight=(0, 0, 10, 2))
    # It runs 6, their mean, as far as it has so many in flight; the rest waits.
    assert _columns(pool) == [[9, 9, 4, 0], [4, 8, 6, 2], [0.2, 0.6, 0.4, 0.4]]


def test_where_nobody_tells_anything_what_is_in_flight_waits() -> None:
    pool = _pool(None, None, in_flight=(3, 1))
    assert _columns(pool) == [[3, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("partly", "expected"),
    [
        (EngineLoad(_NAN, 3, 0.9), (7, 3, 0.9)),
        (EngineLoad(2, _NAN, 0.9), (2, 6, 0.9)),
        (EngineLoad(2, 3, _NAN), (2, 3, 0.4)),
        (EngineLoad(_NAN, _NAN, _NAN), (4, 6, 0.4)),
    ],
)
def test_each_number_that_is_not_told_is_filled_in(
    partly: EngineLoad, expected: tuple[float, ...]
) -> None:
    pool = _pool(EngineLoad(0, 6, 0.4), partly, in_flight=(0, 10))
    assert tuple(column[1] for column in _columns(pool)) == expected


def test_what_is_stale_is_no_longer_known() -> None:
    pool = _pool(EngineLoad(90, 80, 0.9), EngineLoad(1, 4, 0.3), in_flight=(5, 5))
    pool.scraped(1, EngineLoad(1, 4, 0.3), _NOW + 6)
    assert _columns(pool, _NOW + 6) == [[1, 1], [4, 4], [0.3, 0.3]]


def test_endpoints_that_have_left_are_no_example() -> None:
    pool = _pool(EngineLoad(0, 50, 0.9), EngineLoad(0, 2, 0.1), None, in_flight=(1, 0, 9))
    pool.apply([endpoint(1), endpoint(2)])
    assert _columns(pool) == [[0, 7], [2, 2], [0.1, 0.1]]


_NUMBERS = st.just(_NAN) | st.integers(0, 20)


@settings(max_examples=100)
@given(
    loads=st.lists(
        st.none() | st.builds(EngineLoad, _NUMBERS, _NUMBERS, st.just(_NAN) | st.floats(0, 1)),
        min_size=1,
        max_size=12,
    ),
    before=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    since=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    age_s=st.sampled_from([0.0, 4.0, 6.0]),
)
def test_nothing_is_unknown_and_nothing_absurd(
    loads: list[EngineLoad | None], before: list[int], since: list[int], age_s: float
) -> None:
    pool = _pool(*loads, in_flight=tuple(before[: len(loads)]))
    for slot in range(len(loads)):
        for _ in range(since[slot]):
            pool.lease(slot)
    load: EffectiveLoad = pool.effective_load(_NOW + age_s)
    for column in (load.waiting, load.running, load.kv_ratio):
        assert column.shape == pool.active.shape
        assert np.isfinite(column[pool.active]).all()
        assert (column[pool.active] >= 0).all()
    assert (load.kv_ratio[pool.active] <= 1).all()
    for slot, told in enumerate(loads):
        if age_s > pool.stale_after_s or told is None:
            assert load.waiting[slot] + load.running[slot] == pool.in_flight[slot]
        elif not math.isnan(told.waiting):
            assert load.waiting[slot] == told.waiting + since[slot]
