"""What an engine says with a response, which is less than its page of metrics says."""

import math

from epp.core.pool import EngineLoad, Pool

from ..support import endpoint

_NOW = 1000.0
_NAN = math.nan


def _pool() -> Pool:
    pool = Pool(max_concurrency=100, stale_after_s=5.0)
    pool.apply([endpoint(1)])
    return pool


def _load(pool: Pool, now: float) -> list[float]:
    load = pool.effective_load(now)
    return [float(column[0]) for column in (load.waiting, load.running, load.kv_ratio)]


def test_what_a_report_tells_is_the_load_and_the_rest_stays_as_it_should_be_by_now() -> None:
    pool = _pool()
    pool.scraped(0, EngineLoad(3, 7, 0.5), _NOW)
    leases = [pool.lease(0) for _ in range(4)]
    pool.reported(0, EngineLoad(1, _NAN, 0.6), _NOW + 4)
    assert _load(pool, _NOW + 4) == [1, 11, 0.6]
    leases.pop().release()
    assert _load(pool, _NOW + 9) == [0, 10, 0.6], "it is as fresh as the report"
    pool.reported(0, EngineLoad(_NAN, 2, _NAN), _NOW + 9)
    assert _load(pool, _NOW + 14) == [0, 2, 0.6]


def test_a_report_without_requests_makes_what_is_known_of_them_no_younger() -> None:
    pool = _pool()
    pool.scraped(0, EngineLoad(3, 7, 0.5), _NOW)
    pool.lease(0)
    pool.reported(0, EngineLoad(_NAN, _NAN, 0.6), _NOW + 4)
    assert _load(pool, _NOW + 4) == [4, 8, 0.6]
    assert _load(pool, _NOW + 6) == [1, 0, 0], "stale"


def test_where_nothing_else_is_known_a_report_is_what_there_is() -> None:
    pool = _pool()
    pool.lease(0)
    for now in (_NOW, _NOW + 100):
        pool.reported(0, EngineLoad(_NAN, _NAN, 0.6), now)
        assert _load(pool, now) == [1, 0, 0.6]
    pool.reported(0, EngineLoad(5, _NAN, _NAN), _NOW + 200)
    assert _load(pool, _NOW + 200) == [5, 0, 0.6]


def test_what_a_report_does_not_speak_of_was_told_before() -> None:
    page = EngineLoad(
        3,
        7,
        0.5,
        active_adapters=frozenset("a"),
        waiting_adapters=frozenset("b"),
        max_adapters=4,
        block_tokens=16,
        cache_blocks=1000,
        started_s=5.0,
        attributes={"x": 1.0, "y": 2.0},
    )
    report = EngineLoad(_NAN, _NAN, _NAN, attributes={"y": 3.0})
    pool = _pool()
    pool.scraped(0, page, _NOW)
    pool.reported(0, report, _NOW)
    assert pool.told(0) == EngineLoad(
        3,
        7,
        0.5,
        active_adapters=frozenset("a"),
        waiting_adapters=frozenset("b"),
        max_adapters=4,
        block_tokens=16,
        cache_blocks=1000,
        started_s=5.0,
        attributes={"x": 1.0, "y": 3.0},
    )
    assert page.completed(report) == EngineLoad(
        3,
        7,
        0.5,
        active_adapters=frozenset("a"),
        waiting_adapters=frozenset("b"),
        max_adapters=4,
        block_tokens=16,
        cache_blocks=1000,
        started_s=5.0,
        attributes={"x": 1.0, "y": 2.0},
    )
    assert report.completed(None) is report


def test_attributes_that_ever_new_names_are_told_for_do_not_pile_up() -> None:
    load: EngineLoad | None = None
    for number in range(1000):
        told = EngineLoad(math.nan, math.nan, math.nan, attributes={f"metric {number}": 1.0})
        load = told.completed(load)
        assert f"metric {number}" in load.attributes
        assert len(load.attributes) <= 256
