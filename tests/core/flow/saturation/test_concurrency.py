import msgspec
import pytest

from epp.core.flow.saturation import (
    AdaptiveOptions,
    ConcurrencyOptions,
    SaturationOptions,
    UtilizationOptions,
    known_limit,
)
from tests.core.flow.saturation.world import World


def test_a_fixed_limit_that_nothing_changes() -> None:
    world = World(ConcurrencyOptions(max_requests=3))
    assert world.dispatch() == 3
    assert world.reason == "inflight"
    world.scrape(9, 3, 1.0)
    world.end()
    assert world.limit() == 3


def test_tokens_alone_limit_nothing_else() -> None:
    world = World(ConcurrencyOptions(max_requests=None, max_tokens=100))
    pool = world.pool
    leases = [pool.lease(0, 33) for _ in range(3)]
    assert pool.has_room
    leases.append(pool.lease(0, 1))
    assert not pool.has_room
    leases.pop().release()
    assert pool.has_room
    assert world.limit() == known_limit(ConcurrencyOptions(max_requests=None)) >= 1_000_000


def test_of_both_limits_the_one_that_is_reached_first() -> None:
    world = World(ConcurrencyOptions(max_requests=2, max_tokens=100))
    first = world.pool.lease(0, 100)
    assert not world.pool.has_room
    first.release()
    world.pool.lease(0, 1)
    world.pool.lease(0, 1)
    assert not world.pool.has_room


def test_limits_by_label() -> None:
    options = ConcurrencyOptions(
        max_requests=10, label="gpu", max_requests_by_label={"small": 2, "large": 50}
    )
    world = World(options, {"gpu": "small"}, {"gpu": "large"}, {"gpu": "other"}, {})
    assert [world.limit(slot) for slot in range(4)] == [2, 50, 10, 10]


def test_an_endpoint_whose_label_changes_gets_the_limit_of_the_new_one() -> None:
    options = ConcurrencyOptions(
        max_requests=10, label="gpu", max_requests_by_label={"small": 2, "large": 50}
    )
    world = World(options, {"gpu": "small"})
    (endpoint,) = world.endpoints
    assert world.pool.apply([msgspec.structs.replace(endpoint, labels={"gpu": "large"})])
    assert world.limit() == 50


@pytest.mark.parametrize("options", [AdaptiveOptions(), UtilizationOptions()])
def test_other_labels_do_not_make_an_engine_unknown(options: SaturationOptions) -> None:
    world = World(options, {"gpu": "small"})
    world.pool.set_limit(0, 33, "inflight")
    (endpoint,) = world.endpoints
    assert world.pool.apply([msgspec.structs.replace(endpoint, labels={"gpu": "large"})])
    assert world.limit() == 33


def test_known_limit_is_the_fixed_one() -> None:
    assert known_limit(ConcurrencyOptions(max_requests=7)) == 7
