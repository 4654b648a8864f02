from datetime import UTC, datetime, timedelta, timezone

from epp.discovery.kubernetes.text import listed, micro_time, second_time


def test_five_names_are_listed_and_the_rest_is_counted() -> None:
    assert listed(("a", "b")) == "a, b"
    assert listed(tuple("abcde")) == "a, b, c, d, e"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_times_are_in_utc() -> None:
    noon = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)
    for time in (noon, noon.astimezone(timezone(timedelta(hours=9)))):
        assert second_time(time) == "2026-01-02T12:00:00Z"
        assert micro_time(time) == "2026-01-02T12:00:00.000005Z"
