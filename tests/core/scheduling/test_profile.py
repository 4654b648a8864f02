"""Profiles: filters in order, then weighted scores, then a picker."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.pool import Column, Mask
from epp.core.scheduling import Candidates, FilterStep, NamedFilter, SchedulingProfile
from epp.core.scheduling import WeightedScorer as Weighted
from epp.core.scheduling.pickers.max_score import MaxScorePicker

from .support import candidates_of, make, pool_of, request_of, told


class _BySlot:
    """Scores by slot, and keeps by slot what scores above 0; it counts what it is shown."""

    def __init__(self, *scores: float) -> None:
        self.scores = np.array(scores)
        self.shown: list[list[int]] = []

    def score(self, candidates: Candidates) -> Column:
        self.shown.append(candidates.slots.tolist())
        return self.scores[candidates.slots]

    def filter(self, candidates: Candidates) -> Mask:
        return self.score(candidates) > 0


class _Recording:
    """A picker that keeps the sums, and picks the last first."""

    def __init__(self) -> None:
        self.totals: list[list[float]] = []

    def pick(self, candidates: Candidates, scores: Column) -> Sequence[int]:
        self.totals.append(scores.tolist())
        return range(len(scores) - 1, -1, -1)


def _totals(count: int, *scorers: Weighted) -> list[float]:
    picker = _Recording()
    SchedulingProfile("p", [], scorers, picker).pick(candidates_of(pool_of(count)))
    (totals,) = picker.totals
    return totals


def test_weights_are_used_as_they_are() -> None:
    scorers = _BySlot(0.3), _BySlot(0.8)
    assert _totals(1, *(Weighted("s", each) for each in scorers)) == pytest.approx([1.1])
    weighted = Weighted("a", scorers[0], 60.0), Weighted("b", scorers[1], 40.0)
    assert _totals(1, *weighted) == pytest.approx([50.0])
    assert _totals(2) == [0.0, 0.0]


def test_scores_are_cut_and_what_is_no_number_counts_nothing() -> None:
    scorer = _BySlot(-3.0, 1.5, math.nan, math.inf, -math.inf, 0.25)
    assert _totals(6, Weighted("s", scorer, 2.0)) == [0.0, 2.0, 0.0, 2.0, 0.0, 0.5]
    assert math.isnan(scorer.scores[2])


def test_filters_run_in_order_each_on_what_is_left() -> None:
    first, second, scorer = _BySlot(1, 1, 0, 1), _BySlot(0, 1, 1, 1), _BySlot(0, 0, 0, 0)
    profile = SchedulingProfile(
        "p",
        [NamedFilter("a", first), NamedFilter("b", second)],
        [Weighted("s", scorer)],
        _Recording(),
    )
    assert profile.pick(candidates_of(pool_of(4))) == (3, 1)
    assert (first.shown, second.shown, scorer.shown) == ([[0, 1, 2, 3]], [[0, 1, 3]], [[1, 3]])


def test_where_filters_leave_none_nothing_further_is_asked() -> None:
    none, other, scorer = _BySlot(0, 0), _BySlot(1, 1), _BySlot(1, 1)
    filters = [NamedFilter("none", none), NamedFilter("other", other)]
    profile = SchedulingProfile("p", filters, [Weighted("s", scorer)], MaxScorePicker())
    assert profile.pick(candidates_of(pool_of(2))) == ()
    last = SchedulingProfile("p", filters[:1], [Weighted("s", scorer)], MaxScorePicker())
    assert last.pick(candidates_of(pool_of(2))) == ()
    explanation = profile.explain(candidates_of(pool_of(2)))
    assert explanation.considered == [0, 1]
    assert explanation.filters == [FilterStep("none", [0, 1]), FilterStep("other", [])]
    assert (explanation.scored, explanation.totals, explanation.picked) == ([], [], [])
    assert profile.pick(candidates_of(pool_of(2), slots=[])) == ()
    assert (other.shown, scorer.shown) == ([], [])


_SCORES = st.lists(
    st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0, math.nan]), min_size=6, max_size=6
)


@settings(max_examples=50)
@given(
    filters=st.lists(_SCORES, max_size=2),
    scorers=st.lists(st.tuples(_SCORES, st.sampled_from([0.5, 1.0, 3.0])), max_size=3),
    slots=st.lists(st.integers(0, 5), unique=True),
    seed=st.integers(),
)
def test_an_explanation_is_that_of_the_pick(
    filters: list[list[float]],
    scorers: list[tuple[list[float], float]],
    slots: list[int],
    seed: int,
) -> None:
    profile = SchedulingProfile(
        "p",
        [NamedFilter(f"filter-{i}", _BySlot(*scores)) for i, scores in enumerate(filters)],
        [Weighted(f"scorer-{i}", _BySlot(*scores), w) for i, (scores, w) in enumerate(scorers)],
        MaxScorePicker(2),
        "max-score-picker",
    )
    pool = pool_of(6)
    picked = profile.pick(candidates_of(pool, slots=slots, seed=seed))
    told_of = profile.explain(candidates_of(pool, slots=slots, seed=seed))
    assert (told_of.profile, told_of.picker) == ("p", "max-score-picker")
    assert tuple(told_of.picked) == picked
    assert told_of.considered == slots
    dropped = [slot for step in told_of.filters for slot in step.dropped]
    assert sorted([*dropped, *told_of.scored]) == sorted(slots)
    for index, total in enumerate(told_of.totals):
        assert total == sum(step.weight * step.scores[index] for step in told_of.scorers)
    if picked:
        highest = max(told_of.totals)
        assert told_of.totals[told_of.scored.index(picked[0])] == highest


def test_the_sum_of_queue_cache_prefix_and_adapter() -> None:
    """Three endpoints: the one with the adapter, an empty queue and little in its cache wins."""
    adapters = [{"foo", "bar"}, {"foo", "critical"}, {"foo"}]
    loads = [
        told(waiting, 0, kv_ratio, active_adapters=frozenset(names), max_adapters=2)
        for waiting, kv_ratio, names in zip((0, 0, 10), (0.2, 0.2, 0.8), adapters, strict=True)
    ]
    types = "kv-cache-utilization-scorer", "queue-scorer", "prefix-cache-scorer"
    scorers = {type_: make(type_) for type_ in (*types, "lora-affinity-scorer")}
    pool = pool_of(loads)
    for slot, load in enumerate(loads):
        scorers["lora-affinity-scorer"].scraped(pool, slot, load, 0.0)
    profile = SchedulingProfile(
        "default", [], [Weighted(*each) for each in scorers.items()], MaxScorePicker()
    )
    explanation = profile.explain(candidates_of(pool, request_of("critical")))
    assert explanation.picked == [1]
    assert explanation.totals == pytest.approx([1.8, 2.8, 1.0])
    by_name = {step.name: step.scores for step in explanation.scorers}
    assert [by_name[type_][1] for type_ in scorers] == pytest.approx([0.8, 1.0, 0.0, 1.0])


def test_ties_are_broken_by_chance() -> None:
    profile = SchedulingProfile("p", [], [], MaxScorePicker())
    pool, rng = pool_of(3), random.Random(1)
    picked = {
        profile.pick(Candidates(request_of(), pool, np.arange(3), 0.0, rng)) for _ in range(100)
    }
    assert picked == {(0,), (1,), (2,)}
