"""The supervisor, with processes of a few lines."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from epp.gateway.processes import ProcessFailure, ProcessSpec, Supervisor

from .conftest import eventually, is_running

SLEEP = "import time; time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


async def always() -> bool:
    return True


async def never() -> bool:
    return False


def appears(path: Path) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return os.access(path, os.F_OK)

    return probe


def spec(name: str = "one", code: str = SLEEP, **others: object) -> ProcessSpec:
    return ProcessSpec(name=name, command=python(code), **{"ready": always, **others})


async def test_start_waits_until_all_of_the_group_are_ready(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        marks = [tmp_path / "a", tmp_path / "b"]
        specs = [
            spec(mark.name, f"open({str(mark)!r}, 'w').close(); {SLEEP}", ready=appears(mark))
            for mark in marks
        ]
        await supervisor.start(specs)
        assert all(mark.exists() for mark in marks)
        assert [process.name for process in supervisor.processes] == ["a", "b"]


async def test_groups_are_stopped_in_the_opposite_order(tmp_path: Path) -> None:
    order = tmp_path / "order"

    def recording(name: str) -> ProcessSpec:
        mark = tmp_path / name
        code = (
            "import signal, sys, time\n"
            "def end(*_):\n"
            f"    open({str(order)!r}, 'a').write('{name} ')\n"
            "    sys.exit()\n"
            "signal.signal(signal.SIGTERM, end)\n"
            f"open({str(mark)!r}, 'w').close()\n"
            "time.sleep(60)"
        )
        return spec(name, code, ready=appears(mark))

    async with Supervisor(tmp_path) as supervisor:
        for name in ("first", "second", "third"):
            await supervisor.start([recording(name)])
    assert order.read_text().split() == ["third", "second", "first"]


async def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = STUBBORN.replace("time.sleep", f"open({str(mark)!r}, 'w').close(); time.sleep")
    async with Supervisor(tmp_path) as supervisor:
        stubborn = spec(code=code, ready=appears(mark), stop_timeout_s=0.1)
        (process,) = await supervisor.start([stubborn])
    assert process.exit.result() == -signal.SIGKILL


async def test_impatience_kills_at_once(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    code = STUBBORN.replace("time.sleep", f"open({str(mark)!r}, 'w').close(); time.sleep")
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([spec(code=code, ready=appears(mark), stop_timeout_s=60)])
        stopping = asyncio.create_task(supervisor.stop())
        await asyncio.sleep(0)
        supervisor.kill()
        async with asyncio.timeout(10):
            await stopping


async def test_children_of_a_process_end_with_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    wrapper = f"sleep 60 & echo $! > {child}.new; mv {child}.new {child}; wait"
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start(
            [ProcessSpec(name="wrapper", command=["sh", "-c", wrapper], ready=appears(child))]
        )
        pid = int(child.read_text())
        assert is_running(pid)

    async def gone() -> bool:
        return not is_running(pid)

    await eventually(gone)


async def test_a_death_is_reported_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('some words'); print('last words', file=sys.stderr); sys.exit(3)"
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([spec("healthy")])
        with pytest.raises(ProcessFailure) as caught:
            await supervisor.start([spec("sick", code, ready=never)])
    failure = caught.value
    assert str(failure) == "sick ended by itself (exit status 3)"
    assert set(failure.log_lines) == {"some words", "last words"}
    assert failure.log_path == tmp_path / "sick.log"
    assert "  | last words" in failure.report()


async def test_a_death_of_an_earlier_process_ends_a_start(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        (first,) = await supervisor.start([spec("first")])
        starting = asyncio.create_task(supervisor.start([spec("second", ready=never)]))
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(ProcessFailure, match=r"first ended by itself \(killed by SIGKILL\)"):
            await starting
        second = supervisor.processes[1]
    assert not is_running(second.pid)


async def test_watch_names_the_first_that_dies(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        await supervisor.start([spec("one"), spec("two")])
        watching = asyncio.create_task(supervisor.watch())
        os.kill(supervisor.processes[1].pid, signal.SIGTERM)
        with pytest.raises(ProcessFailure, match=r"two .*SIGTERM") as caught:
            await watching
        assert caught.value.report().endswith("it printed nothing")


async def test_readiness_has_a_limit(tmp_path: Path) -> None:
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProcessFailure, match=r"one was not ready within 0\.1 s"):
            await supervisor.start([spec(ready=never, ready_timeout_s=0.1)])


async def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    missing = ProcessSpec(name="missing", command=["/no/such/command"], ready=never)
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProcessFailure) as caught:
            await supervisor.start([missing])
    expected = "/no/such/command cannot be started: No such file or directory"
    assert caught.value.log_lines == (expected,)


async def test_only_the_end_of_a_long_log_is_reported(tmp_path: Path) -> None:
    code = "import sys; print('x' * 50_000)\nfor n in range(100): print(n)\nsys.exit(1)"
    async with Supervisor(tmp_path) as supervisor:
        with pytest.raises(ProcessFailure) as caught:
            await supervisor.start([spec(code=code, ready=never)])
    assert caught.value.log_lines == tuple(str(number) for number in range(85, 100))


def test_nothing_survives_a_killed_parent(tmp_path: Path) -> None:
    parent = f"""
import asyncio, pathlib
from epp.gateway.processes import ProcessSpec, Supervisor
async def always(): return True
async def main():
    supervisor = Supervisor(pathlib.Path({str(tmp_path)!r}))
    (process,) = await supervisor.start(
        [ProcessSpec(name="child", command={python(STUBBORN)!r}, ready=always)])
    print(process.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    import subprocess

    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert is_running(child)
        process.kill()
    deadline = time.monotonic() + 10
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)
