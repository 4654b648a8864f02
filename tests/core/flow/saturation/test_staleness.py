from epp.core.flow.saturation.staleness import Staleness
from epp.core.timers import Timers


def make(after_s: float = 5.0) -> tuple[Staleness, Timers, list[tuple[int, float]]]:
    timers, stale = Timers(), []
    return Staleness(after_s, timers, lambda slot, now: stale.append((slot, now))), timers, stale


def test_it_tells_once_when_the_last_report_is_too_old() -> None:
    staleness, timers, stale = make()
    staleness.reported(3, 1.0)
    staleness.reported(3, 4.0)
    timers.run(8.9)
    assert stale == []
    timers.run(9.0)
    timers.run(100.0)
    assert stale == [(3, 9.0)]
    assert timers.next_deadline() is None


def test_reports_need_one_timer_however_many_there_are() -> None:
    staleness, timers, stale = make()
    for second in range(100):
        staleness.reported(0, float(second))
        timers.run(float(second))
    assert len(timers) == 1
    assert stale == []


def test_it_begins_anew_with_the_next_report() -> None:
    staleness, timers, stale = make()
    staleness.reported(0, 0.0)
    timers.run(5.0)
    staleness.reported(0, 20.0)
    timers.run(25.0)
    assert stale == [(0, 5.0), (0, 25.0)]


def test_who_joins_has_not_reported() -> None:
    staleness, timers, stale = make()
    staleness.reported(0, 0.0)
    staleness.joined(0)
    timers.run(60.0)
    assert stale == []
    assert len(timers) == 0
