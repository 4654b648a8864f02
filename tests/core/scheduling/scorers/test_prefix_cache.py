"""``prefix-cache-scorer``."""

import pytest

from ..support import FixedHits, PluginsByName, candidates_of, make, pool_of


@pytest.mark.parametrize(
    ("parameters", "total", "blocks", "scores"),
    [
        ({}, 4, [0, 1, 4], [0.0, 0.25, 1.0]),
        ({}, 0, [0, 0], [0.0, 0.0]),
        # 64 blocks of 64 tokens are half of the scale, and a quarter when squared.
        ({"matchLengthWeight": 1.0}, 64, [64, 32, 0], [0.25, 0.0625, 0.0]),
        ({"matchLengthWeight": 0.5}, 64, [64, 32, 0], [0.625, 0.28125, 0.0]),
        ({"matchLengthWeight": 1.0}, 1000, [999, 128], [1.0, 1.0]),
        ({"matchLengthWeight": 1.0, "matchLengthScaleTokens": 128}, 4, [1, 3], [0.25, 1.0]),
        ({"matchLengthWeight": 0.25, "matchLengthScaleTokens": 256}, 4, [2], [0.4375]),
    ],
)
def test_the_share_and_the_length_of_what_is_cached_count(
    parameters: dict[str, object], total: int, blocks: list[int], scores: list[float]
) -> None:
    scorer = make(
        "prefix-cache-scorer",
        parameters,
        approx_prefix_cache_producer=FixedHits(total, blocks),
    )
    assert scorer.score(candidates_of(pool_of(len(blocks)))) == pytest.approx(scores)


def test_the_producer_can_be_named_and_is_asked_once_for_a_pick() -> None:
    hits = FixedHits(2, [0, 1, 2])
    context = PluginsByName({"mine": hits})
    parameters = {"prefixMatchInfoProducerName": "mine"}
    scorers = [make("prefix-cache-scorer", parameters, context=context) for _ in range(2)]
    candidates = candidates_of(pool_of(3), slots=[2, 1])
    assert [scorer.score(candidates).tolist() for scorer in scorers] == [[1.0, 0.5]] * 2
    assert hits.asked == 1
    with pytest.raises(ValueError, match='no plugin "other"'):
        make("prefix-cache-scorer", {"prefixMatchInfoProducerName": "other"}, context=context)
