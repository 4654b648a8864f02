"""A scheduling profile: filters, then scorers with weights, then a picker."""

import random
from collections.abc import Hashable, Sequence

import msgspec
import numpy as np

from epp.core.pool import Column, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.explanation import Explanation, FilterStep, ScorerStep
from epp.core.scheduling.few import one_of
from epp.core.scheduling.pickers.max_score import MaxScorePicker
from epp.core.scheduling.plugin import (
    CostTeller,
    Filter,
    KindFollower,
    KindTeller,
    PartsTeller,
    Picker,
    Scorer,
)

__all__ = ["NamedFilter", "SchedulingProfile", "WeightedScorer"]


class NamedFilter(msgspec.Struct, frozen=True):
    """A filter of a profile, and what it is called."""

    name: str
    filter: Filter


class WeightedScorer(msgspec.Struct, frozen=True):
    """A scorer of a profile, what it is called, and how much it counts."""

    name: str
    scorer: Scorer
    weight: float = 1.0


class SchedulingProfile:
    """Picks endpoints: ``total = sum of weight * score``, each score cut to 0..1.

    Filters run in order, each on what those before it have left.
    """

    def __init__(
        self,
        name: str,
        filters: Sequence[NamedFilter],
        scorers: Sequence[WeightedScorer],
        picker: Picker,
        picker_name: str = "max-score-picker",
    ) -> None:
        self.name = name
        self.filters = tuple(filters)
        self.scorers = tuple(scorers)
        self.picker = picker
        self.picker_name = picker_name
        self._cost_teller = self._lone_cost_teller()
        self._kind_tellers = [
            each.filter for each in self.filters if isinstance(each.filter, KindTeller)
        ]

    def kinds(self, request: Request, pool: Pool) -> tuple[Hashable, ...]:
        """Return what is the same for requests that the filters treat alike."""
        return tuple([each.kind(request, pool) for each in self._kind_tellers])

    def kinds_follow(self, pool: Pool) -> tuple[Hashable, ...]:
        """Return what these go by: the endpoints, where a filter does not say."""
        return tuple(
            [
                each.kinds_follow(pool) if isinstance(each, KindFollower) else pool.version
                for each in self._kind_tellers
            ]
        )

    def filtered(self, candidates: Candidates) -> Candidates:
        """Return those that the filters leave."""
        for each in self.filters:
            if not len(candidates):
                break
            candidates = candidates.where(each.filter.filter(candidates))
        return candidates

    def pick_of_few(
        self, request: Request, pool: Pool, slots: Sequence[int], now: float, rng: random.Random
    ) -> tuple[int, ...] | None:
        """Do what :meth:`pick` does for a few slots, quicker; None where the profile cannot."""
        teller = self._cost_teller
        if teller is None:
            return None
        costs = teller.costs_of_few(request, pool, slots, now)
        least = min(costs)
        best = [slot for slot, cost in zip(slots, costs, strict=True) if cost == least]
        return (one_of(best, rng),)

    def _lone_cost_teller(self) -> CostTeller | None:
        """Return the scorer, if it alone decides and can tell costs."""
        if self.filters or len(self.scorers) != 1 or not isinstance(self.picker, MaxScorePicker):
            return None
        ((scorer, weight),) = [(each.scorer, each.weight) for each in self.scorers]
        decides = weight > 0.0 and self.picker.max_endpoints == 1
        return scorer if decides and isinstance(scorer, CostTeller) else None

    def pick(self, candidates: Candidates) -> tuple[int, ...]:
        """Return the slots that are picked, the best first; none where the filters leave none."""
        candidates = self.filtered(candidates)
        if not len(candidates):
            return ()
        picked = self.picker.pick(candidates, self._totals(candidates))
        return tuple(int(candidates.slots[index]) for index in picked)

    def explain(self, candidates: Candidates) -> Explanation:
        """Do the same, and tell how it came about."""
        considered = candidates.slots.tolist()
        steps: list[FilterStep] = []
        for each in self.filters:
            before = candidates.slots
            if len(candidates):
                candidates = candidates.where(each.filter.filter(candidates))
            dropped = np.setdiff1d(before, candidates.slots).tolist()
            steps.append(FilterStep(each.name, dropped))
        scores = [self._explain(each, candidates) for each in self.scorers if len(candidates)]
        totals = self._totals(candidates)
        picked = self.picker.pick(candidates, totals) if len(candidates) else ()
        return Explanation(
            profile=self.name,
            considered=considered,
            filters=steps,
            scored=candidates.slots.tolist(),
            scorers=scores,
            totals=totals.tolist(),
            picker=self.picker_name,
            picked=[int(candidates.slots[index]) for index in picked],
        )

    def _explain(self, each: WeightedScorer, candidates: Candidates) -> ScorerStep:
        scorer = each.scorer
        parts = scorer.parts(candidates) if isinstance(scorer, PartsTeller) else {}
        return ScorerStep(
            each.name,
            each.weight,
            self._score(each, candidates).tolist(),
            {name: column.tolist() for name, column in parts.items()},
        )

    def _totals(self, candidates: Candidates) -> Column:
        totals: Column = np.zeros(len(candidates))
        if not len(candidates):
            return totals
        for each in self.scorers:
            totals += each.weight * self._score(each, candidates)
        return totals

    def _score(self, each: WeightedScorer, candidates: Candidates) -> Column:
        scores: Column = np.minimum(np.maximum(each.scorer.score(candidates), 0.0), 1.0)
        if np.isnan(scores).any():
            scores = np.nan_to_num(scores)
        return scores
