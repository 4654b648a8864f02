"""Timers against a sorted list, under a driver that sleeps until what it was told."""

import weakref
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epp.core.timers import Timer, Timers

from .support import Clock

_INSTANTS_S = st.integers(min_value=0, max_value=40).map(float)


class TimersMachine(RuleBasedStateMachine):
    """Every timer fires once, at its own deadline, in order, unless it was cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.timers = Timers()
        self.clock = Clock(self.timers, now=0.0)
        self.live: dict[int, tuple[float, Timer]] = {}
        self.fired: list[tuple[float, int]] = []
        self.peak = 0
        self.sequence = 0

    def _action(self, number: int, then: Callable[[float], None]) -> Callable[[float], None]:
        def fire(now: float) -> None:
            deadline_s, timer = self.live.pop(number)
            assert now == max(deadline_s, self.clock.now)
            assert not timer.is_alive
            timer.cancel()  # of no effect any more
            self.fired.append((deadline_s, number))
            then(now)

        return fire

    def _schedule(self, deadline_s: float, then: Callable[[float], None]) -> None:
        self.sequence += 1
        number = self.sequence
        timer = self.timers.schedule(deadline_s, self._action(number, then))
        assert timer.deadline_s == deadline_s
        self.live[number] = deadline_s, timer

    @rule(delay_s=_INSTANTS_S)
    def schedule(self, delay_s: float) -> None:
        self._schedule(self.clock.now + delay_s, lambda now: None)

    @rule(delay_s=_INSTANTS_S, count=st.integers(min_value=60, max_value=200))
    def schedule_many(self, delay_s: float, count: int) -> None:
        for _ in range(count):
            self.schedule(delay_s)

    @rule(delay_s=_INSTANTS_S, again_s=_INSTANTS_S)
    def schedule_one_that_schedules(self, delay_s: float, again_s: float) -> None:
        self._schedule(
            self.clock.now + delay_s,
            lambda now: self._schedule(now + again_s, lambda now: None),
        )

    @rule(delay_s=_INSTANTS_S, index=st.integers(min_value=0))
    def schedule_one_that_cancels(self, delay_s: float, index: int) -> None:
        self._schedule(self.clock.now + delay_s, lambda now: self.cancel(index))

    @rule(index=st.integers(min_value=0))
    def cancel(self, index: int) -> None:
        if self.live:
            number = sorted(self.live)[index % len(self.live)]
            timer = self.live.pop(number)[1]
            assert timer.is_alive
            timer.cancel()
            timer.cancel()
            assert not timer.is_alive

    @precondition(lambda self: len(self.live) > 1)
    @rule(keep=st.integers(min_value=0, max_value=3))
    def cancel_all_but(self, keep: int) -> None:
        while len(self.live) > keep:
            self.cancel(len(self.live) // 2)

    @rule(delay_s=_INSTANTS_S)
    def advance(self, delay_s: float) -> None:
        self.fired.clear()
        self.clock.advance(delay_s)
        deadlines = [deadline_s for deadline_s, _ in self.fired]
        assert deadlines == sorted(deadlines)
        assert all(deadline_s > self.clock.now for deadline_s, _ in self.live.values())

    @rule(delay_s=_INSTANTS_S)
    def run_late(self, delay_s: float) -> None:
        """A driver that was busy runs everything that is overdue, in the order of deadlines."""
        self.fired.clear()
        self.clock.now += delay_s
        due = sorted(
            (deadline_s, number)
            for number, (deadline_s, _) in self.live.items()
            if deadline_s <= self.clock.now
        )
        self.timers.run(self.clock.now)
        assert [pair for pair in self.fired if pair in due] == [
            pair for pair in due if pair in self.fired
        ]
        assert all(deadline_s > self.clock.now for deadline_s, _ in self.live.values())

    @invariant()
    def counts_the_living(self) -> None:
        assert len(self.timers) == len(self.live)

    @rule()
    def next_deadline(self) -> None:
        earliest = min((deadline_s for deadline_s, _ in self.live.values()), default=None)
        assert self.timers.next_deadline() == earliest

    @invariant()
    def has_told_its_driver_of_the_earliest(self) -> None:
        assert all(self.clock.wakes_up_s <= deadline_s for deadline_s, _ in self.live.values())

    @invariant()
    def keeps_few_dead(self) -> None:
        assert len(self.timers._heap) <= 2 * len(self.live) + 64


TestTimersMachine = TimersMachine.TestCase
TestTimersMachine.settings = settings(max_examples=60)


def test_same_deadline_runs_in_the_order_of_scheduling() -> None:
    timers, ran = Timers(), list[int]()
    for number in range(5):
        timers.schedule(1.0, lambda now, number=number: ran.append(number))  # type: ignore[misc]
    timers.run(0.999)
    assert ran == []
    timers.run(1.0)
    assert ran == [0, 1, 2, 3, 4]


def test_on_earlier_tells_only_of_earlier_deadlines() -> None:
    timers, told = Timers(), list[float]()
    timers.on_earlier = told.append
    for deadline_s in (5.0, 7.0, 5.0, 3.0, 4.0):
        timers.schedule(deadline_s, lambda now: None)
    assert told == [5.0, 3.0]


def test_an_action_may_schedule_another_that_is_due_at_once() -> None:
    timers, ran = Timers(), list[float]()
    timers.schedule(1.0, lambda now: ran.append(timers.schedule(1.0, ran.append).deadline_s))
    timers.run(2.0)
    assert ran == [1.0, 2.0]
    assert timers.next_deadline() is None


def test_a_cancelled_timer_lets_go_of_its_action_at_once() -> None:
    class Action:
        def __call__(self, now: float) -> None:
            raise AssertionError("it was cancelled")

    timers, action = Timers(), Action()
    gone = weakref.ref(action)
    timer = timers.schedule(1.0, action)
    del action
    timer.cancel()
    assert gone() is None
    timers.run(1.0)
    timer._fire(1.0)


def test_an_action_that_raises_does_not_run_again() -> None:
    timers, ran = Timers(), list[float]()

    def fail(now: float) -> None:
        raise RuntimeError("broken")

    timers.schedule(1.0, fail)
    timers.schedule(2.0, ran.append)
    with pytest.raises(RuntimeError, match="broken"):
        timers.run(3.0)
    timers.run(3.0)
    assert ran == [3.0]
    assert len(timers) == 0


def test_memory_is_bounded_when_the_living_fire_and_the_dead_stay() -> None:
    timers = Timers()
    for _ in range(100):
        timers.schedule(1.0, lambda now: None)
    timers.schedule(2.0, lambda now: None)
    for timer in [timers.schedule(3.0, lambda now: None) for _ in range(100)]:
        timer.cancel()
    timers.run(1.0)
    assert len(timers) == 1
    assert len(timers._heap) <= 2 + 64
