"""``token-load-scorer`` and ``active-request-scorer``."""

import numpy as np
import pytest

from epp.core.scheduling import Candidates
from epp.core.scheduling.in_flight import InFlightLoad

from ..support import FixedHits, PluginsByName, candidates_of, make, pool_of, request_of


@pytest.mark.parametrize(
    ("in_flight", "prompt_tokens", "cached_blocks", "scores"),
    [
        ([0, 0], 0, [0, 0], [1.0, 1.0]),
        ([0, 5, 10, 20], 0, [], [1.0, 0.5, 0.0, 0.0]),
        ([0, 5], 200, [], [0.8, 0.3]),
        ([0, 5], 640, [10, 5], [1.0, 0.18]),  # of 10 blocks of 64 tokens
        ([0, 0], 700, [10, 0], [0.94, 0.3]),  # 60 more behind the last full block
    ],
)
def test_tokens_in_flight_and_those_to_come_count_up_to_the_threshold(
    in_flight: list[int], prompt_tokens: int, cached_blocks: list[int], scores: list[float]
) -> None:
    pool = pool_of(len(in_flight), in_flight=in_flight, tokens=100)
    scorer = make(
        "token-load-scorer",
        {"queueThresholdTokens": 1000},
        approx_prefix_cache_producer=FixedHits(prompt_tokens // 64, cached_blocks),
    )
    candidates = candidates_of(pool, request_of(prompt_tokens=prompt_tokens))
    assert scorer.score(candidates) == pytest.approx(scores)


@pytest.mark.parametrize("parameters", [{}, {"queueThresholdTokens": 0}])
def test_the_threshold_is_four_mebi_tokens(parameters: dict[str, object]) -> None:
    scorer = make("token-load-scorer", parameters, approx_prefix_cache_producer=FixedHits(0))
    pool = pool_of(2, in_flight=[1, 4], tokens=2**20)
    assert scorer.score(candidates_of(pool)).tolist() == [0.75, 0.0]


def test_the_producer_can_be_named() -> None:
    class Fixed:
        def produce(self, candidates: Candidates) -> InFlightLoad:
            slots = len(candidates.pool.active)
            return InFlightLoad(np.arange(slots) * 10.0, np.full(slots, 50.0))

    scorer = make(
        "token-load-scorer",
        {"queueThresholdTokens": 100, "inFlightLoadProducerName": "mine"},
        context=PluginsByName({"mine": Fixed()}),
    )
    candidates = candidates_of(pool_of(3), slots=[2, 0])
    assert scorer.score(candidates) == pytest.approx([0.3, 0.5])


@pytest.mark.parametrize(
    ("parameters", "in_flight", "scores"),
    [
        ({}, [0, 0], [1.0, 1.0]),
        ({}, [1, 4, 8], [0.875, 0.5, 0.0]),
        ({}, [0, 5, 10], [1.0, 0.5, 0.0]),
        ({}, [3, 3], [0.0, 0.0]),
        ({"idleThreshold": 2}, [0, 2, 3, 6], [1.0, 1.0, 0.5, 0.0]),
        ({"idleThreshold": 6}, [0, 2, 3, 6], [1.0, 1.0, 1.0, 1.0]),
        ({"maxBusyScore": 0.5}, [0, 1, 4], [1.0, 0.375, 0.0]),
        ({"maxBusyScore": 0}, [0, 1, 4], [1.0, 0.0, 0.0]),
        ({"idleThreshold": 1, "maxBusyScore": 0.8}, [1, 2, 8], [1.0, 0.6, 0.0]),
        ({"requestTimeout": "soon", "inFlightLoadProducerName": "x"}, [1, 4], [0.75, 0.0]),
    ],
)
def test_fewer_requests_are_better_and_few_enough_are_none(
    parameters: dict[str, object], in_flight: list[int], scores: list[float]
) -> None:
    pool = pool_of(len(in_flight), in_flight=in_flight)
    scorer = make("active-request-scorer", parameters)
    assert scorer.score(candidates_of(pool)) == pytest.approx(scores)


def test_the_busiest_is_that_of_the_candidates() -> None:
    pool = pool_of(3, in_flight=[100, 2, 4])
    scores = make("active-request-scorer").score(candidates_of(pool, slots=[2, 1]))
    assert scores.tolist() == [0.0, 0.5]
