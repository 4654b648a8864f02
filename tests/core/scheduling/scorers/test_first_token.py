"""``first-token-scorer``: its formula, and what it does about bursts and adapters."""

import math
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Lease, Pool
from epp.core.request import Request
from epp.core.scheduling import NamedFilter, SchedulingProfile, WeightedScorer
from epp.core.scheduling.default import default_scheduler
from epp.core.scheduling.pickers.max_score import MaxScorePicker
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.core.scheduling.scorers.first_token import FirstTokenOptions, FirstTokenScorer

from ..support import NOW, FixedHits, candidates_of, make, pool_of, request_of, told

_OPTIONS = FirstTokenOptions(
    tokens_per_s=1000.0,
    pollution=0.5,
    recent_weight=0.0,
    request_tokens=10.0,
    waiting_tokens=200.0,
    adapter_load_s=0.5,
    adapter_wait_s=2.0,
)
_ENDING = Ending(status=200, cause="complete", duration_s=1.0, response_bytes=None)


class _Hits(FixedHits, PrefixCache):
    """Hits that are known from the beginning, by slot."""

    def held_tokens(self, request: Request) -> dict[int, int]:
        return {slot: blocks * self.block_tokens for slot, blocks in enumerate(self.blocks)}

    def __init__(self, *blocks: int) -> None:
        PrefixCache.__init__(self)
        FixedHits.__init__(self, 10, blocks)


def _costs(scorer: FirstTokenScorer, pool: Pool, request: Request, now: float = NOW) -> list[float]:
    return scorer.costs(candidates_of(pool, request, now=now)).tolist()


def _place(scorer: FirstTokenScorer, pool: Pool, slot: int, request: Request) -> Lease:
    lease = pool.lease(slot)
    scorer.placed(request, lease, NOW)
    return lease


def test_a_prompt_costs_what_is_not_cached_and_what_it_pushes_out() -> None:
    scorer = FirstTokenScorer(_Hits(0, 5, 10), _OPTIONS)
    assert _costs(scorer, pool_of(3), request_of(prompt_tokens=640)) == [960.0, 480.0, 0.0]


def test_a_prompt_never_costs_less_than_nothing() -> None:
    scorer = FirstTokenScorer(_Hits(10), _OPTIONS)
    assert _costs(scorer, pool_of(1), request_of(prompt_tokens=100)) == [0.0]


def test_the_backlog_is_computed_in_time() -> None:
    pool, scorer = pool_of(1), FirstTokenScorer(_Hits(), _OPTIONS)
    lease = _place(scorer, pool, 0, request_of(prompt_tokens=3000))
    probe = request_of()
    assert _costs(scorer, pool, probe, NOW + 1.0) == pytest.approx([2010.0])
    assert _costs(scorer, pool, probe, NOW + 10.0) == pytest.approx([10.0])
    lease.release()
    _place(scorer, pool, 0, request_of(prompt_tokens=1000))  # after what was there already
    assert _costs(scorer, pool, probe, NOW) == pytest.approx([4010.0])


def test_what_is_new_goes_where_little_else_was_new_of_late() -> None:
    options = msgspec.structs.replace(_OPTIONS, recent_weight=0.5, recent_s=10.0)
    pool, scorer = pool_of(2), FirstTokenScorer(_Hits(), options)
    _place(scorer, pool, 0, request_of(prompt_tokens=1000)).release()
    later = math.exp(-2.0)  # of 20 seconds
    assert _costs(scorer, pool, request_of(), NOW + 20.0) == pytest.approx([505 * later, 0.0])
    lease = pool.lease(1)
    scorer.placed(request_of(prompt_tokens=100), lease, NOW + 20.0)
    lease.release()
    costs = _costs(scorer, pool, request_of(), NOW + 30.0)
    assert costs == pytest.approx([505 * math.exp(-3.0), 55 * math.exp(-1.0)])


def test_requests_of_which_nothing_is_known_take_turns_where_nothing_else_decides() -> None:
    pool, scheduler = pool_of(4), default_scheduler()
    picks: Counter[int] = Counter()
    for number in range(40):
        now, rng = NOW + number, random.Random(number)
        (slot,) = scheduler.pick(request_of(), pool, pool.active, now, rng)
        lease = pool.lease(slot)
        for observer in scheduler.observers:
            observer.placed(request_of(), lease, now)
        for observer in scheduler.observers:
            observer.ended(request_of(), lease, _ENDING, now)
        lease.release()
        picks[slot] += 1
    assert sorted(picks.values()) == [10, 10, 10, 10]


