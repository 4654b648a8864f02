import math

from epp.core.flow.saturation import UtilizationOptions, known_limit
from tests.core.flow.saturation.world import World


def test_it_starts_with_a_few_because_nothing_is_known() -> None:
    world = World(UtilizationOptions(unknown_requests=4))
    assert world.dispatch() == 4
    assert world.reason == "warming"
    assert known_limit(UtilizationOptions(unknown_requests=4)) == 4


def test_a_report_makes_room_for_what_the_queue_still_takes() -> None:
    world = World(UtilizationOptions(max_waiting=5, unknown_requests=10))
    world.dispatch(10)
    world.scrape(2, 8, 0.3)
    assert world.limit() == 13
    assert world.dispatch() == 3  # what went since the report counts
    assert world.reason == "waiting"


def test_too_long_a_queue_has_to_drain_first() -> None:
    world = World(UtilizationOptions(max_waiting=5, unknown_requests=10))
    world.dispatch(10)
    world.scrape(8, 2, 0.3)
    assert world.limit() == 7
    world.end(3)
    assert world.dispatch() == 0
    world.end()
    assert world.dispatch() == 1


def test_above_the_kv_threshold_there_is_no_room() -> None:
    world = World(UtilizationOptions(max_kv_ratio=0.8, unknown_requests=10))
    world.dispatch(10)
    world.scrape(0, 10, 0.8)
    assert world.limit() == 10
    assert world.reason == "kv"
    world.scrape(0, 10, 1.0)
    assert world.limit() == 8


def test_headroom_raises_both_thresholds() -> None:
    world = World(UtilizationOptions(max_waiting=5, headroom_ratio=0.2, unknown_requests=10))
    world.dispatch(10)
    world.scrape(0, 10, 0.9)
    assert world.limit() == 16


def test_the_limit_is_never_below_one() -> None:
    world = World(UtilizationOptions())
    world.dispatch(1)
    world.scrape(50, 1, 1.0)
    assert world.limit() == 1
    world.end()
    world.scrape(0, 0, 1.0)
    assert world.limit() == 1


def test_an_idle_engine_takes_a_probe_whatever_is_in_flight() -> None:
    world = World(UtilizationOptions(max_waiting=0.5, unknown_requests=3))
    world.dispatch(3)
    world.scrape(0, 0, 0.0)
    assert world.dispatch() == 1


def test_a_metric_that_is_missing_is_no_load() -> None:
    world = World(UtilizationOptions(unknown_requests=3))
    world.dispatch(3)
    world.scrape(1, 2, math.nan)
    assert world.limit() == 7


def test_when_reports_stop_the_last_limit_stays() -> None:
    world = World(UtilizationOptions(stale_after_s=5.0))
    world.dispatch(2)
    world.scrape(0, 2, 0.1)
    world.wait(4.9)
    assert world.reason == "inflight"
    world.wait(0.1)
    assert (world.limit(), world.reason) == (7, "stale")
    assert len(world.timers) == 0
    world.scrape(0, 2, 0.1)
    assert world.reason == "inflight"


def test_an_endpoint_that_comes_back_is_one_of_which_nothing_is_known() -> None:
    world = World(UtilizationOptions(unknown_requests=4))
    world.scrape(0, 0, 0.1)
    world.rejoin()
    assert (world.limit(), world.reason) == (4, "warming")
    world.wait(60)
    assert world.reason == "warming"
