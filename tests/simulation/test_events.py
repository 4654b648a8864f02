from epp.core.timers import Timers
from epp.simulation.events import Events


def _never() -> bool:
    return False


def test_events_happen_in_order_of_time_and_then_of_scheduling() -> None:
    events, seen = Events(Timers()), []
    for name, time_s in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
        events.schedule(time_s, lambda now, name=name: seen.append((name, now)))  # type: ignore[misc]
    events.run(10.0, _never)
    assert seen == [("a", 1.0), ("b", 1.0), ("c", 2.0)]
    assert events.now == 10.0


def test_timers_run_at_their_time_before_events_of_the_same_time() -> None:
    timers, seen = Timers(), []
    events = Events(timers)
    events.schedule(1.0, lambda now: seen.append(("event", now)))
    timers.schedule(1.0, lambda now: seen.append(("timer", now)))
    timers.schedule(1.5, lambda now: seen.append(("alone", now)))
    timers.schedule(20.0, lambda now: seen.append(("too late", now)))
    events.run(10.0, _never)
    assert seen == [("timer", 1.0), ("event", 1.0), ("alone", 1.5)]


def test_it_stops_when_it_is_over_and_goes_on_from_there() -> None:
    events, seen = Events(Timers()), []
    for time_s in (1.0, 2.0, 3.0):
        events.schedule(time_s, seen.append)
    events.run(10.0, lambda: len(seen) == 2)
    assert (seen, events.now) == ([1.0, 2.0], 2.0)
    events.run(2.5, _never)
    assert seen == [1.0, 2.0]
    events.run(10.0, _never)
    assert seen == [1.0, 2.0, 3.0]
    assert events.scheduled == 3
