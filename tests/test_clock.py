"""The one alarm that rings for all deadlines of the core."""

import asyncio

from epp.clock import Alarm, monotonic_s
from epp.core.timers import Timers


async def test_rings_for_deadlines_set_before_and_after_it_started() -> None:
    timers = Timers()
    alarm = Alarm(timers)
    rung: list[str] = []
    done = asyncio.Event()
    now = monotonic_s()
    timers.schedule(now + 0.05, lambda _: rung.append("later"))
    alarm.start()
    timers.schedule(now + 0.01, lambda _: rung.append("sooner"))
    timers.schedule(now + 0.06, lambda _: done.set())
    await asyncio.wait_for(done.wait(), 10)
    assert rung == ["sooner", "later"]
    alarm.stop()


async def test_never_rings_before_the_deadline() -> None:
    timers = Timers()
    alarm = Alarm(timers)
    alarm.start()
    rung_at: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    deadline_s = monotonic_s() + 0.0123
    timers.schedule(deadline_s, rung_at.set_result)
    assert await asyncio.wait_for(rung_at, 10) >= deadline_s
    alarm.stop()


async def test_goes_on_ringing_after_an_action_that_failed() -> None:
    timers = Timers()
    alarm = Alarm(timers)
    alarm.start()
    failures: list[BaseException] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
    done = asyncio.Event()
    now = monotonic_s()

    def fail(_: float) -> None:
        raise RuntimeError("broken action")

    timers.schedule(now + 0.001, fail)
    timers.schedule(now + 0.002, lambda _: done.set())
    await asyncio.wait_for(done.wait(), 10)
    assert [str(failure) for failure in failures] == ["broken action"]
    alarm.stop()


async def test_is_silent_once_stopped() -> None:
    timers = Timers()
    alarm = Alarm(timers)
    alarm.start()
    rung: list[float] = []
    timers.schedule(monotonic_s(), rung.append)
    alarm.stop()
    timers.schedule(monotonic_s(), rung.append)
    turn = asyncio.Event()
    asyncio.get_running_loop().call_later(0.005, turn.set)
    await turn.wait()
    assert rung == []
