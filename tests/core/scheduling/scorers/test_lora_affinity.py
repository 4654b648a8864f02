"""``lora-affinity-scorer``."""

import random
from typing import Any

import msgspec
import pytest

from epp.core.pool import EngineLoad, Lease, Pool
from epp.core.request import Request
from epp.core.scheduling.scorers.lora_affinity import LoraAffinityScorer

from ...support import completed
from ..support import NOW, candidates_of, make, pool_of, request_of, told


def _told(active: str = "", waiting: str = "", most: int = 2) -> EngineLoad:
    """Return what an engine tells of adapters whose names are letters."""
    return told(
        active_adapters=frozenset(active), waiting_adapters=frozenset(waiting), max_adapters=most
    )


class _World:
    """A scorer, and a pool of engines that tell of their adapters."""

    def __init__(self, *loads: EngineLoad | None) -> None:
        self.scorer: LoraAffinityScorer = make("lora-affinity-scorer")
        self.pool: Pool = pool_of(len(loads))
        for slot, load in enumerate(loads):
            self.scorer.joined(self.pool, slot)
            if load is not None:
                self.tell(slot, load)

    def tell(self, slot: int, load: EngineLoad) -> None:
        self.pool.scraped(slot, load, NOW)
        self.scorer.scraped(self.pool, slot, load, NOW)

    def scores(self, model: str) -> list[float]:
        scores: list[float] = self.scorer.score(
            candidates_of(self.pool, request_of(model))
        ).tolist()
        return scores

    def place(self, slot: int, model: str) -> tuple[Request, Lease]:
        request, lease = request_of(model), self.pool.lease(slot)
        self.scorer.placed(request, lease, NOW)
        return request, lease

    def end(self, placed: tuple[Request, Lease], status: int = 200) -> None:
        request, lease = placed
        ending = msgspec.structs.replace(completed(), status=status)
        self.scorer.ended(request, lease, ending, NOW)
        lease.release()

    def move(self, placed: tuple[Request, Lease], slot: int) -> None:
        request, lease = placed
        from_slot = lease.slot
        assert lease.move(self.pool.endpoint(slot).destination)
        self.scorer.moved(request, lease, from_slot, NOW)


@pytest.mark.parametrize(
    ("load", "score"),
    [
        (_told("ab"), 1.0),
        (_told("ab", "c", most=3), 1.0),
        (_told("b"), 0.8),
        (_told("b", "a", most=3), 0.8),  # room comes before waiting
        (_told("b", "c", most=5), 0.8),
        (_told("bc", "a"), 0.6),
        (_told("b", "a", most=2), 0.6),
        (_told("b", "c", most=2), 0.0),
        (_told("bc"), 0.0),
        (_told("", "", most=1), 0.8),
        (_told("", "", most=0), 0.0),
        (None, 0.0),
    ],
)
def test_what_the_engine_tells(load: EngineLoad | None, score: float) -> None:
    assert _World(load).scores("a") == [score]


def test_each_candidate_has_its_own_score() -> None:
    world = _World(_told("ab"), _told("bc"), _told("c"), _told("c", "a"))
    assert world.scores("a") == [1.0, 0.0, 0.8, 0.6]
    scores = world.scorer.score(candidates_of(world.pool, request_of("a"), slots=[3, 0]))
    assert scores.tolist() == [0.6, 1.0]


def test_what_was_dispatched_since_takes_a_place() -> None:
    world = _World(_told("x"), _told("abc", most=3))
    placed = world.place(0, "a")
    assert world.scores("a") == [1.0, 1.0]
    assert world.scores("b") == [0.0, 1.0]
    assert world.scores("x") == [1.0, 0.0]
    queued = world.place(0, "b")  # no place is left: it waits
    assert world.scores("b") == [0.6, 1.0]
    world.end(placed)
    assert world.scores("b") == [1.0, 1.0]
    world.end(queued)


def test_an_adapter_stays_loaded_until_its_place_is_needed() -> None:
    world = _World(_told("", most=2), _told("abc", most=3))
    for model in "abab":
        world.end(world.place(0, model))
    assert (world.scores("a")[0], world.scores("b")[0], world.scores("c")[0]) == (1.0, 1.0, 0.8)
    running = world.place(0, "c")  # a was used longest ago
    assert (world.scores("a")[0], world.scores("b")[0], world.scores("c")[0]) == (0.8, 1.0, 1.0)
    world.tell(0, _told("c"))
    assert (world.scores("a")[0], world.scores("b")[0], world.scores("c")[0]) == (0.8, 1.0, 1.0)
    world.end(running)
    world.tell(0, _told("xy"))  # somebody else's
    assert [world.scores(model)[0] for model in "abcx"] == [0.0, 0.0, 0.0, 1.0]
    world.tell(0, _told())
    assert [world.scores(model)[0] for model in "abcxy"] == [0.8, 0.8, 0.8, 1.0, 1.0]


def test_a_request_that_moves_takes_its_adapter_along() -> None:
    world = _World(_told(most=1), _told(most=1), _told("a"))
    placed = world.place(0, "a")
    world.move(placed, 1)
    assert world.scores("a") == [1.0, 1.0, 1.0]  # it may have been loaded before it failed
    assert world.scores("b")[:2] == [0.8, 0.0]
    world.end(placed)
    assert world.scores("b")[:2] == [0.8, 0.8]


def test_what_the_engine_has_used_meanwhile_was_used_last() -> None:
    world = _World(_told(most=2), _told("abc", most=3))
    for model in "ab":
        world.end(world.place(0, model))
    for active in ("a", ""):
        world.tell(0, _told(active))
    world.place(0, "c")
    assert [world.scores(model)[0] for model in "abc"] == [1.0, 0.8, 1.0]