def test_a_request_that_began_long_ago_does_not_turn_back_the_time() -> None:
    """As of one that another process has dispatched."""
    pool, scorer = pool_of(1), FirstTokenScorer(_Hits(), FirstTokenOptions())
    for began_s in (NOW, NOW - 1e6):
        lease = pool.lease(0)
        scorer.placed(request_of(prompt_tokens=1000), lease, began_s)
        lease.release()
    assert _costs(scorer, pool, request_of(), NOW + 100.0)[0] < 1000


def test_requests_in_flight_and_in_the_engine_s_queue_cost() -> None:
    scorer = FirstTokenScorer(_Hits(), _OPTIONS)
    pool = pool_of([told(), told(), told(waiting=3)], in_flight=[0, 4])
    assert _costs(scorer, pool, request_of()) == [0.0, 40.0, 600.0]


def test_scores_are_one_for_the_best_and_half_for_twice_the_cost() -> None:
    scorer = FirstTokenScorer(_Hits(), _OPTIONS)
    pool = pool_of([told(waiting=1), told(waiting=2)])
    scores = scorer.score(candidates_of(pool, request_of()))
    assert scores.tolist() == pytest.approx([1.0, 201 / 401])


def test_work_moves_with_the_request_and_restarts_begin_with_none() -> None:
    pool, scorer = pool_of(2), FirstTokenScorer(_Hits(), _OPTIONS)
    ask = request_of(prompt_tokens=1000)
    lease = _place(scorer, pool, 0, ask)
    lease.move(pool.endpoint(1).destination)
    scorer.moved(ask, lease, 0, NOW)
    assert _costs(scorer, pool, request_of())[1] == pytest.approx(1010.0)
    scorer.restarted(1)
    assert _costs(scorer, pool, request_of())[1] == pytest.approx(10.0)


def test_all_of_it_counts_more_at_an_endpoint_that_is_slow() -> None:
    pool, scorer = pool_of(3), FirstTokenScorer(_Hits(), _OPTIONS)
    for slot, slot_s in [(0, 1.0), (1, 1.0), (2, 3.0)] * 10:
        lease = _place(scorer, pool, slot, request_of())
        scorer.ended(request_of(), lease, _ENDING, NOW + slot_s)
        lease.release()
    costs = _costs(scorer, pool, request_of(prompt_tokens=100), NOW + 100.0)
    assert costs == pytest.approx([150.0, 150.0, 450.0], rel=0.1)


def test_what_failed_says_nothing_of_an_endpoint_s_pace() -> None:
    pool, scorer = pool_of(3), FirstTokenScorer(_Hits(), _OPTIONS)
    failed = msgspec.structs.replace(_ENDING, status=503)
    cut = msgspec.structs.replace(_ENDING, cause="aborted")
    for slot, ending, slot_s in [
        (0, _ENDING, 3.0),
        (1, _ENDING, 3.0),
        (2, failed, 0.1),
        (2, cut, 0.1),
    ] * 10:
        lease = _place(scorer, pool, slot, request_of())
        scorer.ended(request_of(), lease, ending, NOW + slot_s)
        lease.release()
    costs = _costs(scorer, pool, request_of(prompt_tokens=100), NOW + 100.0)
    assert costs == pytest.approx([150.0] * 3)


class TestAdapters:
    """Places for two adapters at each of two engines; another engine has none."""

    def _pool(self) -> tuple[Pool, FirstTokenScorer]:
        active = frozenset("ab")
        loads = [told(max_adapters=2, active_adapters=active), told(max_adapters=2), told()]
        pool, scorer = pool_of(loads), FirstTokenScorer(_Hits(), _OPTIONS)
        named = told(max_adapters=2, waiting_adapters=frozenset("cde"))
        for slot, load in enumerate([named, *loads[1:]]):
            scorer.scraped(pool, slot, load, NOW)
        scorer.scraped(pool, 0, loads[0], NOW)
        return pool, scorer

    def test_one_that_runs_costs_nothing_another_waits_and_loads(self) -> None:
        pool, scorer = self._pool()
        assert _costs(scorer, pool, request_of("a")) == [0.0, 500.0, 2500.0]
        assert _costs(scorer, pool, request_of("c")) == [2500.0, 500.0, 2500.0]

    def test_what_no_engine_has_named_is_no_adapter(self) -> None:
        pool, scorer = self._pool()
        assert _costs(scorer, pool, request_of("base")) == [0.0, 0.0, 0.0]

    def test_what_was_sent_since_the_engine_told_counts(self) -> None:
        pool, scorer = self._pool()
        leases = {model: _place(scorer, pool, 1, request_of(model)) for model in "cd"}
        assert _costs(scorer, pool, request_of("c"))[1] == 20.0
        assert _costs(scorer, pool, request_of("e"))[1] == 2520.0
        scorer.ended(request_of("c"), leases["c"], _ENDING, NOW)
        leases["c"].release()
        assert _costs(scorer, pool, request_of("e"))[1] == 510.0
        assert _costs(scorer, pool, request_of("c"))[1] == 10.0, "it is loaded still"

    def test_one_that_gave_way_to_newer_ones_is_to_be_loaded_again(self) -> None:
        pool, scorer = self._pool()
        for model in "cde":
            lease = _place(scorer, pool, 1, request_of(model))
            scorer.ended(request_of(model), lease, _ENDING, NOW)
            lease.release()
        assert _costs(scorer, pool, request_of("c"))[1] == 500.0
        assert _costs(scorer, pool, request_of("e"))[1] == 0.0

    def test_an_engine_that_restarts_has_none_loaded(self) -> None:
        pool, scorer = self._pool()
        scorer.restarted(0)
        assert _costs(scorer, pool, request_of("a"))[0] == 2500.0, "nor has it told of any place"

    def test_a_new_configuration_knows_what_the_old_one_knew(self) -> None:
        pool, former = self._pool()
        scorer = FirstTokenScorer(_Hits(), _OPTIONS)
        scorer.succeed(former)
        assert _costs(scorer, pool, request_of("c")) == [2500.0, 500.0, 2500.0]


