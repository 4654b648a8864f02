import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.flow.saturation import Adaptive, AdaptiveOptions, known_limit, make_detector
from epp.core.pool import EngineLoad, Pool
from epp.core.timers import Timers
from tests.core.flow.saturation.world import World

FIRST = 4


@pytest.fixture
def world() -> World:
    return World(AdaptiveOptions(first_requests=FIRST))


def grow(world: World, reports: int) -> None:
    """Have an engine that takes all that it gets, at once."""
    for _ in range(reports):
        world.dispatch()
        world.scrape(0, len(world.leases), 0.001 * len(world.leases))


def fill(world: World, runs: int, reports: int, *, ends: int = 1) -> None:
    """Have an engine that runs so many and lets the rest wait."""
    for report in range(reports):
        world.dispatch()
        in_flight = len(world.leases)
        running = min(runs, in_flight)
        world.scrape(in_flight - running, running, 0.3 + 0.001 * report)
        world.end(min(ends, in_flight))


def test_it_starts_with_a_few_because_nothing_is_known(world: World) -> None:
    assert world.dispatch() == FIRST
    assert world.reason == "warming"
    assert known_limit(AdaptiveOptions(unknown_requests=32)) == 32


def test_the_limit_doubles_while_it_is_used_and_nothing_waits(world: World) -> None:
    grow(world, 3)
    assert (world.limit(), world.reason) == (8 * FIRST, "inflight")


def test_a_limit_that_is_not_used_stays(world: World) -> None:
    world.dispatch(FIRST - 1)
    for report in range(20):
        world.scrape(0, FIRST - 1, 0.1 + 0.001 * report)
    assert world.limit() == FIRST


def test_a_limit_that_was_used_between_two_reports_counts(world: World) -> None:
    world.dispatch()
    world.end(2)
    world.scrape(0, 2, 0.1)
    assert world.limit() == 2 * FIRST


def test_it_never_exceeds_the_most() -> None:
    world = World(AdaptiveOptions(first_requests=4, max_requests=10))
    grow(world, 5)
    assert world.limit() == 10


