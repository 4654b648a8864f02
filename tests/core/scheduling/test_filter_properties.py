"""What holds for every filter and every picker, whatever it is after."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.scheduling import Candidates, Filter, Observer, Picker
from epp.core.scheduling.catalogue import CATALOGUE

from .pickers.support import candidates_for, draws
from .support import NOW, FixedHits, PluginsByName, make, pool_of, request_of, told

_THRESHOLD = {"operator": "LessThan", "value": 0.5}
_PARAMETERS: Mapping[str, list[dict[str, object]]] = {
    "label-selector-filter": [
        {},
        {"matchLabels": {"llm-d.ai/role": "decode"}},
        {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["gold"]}]},
    ],
    "by-label": [{"label": "tier", "validValues": ["gold"]}],
    "prefix-cache-affinity-filter": [
        {"affinityThreshold": 0.3, "maxTTFTPenaltyMs": 1.0},
        {"affinityThreshold": 0.3, "explorationProbability": 0.5},
    ],
    "utilization-filter": [
        {"conditions": [{"metric": "waiting-queue", "maxValue": 3}], "fallbackOnEmpty": falls_back}
        for falls_back in (False, True)
    ],
    "endpoint-attribute-filter": [
        {"attribute": "gpu", "algorithm": {"type": "threshold", "threshold": _THRESHOLD}}
    ],
    "endpoint-attribute-scorer": [
        {"attributeKey": "gpu", "algorithm": {"type": "linear_lower_is_better"}}
    ],
    "header-label-affinity-scorer": [{"headerName": "x-tier", "labelKey": "tier"}],
    "context-length-aware": [{"enableFiltering": True}],
    "session-affinity-filter": [{}, {"strategy": "session_id"}],
    "session-id-producer": [{"headerName": "x-session-id"}],
}
"""What types are tried with that need parameters, or do little without."""

_ALL = [
    (type_, parameters, make(type_, parameters, approx_prefix_cache_producer=FixedHits(0)))
    for type_ in CATALOGUE
    for parameters in _PARAMETERS.get(type_, [{}])
]
_FILTERS = [(type_, parameters) for type_, parameters, each in _ALL if isinstance(each, Filter)]
_PICKERS = [type_ for type_, _, each in _ALL if isinstance(each, Picker)]


def test_there_are_filters_and_pickers() -> None:
    assert {"decode-filter", "session-affinity-filter"} < {type_ for type_, _ in _FILTERS}
    assert _PICKERS == ["max-score-picker", "random-picker", "weighted-random-picker"]


# Filters

_ENDPOINT = st.fixed_dictionaries(
    {
        "labels": st.fixed_dictionaries(
            {},
            optional={
                "tier": st.sampled_from(["gold", "iron"]),
                "llm-d.ai/role": st.sampled_from(["decode", "prefill", "encode", "both"]),
                "llm-d.ai/context-length-range": st.sampled_from(["0-100", "100-200", "x"]),
            },
        ),
        "load": st.none()
        | st.builds(
            told,
            waiting=st.integers(0, 9),
            attributes=st.sampled_from([{}, {"gpu": 0.1}, {"gpu": 0.9}]),
        ),
        "in_flight": st.integers(0, 3),
        "blocks": st.integers(0, 4),
    }
)


class _Case:
    """A plugin, a pool that it knows, and a request."""

    def __init__(self, type_: str, parameters: Mapping[str, object], endpoints: list[Any]) -> None:
        self.pool = pool_of(
            [each["load"] for each in endpoints],
            labels=[each["labels"] for each in endpoints],
            in_flight=[each["in_flight"] for each in endpoints],
            tokens=500,
        )
        hits = FixedHits(4, [each["blocks"] for each in endpoints])
        plugins = PluginsByName({"approx-prefix-cache-producer": hits})
        self.plugin = make(type_, parameters, context=plugins)
        self.request = request_of(prompt_tokens=150, prefix=bytes(32))
        if isinstance(self.plugin, Observer):
            self._have_a_session(self.plugin)

    def _have_a_session(self, plugin: Observer) -> None:
        """Let the request be the second of a session that began at the first endpoint."""
        for slot in self.pool.active.nonzero()[0].tolist():
            plugin.joined(self.pool, slot)
        first = request_of(headers={"x-session-id": "a"})
        lease = self.pool.lease(0)
        plugin.placed(first, lease, NOW)
        given = {name.decode(): value.decode() for name, value in lease.response_headers}
        headers = {"x-session-id": "a", **given}
        self.request = request_of(prompt_tokens=150, prefix=bytes(32), headers=headers)

    def candidates(self, slots: list[int], seed: int) -> Candidates:
        chosen = np.array(slots, dtype=np.intp)
        return Candidates(self.request, self.pool, chosen, NOW, random.Random(seed))


@pytest.mark.parametrize(("type_", "parameters"), _FILTERS)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), endpoints=st.lists(_ENDPOINT, min_size=1, max_size=12))
def test_a_filter_says_of_each_candidate_whether_it_stays(
    type_: str, parameters: dict[str, object], data: st.DataObject, endpoints: list[Any]
) -> None:
    case = _Case(type_, parameters, endpoints)
    slot = st.integers(0, len(endpoints) - 1)
    slots = data.draw(st.lists(slot, unique=True, min_size=1))
    seed = data.draw(st.integers(0, 3))
    candidates = case.candidates(slots, seed)
    mask = case.plugin.filter(candidates)
    assert (mask.dtype, mask.shape) == (np.bool_, (len(slots),))
    kept = candidates.where(mask).slots.tolist()
    assert kept == [slot for slot, stays in zip(slots, mask.tolist(), strict=True) if stays]

    again = case.plugin.filter(case.candidates(slots, seed))
    assert again.tolist() == mask.tolist(), "a filter has consequences"

    shuffled = data.draw(st.permutations(slots))
    other = case.candidates(shuffled, seed)
    assert set(other.where(case.plugin.filter(other)).slots.tolist()) == set(kept)


# Pickers


@pytest.mark.parametrize("type_", _PICKERS)
@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(
        st.sampled_from([0.0, 0.5, 0.5, 1.0]) | st.floats(-1.0, 100.0), min_size=1, max_size=70
    ),
    most=st.integers(1, 64),
    seed=st.integers(0, 100),
)
def test_a_picker_picks_candidates_each_once_and_no_more_than_it_may(
    type_: str, scores: list[float], most: int, seed: int
) -> None:
    picker = make(type_, {"maxNumOfEndpoints": most})
    column = np.array(scores)
    picked = list(picker.pick(candidates_for(scores, seed), column))
    assert len(picked) == len(set(picked)) == min(most, len(scores))
    assert set(picked) <= set(range(len(scores)))
    assert picked == list(picker.pick(candidates_for(scores, seed), column))
    assert column.tolist() == scores


@pytest.mark.parametrize("type_", _PICKERS)
@pytest.mark.parametrize("scores", [[1.0, 0.5, 1.0, 0.25, 0.0], [0.0] * 5])
def test_where_a_candidate_stands_does_not_matter(type_: str, scores: list[float]) -> None:
    order = [3, 0, 4, 2, 1]
    found = draws(make(type_), scores, 5000)
    moved = draws(make(type_), [scores[index] for index in order], 5000)
    counts = [(found[(index,)], moved[(order.index(index),)]) for index in range(len(scores))]
    # Chi-square of two samples of equal size; 18.5 is passed once in 1,000 times.
    assert sum((one - two) ** 2 / (one + two) for one, two in counts if one + two) < 18.5