def test_no_herd() -> None:
    """64 requests in one millisecond, metrics one second old, eight equal endpoints."""
    pool, scheduler = pool_of([told()] * 8), default_scheduler()
    picks: Counter[int] = Counter()
    for number in range(64):
        now = NOW + 1.0 + number / 64_000
        request = request_of(prompt_tokens=500, prefix=number.to_bytes(8) * 7)
        candidates = candidates_of(pool, request, now=now, seed=number)
        (slot,) = scheduler.pick(request, pool, pool.active, now, candidates.rng)
        lease = pool.lease(slot, request.prompt_tokens)
        for observer in scheduler.observers:
            observer.placed(request, lease, now)
        picks[slot] += 1
    assert len(picks) == 8
    assert max(picks.values()) <= 9


def test_the_parameters_are_those_of_the_options() -> None:
    scorer = make(
        "first-token-scorer",
        {"prefillTokensPerSecond": 100.0, "cachePollution": 0.0, "recentWeight": 0.0},
    )
    pool = pool_of(1)
    _place(scorer, pool, 0, request_of(prompt_tokens=50))
    assert _costs(scorer, pool, request_of(prompt_tokens=8), NOW + 0.25)[0] == pytest.approx(65.0)


class TestBacklogOfWhatHasEnded:
    """An engine that is faster than was thought, or that refuses, has none."""

    def test_a_prompt_that_was_refused_is_not_computed(self) -> None:
        pool, scorer = pool_of(1), FirstTokenScorer(_Hits(), _OPTIONS)
        asked = request_of(prompt_tokens=3000), request_of(prompt_tokens=1 << 20)
        leases = [_place(scorer, pool, 0, each) for each in asked]
        scorer.ended(asked[1], leases[1], _ENDING, NOW)
        leases[1].release()
        assert _costs(scorer, pool, request_of()) == pytest.approx([3010.0])
        scorer.ended(asked[0], leases[0], _ENDING, NOW + 0.5)
        leases[0].release()
        assert _costs(scorer, pool, request_of(), NOW + 0.5) == [0.0]

    def test_a_request_that_moves_takes_its_own_along(self) -> None:
        pool, scorer = pool_of(2), FirstTokenScorer(_Hits(), _OPTIONS)
        asked = request_of(prompt_tokens=3000)
        lease = _place(scorer, pool, 0, asked)
        lease.move(pool.endpoint(1).destination)
        scorer.moved(asked, lease, 0, NOW)
        assert _costs(scorer, pool, request_of()) == pytest.approx([0.0, 3010.0])

    @pytest.mark.parametrize("how", ["refused", "moved", "never began", "served"])
    def test_what_was_not_computed_was_not_computed_of_late(self, how: str) -> None:
        options = msgspec.structs.replace(_OPTIONS, recent_weight=0.5)
        pool, scorer = pool_of(2), FirstTokenScorer(_Hits(), options)
        asked = request_of(prompt_tokens=1 << 20)
        lease = _place(scorer, pool, 0, asked)
        other = pool.lease(0)
        scorer.placed(request_of(prompt_tokens=100), other, NOW + 20.0)
        if how == "moved":
            lease.move(pool.endpoint(1).destination)
            scorer.moved(asked, lease, 0, NOW + 21.0)
        else:
            status, first_byte_s = {
                "refused": (400, 0.1), "never began": (200, None), "served": (200, 0.1),
            }[how]  # fmt: skip
            ending = msgspec.structs.replace(_ENDING, status=status, first_byte_s=first_byte_s)
            scorer.ended(asked, lease, ending, NOW + 21.0)
        recent = scorer.parts(candidates_of(pool, now=NOW + 21.0))["recent"][0]
        assert (recent > 1000) == (how == "served")
        assert recent >= 50 * math.exp(-1 / options.recent_s) - 1e-3

    def test_a_successor_knows_what_runs(self) -> None:
        pool, former = pool_of(1), FirstTokenScorer(_Hits(), _OPTIONS)
        asked = request_of(prompt_tokens=3000)
        lease = _place(former, pool, 0, asked)
        scorer = FirstTokenScorer(_Hits(), _OPTIONS)
        scorer.succeed(former)
        assert _costs(scorer, pool, request_of()) == pytest.approx([3010.0])
        scorer.ended(asked, lease, _ENDING, NOW)
        lease.release()
        assert _costs(scorer, pool, request_of()) == [0.0]


