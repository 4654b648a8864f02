"""``inflight-load-producer``."""

from typing import Any

import pytest

from epp.core.pool import Lease, Pool
from epp.core.request import Request
from epp.core.scheduling.in_flight import InFlightLoad

from ..support import completed
from .support import NOW, FixedHits, candidates_of, make, pool_of, request_of


class _World:
    """A producer and its pool."""

    def __init__(self, endpoints: int = 2, hits: FixedHits | None = None, **parameters: Any):
        self.producer = make(
            "inflight-load-producer",
            parameters,
            approx_prefix_cache_producer=hits or FixedHits(0),
        )
        self.pool: Pool = pool_of(endpoints)

    def place(self, slot: int, **request: Any) -> tuple[Request, Lease]:
        placed = request_of(**request)
        lease = self.pool.lease(slot, placed.prompt_tokens)
        self.producer.placed(placed, lease, NOW)
        return placed, lease

    def end(self, placed: tuple[Request, Lease]) -> None:
        request, lease = placed
        self.producer.ended(request, lease, completed(), NOW)
        lease.release()

    def move(self, placed: tuple[Request, Lease], slot: int) -> None:
        request, lease = placed
        from_slot = lease.slot
        lease.move(self.pool.endpoint(slot).destination)
        self.producer.moved(request, lease, from_slot, NOW)

    def load(self, **request: Any) -> InFlightLoad:
        load: InFlightLoad = self.producer.produce(candidates_of(self.pool, request_of(**request)))
        return load

    def tokens(self) -> list[float]:
        tokens: list[float] = self.load().tokens.tolist()
        return tokens


def test_prompts_in_flight_count_until_they_have_ended() -> None:
    world = _World()
    first, second = world.place(0, prompt_tokens=100), world.place(1, prompt_tokens=40)
    assert world.tokens()[:2] == [100.0, 40.0]
    world.move(second, 0)
    assert world.tokens()[:2] == [140.0, 0.0]
    world.end(first)
    world.end(second)
    assert world.tokens()[:2] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("parameters", "max_output_tokens", "estimate"),
    [
        ({}, None, 150),
        ({}, 50, 50),
        ({}, 0, 0),
        ({}, 1000, 150),
        ({"outputRatio": 0}, 50, 0),
        ({"outputRatio": 0.125}, None, 13),  # 12.5, rounded up
        ({"maxEstimatedOutputTokens": 20}, None, 20),
        ({"maxEstimatedOutputTokens": 20}, 10, 10),
        ({"maxEstimatedOutputTokens": 0}, None, 0),
        ({"maxEstimatedOutputTokens": 900}, None, 150),
    ],
)
def test_answers_that_are_expected_count_where_that_is_wanted(
    parameters: dict[str, Any], max_output_tokens: int | None, estimate: int
) -> None:
    request = {"prompt_tokens": 100, "max_output_tokens": max_output_tokens}
    plain = _World(**parameters)
    plain.place(0, **request)
    assert plain.tokens()[:2] == [100.0, 0.0]

    world = _World(addEstimatedOutputTokens=True, **parameters)
    placed = world.place(0, **request)
    assert world.tokens()[:2] == [100.0 + estimate, 0.0]
    world.move(placed, 1)
    assert world.tokens()[:2] == [0.0, 100.0 + estimate]
    world.end(placed)
    assert world.tokens()[:2] == [0.0, 0.0]


def test_requests_that_others_have_placed_are_left_alone() -> None:
    world = _World(addEstimatedOutputTokens=True)
    lease = world.pool.lease(0, 100)
    world.move((request_of(prompt_tokens=100), lease), 1)
    assert world.tokens()[:2] == [0.0, 100.0]
    world.end((request_of(prompt_tokens=100), lease))
    assert world.tokens()[:2] == [0.0, 0.0]


def test_a_pool_that_grows() -> None:
    world = _World(2, addEstimatedOutputTokens=True)
    world.place(0, prompt_tokens=10)
    world.pool.apply([*(member for member, _, _ in pool_of(30))])
    assert world.tokens()[0] == 25.0
    world.place(29, prompt_tokens=10)
    assert world.tokens()[28:30] == [0.0, 25.0]


@pytest.mark.parametrize(
    ("prompt_tokens", "total", "blocks", "uncached"),
    [
        (640, 10, [0, 4, 10], [640, 384, 0]),
        (700, 10, [0, 10], [700, 60]),
        (600, 10, [0, 10], [640, 0]),  # the last block is counted whole
        (50, 0, [0, 0], [50, 50]),
        (0, 0, [], [0, 0]),
    ],
)
def test_what_is_cached_is_not_added(
    prompt_tokens: int, total: int, blocks: list[int], uncached: list[int]
) -> None:
    world = _World(3, hits=FixedHits(total, blocks))
    load = world.load(prompt_tokens=prompt_tokens)
    assert load.uncached_tokens[: len(uncached)].tolist() == uncached


def test_what_means_nothing_here_is_accepted() -> None:
    assert _World(syncCrossReplicaState=False).tokens()[:2] == [0.0, 0.0]


@pytest.mark.parametrize("estimates", [True, False])
def test_a_successor_counts_the_answers_that_are_on_their_way(estimates: bool) -> None:
    world = _World(addEstimatedOutputTokens=True)
    placed = world.place(0, prompt_tokens=100)
    former, world.producer = world.producer, _World(addEstimatedOutputTokens=estimates).producer
    world.producer.succeed(former)
    assert world.tokens()[:2] == [250.0 if estimates else 100.0, 0.0]
    world.move(placed, 1)
    assert world.tokens()[:2] == [0.0, 250.0 if estimates else 100.0]
    world.end(placed)
    last = _World(addEstimatedOutputTokens=True).producer
    last.succeed(world.producer)
    world.producer = last
    assert world.tokens()[:2] == [0.0, 0.0]
