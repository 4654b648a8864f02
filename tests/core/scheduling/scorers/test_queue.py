"""``queue-scorer`` and ``running-requests-size-scorer``."""

import pytest

from epp.core.pool import EngineLoad

from ..support import NOW, UNKNOWN, candidates_of, make, pool_of, told

# Requests at each candidate, and the scores.
TABLE = [
    ([0, 5, 10], [1.0, 0.5, 0.0]),
    ([10, 2, 6], [0.0, 1.0, 0.5]),
    ([5, 5, 5], [1.0, 1.0, 1.0]),
    ([0, 0], [1.0, 1.0]),
    ([7], [1.0]),
    ([1, 0], [0.0, 1.0]),
    ([100, 0, 1], [0.0, 1.0, 0.99]),
]


@pytest.mark.parametrize(("requests", "scores"), TABLE)
def test_queue_scores_lie_between_the_shortest_and_the_longest(
    requests: list[int], scores: list[float]
) -> None:
    pool = pool_of([told(waiting=count, running=99 - count) for count in requests])
    assert make("queue-scorer").score(candidates_of(pool)) == pytest.approx(scores)


@pytest.mark.parametrize(("requests", "scores"), TABLE)
def test_batch_scores_lie_between_the_smallest_and_the_largest(
    requests: list[int], scores: list[float]
) -> None:
    pool = pool_of([told(waiting=99 - count, running=count) for count in requests])
    scorer = make("running-requests-size-scorer")
    assert scorer.score(candidates_of(pool)) == pytest.approx(scores)


def test_only_candidates_are_compared() -> None:
    pool = pool_of([told(waiting=count) for count in (0, 4, 8, 100)])
    scores = make("queue-scorer").score(candidates_of(pool, slots=[2, 1]))
    assert scores.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("type", ["queue-scorer", "running-requests-size-scorer"])
def test_what_was_dispatched_since_the_scrape_counts(type: str) -> None:
    pool = pool_of([told(waiting=2, running=2), told(waiting=2, running=2)])
    scorer = make(type)
    assert scorer.score(candidates_of(pool)).tolist() == [1.0, 1.0]
    lease = pool.lease(0)
    assert scorer.score(candidates_of(pool)).tolist() == [0.0, 1.0]
    lease.release()
    assert scorer.score(candidates_of(pool)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("unheard", [None, UNKNOWN])
def test_an_endpoint_that_tells_nothing_is_not_taken_for_empty(unheard: EngineLoad | None) -> None:
    pool = pool_of([told(running=4), told(running=6), unheard], in_flight=[4, 6, 20])
    # It is taken to run 5 of its 20, as the others do on average.
    assert make("queue-scorer").score(candidates_of(pool)).tolist() == [1.0, 1.0, 0.0]
    scores = make("running-requests-size-scorer").score(candidates_of(pool))
    assert scores.tolist() == [1.0, 0.0, 0.5]


def test_what_is_stale_no_longer_counts() -> None:
    pool = pool_of([told(waiting=50), told(waiting=1)])
    pool.scraped(1, told(waiting=1), NOW + 60)
    scores = make("queue-scorer").score(candidates_of(pool, now=NOW + 60))
    assert scores.tolist() == [1.0, 0.0]