def test_a_report_that_does_not_know_of_what_is_in_flight_raises_nothing(world: World) -> None:
    grow(world, 4)
    world.dispatch()
    before = world.limit()
    world.scrape(0, before // 2, 0.1)
    assert world.limit() == before


def test_what_waits_for_a_moment_is_no_queue(world: World) -> None:
    grow(world, 3)
    world.dispatch()
    before = world.limit()
    world.scrape(12, before - 12, 0.1)
    world.scrape(10, before - 10, 0.2)
    world.scrape(0, before, 0.3)
    assert world.limit() >= before


def test_a_queue_that_drains_is_no_standing_queue(world: World) -> None:
    grow(world, 3)
    world.dispatch()
    before = world.limit()
    for waiting in (16, 9, 5, 3):
        world.scrape(waiting, before - waiting, 0.1 + 0.01 * waiting)
    assert world.limit() == before


def test_a_standing_queue_brings_the_limit_down_to_what_the_engine_runs(world: World) -> None:
    grow(world, 4)
    fill(world, 20, 40)
    assert 20 <= world.limit() <= 23
    assert world.reason == "waiting"


def test_the_same_old_report_brings_it_down_no_further_than_that(world: World) -> None:
    grow(world, 4)
    world.dispatch()
    for report in range(10):
        world.scrape(30, 20 + report % 2, 0.5)
        world.end(max(0, min(6, len(world.leases) - 22)))
        world.dispatch()
    assert world.limit() == 22


def test_requests_of_others_are_not_counted_as_ours(world: World) -> None:
    grow(world, 2)  # in flight: 8
    world.dispatch()
    for report in range(20):
        world.scrape(8, 28 + report % 2, 0.5)
    assert world.limit() <= 14


def test_after_a_queue_it_rises_by_one_and_then_faster(world: World) -> None:
    grow(world, 4)
    fill(world, 20, 40)
    before = world.limit()
    limits = []
    for _ in range(8):
        grow(world, 1)
        limits.append(world.limit())
    steps = [b - a for a, b in zip([before, *limits], limits, strict=False)]
    assert steps[:3] == [1, 1, 1]
    assert steps[-1] >= 4


def test_a_limit_that_was_not_used_for_long_is_searched_by_doubling(world: World) -> None:
    grow(world, 4)
    fill(world, 20, 40)
    world.end(len(world.leases))
    for report in range(10):
        world.dispatch(2)
        world.scrape(0, len(world.leases), 0.1 + 0.001 * report)
        world.end(len(world.leases))
    before = world.limit()
    grow(world, 1)
    assert world.limit() == 2 * before


def test_the_kv_cache_bounds_the_rise(world: World) -> None:
    world.dispatch()
    world.scrape(0, FIRST, 0.6)
    assert (world.limit(), world.reason) == (6, "kv")  # 4 requests have 0.6, 6 have 0.9
    world.dispatch()
    world.scrape(0, 6, 0.97)
    assert (world.limit(), world.reason) == (6, "kv")


def test_many_short_responses_make_a_queue_that_is_none(world: World) -> None:
    grow(world, 5)
    world.dispatch()
    world.end(64, output_tokens=10)
    grow(world, 1)
    before = world.limit()
    for report in range(5):
        world.dispatch()
        world.scrape(6, before - 6, 0.3 + 0.001 * report)
    assert world.limit() >= before


def test_an_idle_engine_takes_a_probe_whatever_is_in_flight(world: World) -> None:
    world.dispatch()
    world.scrape(0, 0, 0.0)
    assert world.dispatch() == 1


def test_a_metric_that_is_missing_is_no_load(world: World) -> None:
    world.dispatch()
    world.scrape(math.nan, FIRST, math.nan)
    assert world.limit() == 2 * FIRST


def test_when_reports_stop_the_last_limit_stays() -> None:
    world = World(AdaptiveOptions(first_requests=FIRST, stale_after_s=5.0))
    grow(world, 2)
    world.wait(4.9)
    assert world.reason == "inflight"
    world.wait(0.1)
    assert (world.limit(), world.reason) == (4 * FIRST, "stale")
    assert len(world.timers) == 0
    world.scrape(0, len(world.leases), 0.1)
    assert world.reason == "inflight"


def test_frozen_reports_are_found_out_and_what_they_did_is_undone(world: World) -> None:
    grow(world, 4)
    world.dispatch()
    world.scrape(30, 4, 0.5)
    sound = world.limit()
    for _ in range(3):
        world.end(2)
        world.dispatch()
        world.scrape(30, 4, 0.5)
    assert (world.limit(), world.reason) == (sound, "stale")


def test_an_engine_that_says_for_long_that_it_is_idle_gets_a_probe_now_and_then(
    world: World,
) -> None:
    world.dispatch()
    world.scrape(0, 0, 0.0)
    probes = [world.dispatch()]
    for _ in range(20):
        world.scrape(0, 0, 0.0)
        probes.append(world.dispatch())
    assert sum(probes[5:]) == 3  # one in 5 s, whatever is in flight
    assert world.reason == "stale"


def test_reports_of_an_engine_to_which_nothing_happens_are_not_frozen(world: World) -> None:
    world.dispatch(1)
    for _ in range(30):
        world.scrape(0, 1, 0.5)
    assert world.reason != "stale"


def test_an_endpoint_that_comes_back_starts_with_a_few(world: World) -> None:
    grow(world, 4)
    world.rejoin()
    assert (world.limit(), world.reason) == (FIRST, "warming")
    world.wait(60)
    assert world.reason == "warming"


def test_without_reports_it_grows_for_as_long_as_that_brings_more(world: World) -> None:
    for _ in range(400):  # an engine that runs 20, each for 2 s
        world.dispatch()
        ends = max(1, round(min(20, len(world.leases)) / 4))
        world.wait(0.5)
        world.end(ends, first_byte_s=0.1)
    assert 16 <= world.limit() <= 40


def test_a_slot_that_was_taken_over_and_never_joined_is_let_be() -> None:
    pool = Pool(max_concurrency=1)
    detector = make_detector(AdaptiveOptions(), pool, Timers())
    assert isinstance(detector, Adaptive)
    lease = pool.adopt("10.0.0.9:80")
    detector.dispatched(lease.slot, 0.0)
    detector.scraped(lease.slot, EngineLoad(waiting=0, running=0, kv_ratio=0), 0.0)
    assert pool.limit[lease.slot] == 1


_REPORT = st.tuples(
    st.floats(0, 200), st.floats(0, 200), st.floats(0, 1.0), st.floats(0.1, 8.0)
)  # fmt: skip


@given(steps=st.lists(st.tuples(_REPORT, st.integers(0, 40), st.booleans()), max_size=60))
def test_whatever_is_reported_the_limit_is_at_least_one(
    steps: list[tuple[tuple[float, float, float, float], int, bool]],
) -> None:
    world = World(AdaptiveOptions(first_requests=FIRST, max_requests=100))
    for (waiting, running, kv_ratio, after_s), ends, reports in steps:
        world.dispatch()
        if reports:
            world.scrape(waiting, running, kv_ratio, after_s=after_s)
        else:
            world.wait(after_s)
        world.end(min(ends, len(world.leases)), first_byte_s=after_s / 10)
        assert 1 <= world.limit() <= 100
        assert world.pool.closed_by(0) in {None, "warming", "inflight", "waiting", "kv", "stale"}