def test_a_request_that_has_not_ended_keeps_its_place_whatever_a_page_says() -> None:
    world = _World(_told(most=1), _told("ab"))
    placed = world.place(0, "a")
    for active in ("a", ""):
        world.tell(0, _told(active, most=1))
        assert (world.scores("a")[0], world.scores("b")[0]) == (1.0, 0.0)
    world.end(placed)
    assert (world.scores("a")[0], world.scores("b")[0]) == (1.0, 0.8)


def test_who_came_first_keeps_its_place() -> None:
    world = _World(_told(most=1), _told("ab"))
    first, _, again = (world.place(0, model) for model in "aba")
    assert (world.scores("a")[0], world.scores("b")[0]) == (1.0, 0.6)
    world.end(first)
    assert (world.scores("a")[0], world.scores("b")[0]) == (1.0, 0.6)
    world.end(again)
    assert (world.scores("a")[0], world.scores("b")[0]) == (0.0, 1.0)


def test_the_base_model_takes_no_place() -> None:
    world = _World(_told("a", most=2), _told(most=1))
    placed = [world.place(1, "base") for _ in range(5)]
    world.tell(1, _told(most=1))
    assert world.scores("base") == [0.8, 0.8]
    assert world.scores("a") == [1.0, 0.8]
    for each in placed:
        world.end(each)
    assert world.scorer._endpoints[1]._requests == {}


@pytest.mark.parametrize("hook", ["freed", "restarted"])
def test_a_new_engine_has_nothing_loaded(hook: str) -> None:
    world = _World(_told("a", "b", most=3), _told("b"))
    old = world.place(0, "a")
    getattr(world.scorer, hook)(0)
    assert world.scores("a") == [0.0, 0.8]
    assert world.scores("b") == [0.0, 1.0]
    world.tell(0, _told(most=1))
    world.end(old)
    assert world.scores("a") == [0.8, 0.8]
    getattr(world.scorer, hook)(5)


def test_a_successor_counts_the_requests_that_run_and_their_ends() -> None:
    world = _World(_told("a", most=1), None)
    placed = world.place(0, "a")
    former, world.scorer = world.scorer, make("lora-affinity-scorer")
    world.scorer.succeed(former)
    world.tell(0, _told(most=1))
    world.end(placed)
    world.tell(0, _told("b", most=1))
    assert world.scores("a") == [0.0, 0.0], "nobody needs it any more"


def test_requests_that_others_have_placed_are_not_counted() -> None:
    world = _World(_told(most=1), _told("a"))
    world.place(0, "a")
    lease = world.pool.lease(0)
    request = request_of("a")
    world.scorer.moved(request, lease, 0, NOW)
    world.scorer.ended(request, lease, completed(), NOW)
    assert world.scores("b")[0] == 0.0


def test_what_is_remembered_is_bounded() -> None:
    world = _World(_told(most=10**9), _told("abc"))
    names = [f"adapter-{number}" for number in range(5000)]
    for first in range(0, 5000, 100):
        some = frozenset(names[first : first + 100])
        world.tell(1, told(active_adapters=some, max_adapters=10**6))
    assert len(world.scorer._names) == 4096
    world.tell(1, _told())
    for name in names:
        world.end(world.place(0, name))
    assert len(world.scorer._endpoints[0]._requests) == 256
    assert len(world.scorer._loaded_at) <= 512
    world.scorer.freed(0)
    world.scorer.freed(1)
    assert world.scorer._endpoints == world.scorer._loaded_at == world.scorer._waiting_at == {}


def test_the_index_is_what_the_endpoints_say() -> None:
    rng = random.Random(1)
    world = _World(*[_told(most=2)] * 3)
    placed: list[Any] = []
    for _ in range(2000):
        match rng.randrange(5):
            case 0 | 1:
                placed.append(world.place(rng.randrange(3), rng.choice("abcdef")))
            case 2 if placed:
                world.end(placed.pop(rng.randrange(len(placed))))
            case 3 if placed:
                each = rng.choice(placed)
                world.move(each, (each[1].slot + 1) % 3)
            case 4:
                active, waiting = rng.sample("abcde", 2), rng.sample("abcde", rng.randrange(3))
                slot = rng.randrange(3)
                world.tell(slot, _told("".join(active), "".join(waiting)))
                if rng.random() < 0.1:
                    world.scorer.restarted(slot)
        for model in "abcdef":
            expected = [_formula(world.scorer, slot, model) for slot in range(3)]
            assert world.scores(model) == expected


def _formula(scorer: LoraAffinityScorer, slot: int, model: str) -> float:
    endpoint = scorer._endpoints.get(slot)
    if endpoint is None:
        return 0.0
    if model in endpoint.loaded:
        return 1.0
    if endpoint.has_room:
        return 0.8
    return 0.6 if model in endpoint.waiting else 0.0


def test_where_base_models_are_told_every_other_model_is_an_adapter_at_once() -> None:
    base = frozenset(["base"])
    world = _World(*(told(max_adapters=1, base_models=base) for _ in range(3)))
    world.place(0, "rare")
    assert world.scores("rare") == [1.0, 0.8, 0.8]
    assert world.scores("other") == [0.0, 0.8, 0.8]
    world.place(1, "base")
    assert world.scores("other") == [0.0, 0.8, 0.8], "the base model takes no place"


def test_a_model_that_the_engine_does_not_have_is_loaded_nowhere() -> None:
    base = frozenset(["base"])
    world = _World(*(told(max_adapters=1, base_models=base) for _ in range(2)))
    failed = world.place(0, "no-such-model")
    world.end(failed, status=404)
    assert world.scores("no-such-model") == [0.8, 0.8]
