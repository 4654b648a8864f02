"""Pauses grow, and no two that wait come back together."""

import random

from epp.discovery.kubernetes.api.backoff import Backoff


class Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


def test_ceilings_double_up_to_the_longest_and_begin_anew() -> None:
    backoff = Backoff(Highest(), first_s=0.8, longest_s=30.0)
    assert [backoff.next_s() for _ in range(8)] == [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    backoff.ease(4.0)
    assert [backoff.next_s() for _ in range(2)] == [4.0, 8.0]
    backoff.reset()
    backoff.ease(4.0)
    assert backoff.next_s() == 0.8


def test_pauses_are_spread_over_all_of_the_time() -> None:
    pauses_s = []
    for seed in range(200):
        backoff = Backoff(random.Random(seed))
        pauses_s.append([backoff.next_s() for _ in range(10)][-1])
    assert min(pauses_s) < 3
    assert max(pauses_s) > 27
