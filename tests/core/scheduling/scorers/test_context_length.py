"""``context-length-aware``."""

import pytest

from epp.core.scheduling.scorers.context_length import CONTEXT_LENGTH_LABEL

from ..support import candidates_of, make, pool_of, request_of

# Label, prompt tokens, score, and whether a filter keeps it.
TABLE = [
    (None, 5000, 0.5, True),
    ("0-10000", 0, 0.3 + 0.7 * (0.35 + 0.3), True),
    ("0-10000", 5000, 0.3 + 0.7 * (0.35 + 0.15), True),
    ("0-10000", 10000, 0.3 + 0.7 * 0.35, True),
    ("0-1000", 500, 0.3 + 0.7 * (0.7 / 1.1 + 0.15), True),
    (" 1000 - 2000 ", 1000, 0.3 + 0.7 * (0.7 / 1.1 + 0.3), True),
    ("512-512", 512, 1.0, True),
    ("0-1000", 2000, 0.15, False),
    ("2000-3000", 1000, 0.15, False),
    ("0-1000", 1001, 0.3 / 1.001, False),
    ("0-0", 9000, 0.03, False),
    ("", 0, 0.0, False),
    ("1000", 500, 0.0, False),
    ("2000-1000", 1500, 0.0, False),
    ("0-10-20", 5, 0.0, False),
    ("-5-10", 5, 0.0, False),
    ("0-many", 5, 0.0, False),
    ("0-\N{ARABIC-INDIC DIGIT NINE}", 1, 0.0, False),
    ("0-" + "9" * 5000, 5, 0.0, False),
]


@pytest.mark.parametrize(("label", "tokens", "score", "is_kept"), TABLE)
def test_a_prompt_fits_a_range(label: str | None, tokens: int, score: float, is_kept: bool) -> None:
    pool = pool_of(1, labels=[{} if label is None else {CONTEXT_LENGTH_LABEL: label}])
    candidates = candidates_of(pool, request_of(prompt_tokens=tokens))
    plugin = make("context-length-aware", {"enableFiltering": True})
    assert plugin.score(candidates) == pytest.approx([score])
    assert plugin.filter(candidates).tolist() == [is_kept]
    assert make("context-length-aware").filter(candidates).tolist() == [True]


def test_the_narrower_and_the_lower_end_of_a_range_are_better() -> None:
    labels = [{"range": text} for text in ("0-100000", "0-8000", "4000-8000", "0-100")]
    pool = pool_of(4, labels=labels)
    plugin = make("context-length-aware", {"label": "range"})
    scores = plugin.score(candidates_of(pool, request_of(prompt_tokens=4000), slots=[3, 0, 1, 2]))
    assert scores.tolist() == sorted(scores.tolist())
    assert scores[0] < 0.3 < scores[1]


def test_a_filter_may_leave_none() -> None:
    pool = pool_of(2, labels=[{"range": "0-10"}, {"range": "20-30"}])
    plugin = make("context-length-aware", {"label": "range", "enableFiltering": True})
    assert not plugin.filter(candidates_of(pool, request_of(prompt_tokens=15))).any()
