import asyncio

import pytest
from msgspec.structs import replace

from epp.modelserver.engine import Engine
from epp.modelserver.runner import EngineRunner

from .conftest import eventually
from .engines import make_engine, request


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("epp.modelserver.runner.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def engine() -> Engine:
    """Return an engine whose iterations take about a millisecond."""
    options = make_engine().options
    return Engine(replace(options, latency=replace(options.latency, time_scale=1024)))


async def test_a_late_iteration_begins_when_it_was_due(clock: Clock, engine: Engine) -> None:
    runner = EngineRunner(engine)
    feed = runner.submit(request("a", output=5), lambda: None)
    await eventually(lambda: engine.wake_at != clock.now)
    clock.now += 0.03
    total = 0
    while total < 5:
        total += await feed.take()
    # As fast as without the lag: 1.125 in the first iteration and in each of the others.
    assert engine.stats.request_s.sum == pytest.approx(5 * 1.125 / 1024)


async def test_after_a_stall_the_engine_goes_on_from_the_present(
    clock: Clock, engine: Engine
) -> None:
    runner = EngineRunner(engine)
    feed = runner.submit(request("a", output=5), lambda: None)
    await eventually(lambda: engine.wake_at != clock.now)
    clock.now += 10.0
    assert await feed.take() == 1
    assert engine.wake_at is not None
    assert engine.wake_at > clock.now
    runner.close()


async def test_no_request_starts_before_it_arrived(clock: Clock, engine: Engine) -> None:
    runner = EngineRunner(engine)
    runner.submit(request("a", output=5), lambda: None)
    await eventually(lambda: engine.wake_at != clock.now)
    clock.now += 0.03
    started = asyncio.Event()
    runner.submit(request("b"), started.set)
    await started.wait()
    assert engine.stats.queue_s.sum == 0.0
    runner.close()


async def test_an_aborted_request_is_gone_and_others_go_on(clock: Clock, engine: Engine) -> None:
    runner = EngineRunner(engine)
    runner.submit(request("a"), lambda: None)
    feed = runner.submit(request("b"), lambda: None)
    runner.abort("a")
    runner.abort("a")
    await eventually(lambda: engine.num_running == 1)
    clock.now += 1.0
    assert await feed.take() == 1
    assert engine.num_running == engine.num_waiting == 0
    assert engine.wake_at is None
