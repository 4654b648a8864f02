"""Who is kept because the prompt is in the cache there."""

from collections.abc import Sequence

import pytest

from ..support import FixedHits, candidates_of, make, pool_of, request_of


def _kept(
    blocks: Sequence[int],
    parameters: dict[str, object] | None = None,
    *,
    in_flight: Sequence[int] = (),
    tokens: int = 1000,
    seed: int = 0,
) -> list[int]:
    hits = FixedHits(10, blocks)
    chosen = make("prefix-cache-affinity-filter", parameters, approx_prefix_cache_producer=hits)
    pool = pool_of(len(blocks), in_flight=in_flight, tokens=tokens)
    mask = chosen.filter(candidates_of(pool, request_of(prefix=bytes(80)), seed=seed))
    kept: list[int] = mask.nonzero()[0].tolist()
    return kept


@pytest.mark.parametrize(
    ("blocks", "threshold", "kept"),
    [
        ([10, 0, 8, 7], 0.8, [0, 2]),
        ([10, 0, 8, 7], 0.7, [0, 2, 3]),
        ([7, 0, 7, 7], 0.8, [0, 1, 2, 3]),
        ([10, 0, 8, 7], 0.0, [0, 1, 2, 3]),
        ([10, 0, 8, 7], -1.0, [0, 1, 2, 3]),
        ([10, 10], 0.8, [0, 1]),
        ([0], 0.8, [0]),
    ],
)
def test_those_with_most_of_the_prompt_are_kept_or_all(
    blocks: list[int], threshold: float, kept: list[int]
) -> None:
    assert _kept(blocks, {"affinityThreshold": threshold}) == kept


@pytest.mark.parametrize(
    ("in_flight", "penalty_ms", "kept"),
    [
        # The sticky ones are 0 and 1; a request in flight is 1 s at 1,000 tokens per second.
        ([9, 6, 1, 8], 5000.0, [0, 1]),  # 6 s there, 1 s elsewhere
        ([9, 7, 1, 8], 5000.0, [0, 1, 2, 3]),
        ([9, 7, 2, 8], 5000.0, [0, 1]),
        ([900, 900, 0, 0], 0.0, [0, 1]),
        ([0, 0, 9, 9], 5000.0, [0, 1]),
    ],
)
def test_waiting_for_them_may_cost_only_so_much(
    in_flight: list[int], penalty_ms: float, kept: list[int]
) -> None:
    parameters = {"maxTTFTPenaltyMs": penalty_ms, "peakPrefillThroughput": 1000.0}
    assert _kept([9, 9, 0, 0], parameters, in_flight=in_flight) == kept


def test_the_defaults_are_the_reference_s() -> None:
    just_enough = 15_928 * 18
    assert _kept([8, 0], in_flight=[1], tokens=just_enough) == [0]
    assert _kept([8, 0], in_flight=[1], tokens=just_enough + 1) == [0, 1]
    assert _kept([7, 0]) == [0, 1]


def test_others_are_explored_now_and_then() -> None:
    kept = [_kept([9, 0], {"explorationProbability": 0.25}, seed=seed) for seed in range(400)]
    assert 70 <= kept.count([0, 1]) <= 130
    assert kept.count([0]) + kept.count([0, 1]) == 400


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ttftSource": "latencyPredictor"}, "there is no latency predictor here"),
        ({"peakPrefillThroughput": 0.0}, "found peakPrefillThroughput 0"),
        ({"affinityThreshold": 1.1}, "affinityThreshold"),
        ({"ttftSource": ""}, "ttftSource"),
    ],
)
def test_parameters_that_cannot_be_met_are_refused(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _kept([9, 0], parameters)


def test_without_a_penalty_no_throughput_is_needed() -> None:
    parameters = {"peakPrefillThroughput": 0.0, "maxTTFTPenaltyMs": 0.0}
    assert _kept([9, 0], parameters, in_flight=[500]) == [0]
