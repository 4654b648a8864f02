import random
from collections import Counter

from epp.core.flow.retry_advice import RetryAdvice


def _advice(max_s: int = 300) -> RetryAdvice:
    return RetryAdvice(random.Random(1), max_s)


def test_without_a_rate_it_is_a_few_seconds() -> None:
    advice = _advice()
    assert {advice.retry_after_s(0, 1, None, 0.0) for _ in range(100)} == {1, 2, 3, 4, 5}
    assert {_advice(2).retry_after_s(0, 1, 0.0, 0.0) for _ in range(20)} <= {1, 2}


def test_each_second_gets_four_fifths_of_the_rate() -> None:
    advice = _advice()
    told = Counter(advice.retry_after_s(0, 1, 10.0, 0.5) for _ in range(100))
    assert told == dict.fromkeys(range(1, 13), 8) | {13: 4}


def test_they_come_back_after_the_queue_of_now() -> None:
    assert _advice().retry_after_s(79, 1, 10.0, 0.0) == 10
    assert _advice().retry_after_s(80, 1, 10.0, 0.0) == 11


def test_one_request_may_take_longer_than_a_second() -> None:
    advice = _advice()
    assert [advice.retry_after_s(0, 16, 10.0, 0.0) for _ in range(4)] == [1, 3, 5, 7]


def test_a_rate_that_was_too_low_leaves_room_that_is_found_later() -> None:
    advice = _advice()
    slow = [advice.retry_after_s(0, 1, 1.25, 0.0) for _ in range(10)]
    assert slow == list(range(1, 11))
    fast = [advice.retry_after_s(0, 1, 12.5, 0.0) for _ in range(20)]
    assert fast[0] == 1
    assert max(fast) <= 3


def test_what_has_come_back_is_forgotten() -> None:
    advice = _advice()
    for _ in range(100):
        advice.retry_after_s(0, 1, 10.0, 1000.9)
    assert advice.retry_after_s(0, 1, 10.0, 1005.1) == 8  # of 13 seconds, 5 have gone
    assert advice.retry_after_s(0, 1, 10.0, 1013.0) == 1
    for _ in range(100):
        advice.retry_after_s(0, 1, 10.0, 1013.0)
    assert advice.retry_after_s(0, 1, 10.0, 1e6) == 1


def test_idle_seconds_are_used_though_later_ones_are_full() -> None:
    advice = _advice()
    for _ in range(50):  # behind a queue that then goes away
        advice.retry_after_s(800, 1, 10.0, 0.0)
    assert advice.retry_after_s(0, 1, 10.0, 0.0) == 1


def test_the_maximum_is_told_to_all_that_have_no_room_before() -> None:
    advice = _advice(10)
    assert max(advice.retry_after_s(0, 1, 1.25, 0.0) for _ in range(100)) == 10
    assert _advice().retry_after_s(1_000_000, 1, 1.0, 0.0) == 300