_LOADS = st.one_of(
    st.none(),
    st.builds(
        told,
        waiting=st.sampled_from([0.0, 0.0, 3.0, math.nan]),
        running=st.sampled_from([0.0, 4.0, math.nan]),
        max_adapters=st.sampled_from([0, 2]),
        active_adapters=st.sampled_from([frozenset[str](), frozenset("a"), frozenset("ab")]),
    ),
)


@given(
    loads=st.lists(_LOADS, min_size=1, max_size=6),
    placed=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 3000), st.sampled_from("abc")), max_size=12
    ),
    paces=st.lists(st.sampled_from([1.0, 5.0]), min_size=6, max_size=6),
    model=st.sampled_from(["a", "c", "base"]),
    later_s=st.sampled_from([0.0, 0.3, 30.0]),
    seed=st.integers(0, 99),
)
def test_a_few_endpoints_cost_the_same_without_arrays(
    loads: list[EngineLoad | None],
    placed: list[tuple[int, int, str]],
    paces: list[float],
    model: str,
    later_s: float,
    seed: int,
) -> None:
    pool = pool_of(loads)
    scheduler = default_scheduler()
    (scorer,) = [each for each in scheduler.observers if isinstance(each, FirstTokenScorer)]
    prefix = bytes(range(1, 81))
    for slot, load in enumerate(loads):
        if load is not None:
            scorer.scraped(pool, slot, load, NOW)
        for _ in range(10):
            scorer._pace.ended(slot, paces[slot], "kind")
    for slot, tokens, name in placed:
        request = request_of(name, prompt_tokens=tokens, prefix=prefix[: 8 * (tokens % 10)])
        lease = pool.lease(slot % len(loads), tokens)
        for observer in scheduler.observers:
            observer.placed(request, lease, NOW)
    now, asked = NOW + later_s, request_of(model, prompt_tokens=700, prefix=prefix)
    candidates = candidates_of(pool, asked, now=now)
    slots = candidates.slots.tolist()
    costs = scorer.costs(candidates).tolist()
    assert scorer.costs_of_few(asked, pool, slots, now) == pytest.approx(costs)
    rngs = random.Random(seed), random.Random(seed)
    quick = scheduler.profiles["default"].pick_of_few(asked, pool, slots, now, rngs[0])
    assert quick is not None
    assert costs[slots.index(quick[0])] == pytest.approx(min(costs))
    assert scheduler.pick(asked, pool, pool.active, now, rngs[1]) == quick


def test_only_a_profile_of_one_scorer_alone_does_without_arrays() -> None:
    scorer = FirstTokenScorer(_Hits(), _OPTIONS)
    alone, best = [WeightedScorer("first-token-scorer", scorer)], MaxScorePicker()
    pool, everything = pool_of(2), make("label-selector-filter")
    rng = random.Random(1)

    def does(profile: SchedulingProfile) -> bool:
        return profile.pick_of_few(request_of(), pool, [0, 1], NOW, rng) is not None

    assert does(SchedulingProfile("p", [], alone, best))
    assert not does(SchedulingProfile("p", [NamedFilter("all", everything)], alone, best))
    assert not does(SchedulingProfile("p", [], alone * 2, best))
    assert not does(SchedulingProfile("p", [], alone, MaxScorePicker(2)))
    assert not does(SchedulingProfile("p", [], alone, make("random-picker")))
    other = [WeightedScorer("queue-scorer", make("queue-scorer"))]
    assert not does(SchedulingProfile("p", [], other, best))
