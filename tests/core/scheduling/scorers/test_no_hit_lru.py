"""``no-hit-lru-scorer``."""

from typing import Any

import pytest

from epp.core.request import Request

from ..support import NOW, FixedHits, candidates_of, make, pool_of, request_of


class _World:
    """A scorer, its pool, and what is known to be cached."""

    def __init__(self, endpoints: int = 4, **parameters: Any) -> None:
        self.hits = FixedHits(4)
        self.scorer = make("no-hit-lru-scorer", parameters, approx_prefix_cache_producer=self.hits)
        self.pool = pool_of(endpoints)

    def scores(self, request: Request | None = None, slots: list[int] | None = None) -> list[float]:
        scores: list[float] = self.scorer.score(candidates_of(self.pool, request, slots=slots))
        return [round(score, 6) for score in scores]

    def place(self, slot: int, *, is_cold: bool = True) -> Any:
        request = request_of()
        self.hits.blocks = [] if is_cold else [1]
        self.scores(request)
        self.hits.blocks = []
        lease = self.pool.lease(slot)
        self.scorer.placed(request, lease, NOW)
        return request, lease


def test_all_score_the_same_for_a_prompt_that_a_candidate_has() -> None:
    world = _World()
    world.hits.blocks = [0, 1]
    assert world.scores() == [0.5] * 4
    assert world.scores(slots=[1]) == [0.5]
    assert world.scores(slots=[2, 3]) == [1.0, 0.0]


def test_who_never_got_a_new_prompt_comes_first_then_who_got_one_longest_ago() -> None:
    world = _World()
    assert world.scores() == [1.0, 0.666667, 0.333333, 0.0]
    world.place(0)
    assert world.scores() == [0.0, 1.0, 0.666667, 0.333333]
    world.place(2)
    assert world.scores() == [0.333333, 1.0, 0.0, 0.666667]
    world.place(0)
    assert world.scores() == [0.0, 1.0, 0.333333, 0.666667]
    for slot in (1, 3):
        world.place(slot)
    assert world.scores() == [0.666667, 0.333333, 1.0, 0.0]
    assert world.scores(slots=[3, 0]) == [0.0, 1.0]
    assert world.scores(slots=[3]) == [1.0]


def test_prompts_take_turns() -> None:
    world = _World()
    for turn in range(12):
        scores = world.scores()
        best = scores.index(max(scores))
        assert best == turn % 4
        world.place(best)


def test_only_a_new_prompt_makes_an_endpoint_used() -> None:
    world = _World()
    first = world.scores()
    world.place(0, is_cold=False)
    assert world.scores() == first
    world.scorer.placed(request_of(), world.pool.lease(0), NOW)  # never scored
    assert world.scores() == first


def test_who_really_served_is_used_too() -> None:
    world = _World(2)
    request, lease = world.place(0)
    world.place(1)
    assert world.scores() == [1.0, 0.0]
    world.scorer.moved(request, lease, 1, NOW)  # the lease is at the first endpoint
    assert world.scores() == [0.0, 1.0]
    request, lease = world.place(1, is_cold=False)
    world.scorer.moved(request, lease, 0, NOW)
    assert world.scores() == [0.0, 1.0]


@pytest.mark.parametrize("hook", ["freed", "restarted"])
def test_a_new_engine_was_never_used(hook: str) -> None:
    world = _World(3)
    for slot in (1, 0, 2):
        world.place(slot)
    assert world.scores() == [0.5, 1.0, 0.0]
    getattr(world.scorer, hook)(2)
    assert world.scores() == [0.0, 0.5, 1.0]
    getattr(world.scorer, hook)(2)


def test_no_more_endpoints_are_remembered_than_told() -> None:
    world = _World(4, lruSize=2)
    for slot in (0, 1, 2):
        world.place(slot)
    assert world.scores() == [1.0, 0.333333, 0.0, 0.666667]
    assert len(world.scorer._slots) == 2
    for slot in (3, 2, 0):  # 3 is the one that was used longest ago
        world.place(slot)
    assert world.scores() == [0.0, 1.0, 0.333333, 0.666667]


def test_the_former_names_of_its_producer_have_no_effect() -> None:
    world = _World(2, prefixPluginType="prefix-cache-scorer", prefixPluginName="old")
    assert world.scores() == [1.0, 0.0]


def test_a_pool_that_grows() -> None:
    world = _World(8)
    world.place(7)
    others = pool_of(20)
    world.pool.apply([others.endpoint(slot) for slot in range(20)])
    world.place(19)
    scores = world.scores()
    assert (scores[0], scores[7], scores[19]) == (1.0, round(1 / 19, 6), 0.0)
