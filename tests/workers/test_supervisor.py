"""The parent and its children, as a program of their own: small ones, which do what a test says."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from epp.workers.supervisor import describe_end

from ..e2e.support import eventually

PATIENCE_S = 20.0
PROGRAM = """
import logging, os, signal, sys, time
from epp.errors import UsageError
from epp.workers.supervisor import ChildSpec, Supervisor

logging.basicConfig(level="INFO", format="log %(message)s", stream=sys.stdout)

def say(*words):  # in one piece: others say something, too
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def until_told(code=0):
    def told(*_):
        say("told", os.getpid())
        os._exit(code)
    signal.signal(signal.SIGTERM, told)
    return told

def obedient(name, code=0):
    def main(restarts, tell_ready):
        until_told(code)
        tell_ready()
        say(name, restarts, os.getpid())
        while True:
            signal.pause()
    return ChildSpec(name=name, main=main)

def deaf(name):
    def main(restarts, tell_ready):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell_ready()
        say(name, restarts, os.getpid())
        while True:
            signal.pause()
    return ChildSpec(name=name, main=main)

def failing(name, how, is_ready=False):
    def main(restarts, tell_ready):
        if is_ready:
            tell_ready()
        say(name, restarts, os.getpid())
        return how()
    return ChildSpec(name=name, main=main)

def usage():
    raise UsageError("nonsense was given")

def crash():
    raise RuntimeError("a mistake")

{specs}
say("parent", os.getpid())
sys.exit(Supervisor(specs, stop_timeout_s={stop_timeout_s}).run())
"""


class Program:
    """A program with a supervisor that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []

    async def line(self, is_wanted: Callable[[str], bool], times: int = 1) -> list[str]:
        """Wait until a line that is wanted was said so many times; return its words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [line for line in self.said if is_wanted(line)]) < times:
                line = await self.process.stdout.readline()
                assert line, self.said
                self.said.append(line.decode().rstrip())
        return found[-1].split()

    async def child(self, name: str, restarts: int = 0) -> int:
        """Wait for a child's word; return its process id."""
        words = await self.line(lambda line: line.startswith(f"{name} {restarts} "))
        return int(words[2])

    async def ends(self) -> int:
        """Wait for the end; return the exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            self.said += (await self.process.stdout.read()).decode().splitlines()
            return await self.process.wait()


@asynccontextmanager
async def program(specs: str, stop_timeout_s: float = 10.0) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.format(specs=f"specs = [{specs}]", stop_timeout_s=stop_timeout_s),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().rstrip()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_is_told_to_the_first_alone_and_then_to_the_rest(
    number: signal.Signals,
) -> None:
    async with program('obedient("core"), obedient("worker")') as it:
        core = await it.child("core")
        worker = await it.child("worker")
        it.process.send_signal(number)
        assert await it.ends() == 0
        told = [int(line.split()[1]) for line in it.said if line.startswith("told")]
        assert told == [core, worker]


async def test_a_hang_up_ends_no_child_that_does_not_listen_to_it() -> None:
    async with program('obedient("core"), obedient("worker")') as it:
        core = await it.child("core")
        worker = await it.child("worker")
        it.process.send_signal(signal.SIGHUP)
        it.process.send_signal(signal.SIGTERM)
        assert await it.ends() == 0
        assert [int(line.split()[1]) for line in it.said if line.startswith("told")] == [
            core, worker
        ]  # fmt: skip


async def test_a_child_that_crashes_is_restarted_later_and_later() -> None:
    async with program('obedient("core"), failing("worker", lambda: 3, is_ready=True)') as it:
        core = await it.child("core")
        loop = asyncio.get_running_loop()
        times_s = []
        for restarts in range(5):
            await it.child("worker", restarts)
            times_s.append(loop.time())
        gaps_s = [after - before for before, after in pairwise(times_s)]
        assert gaps_s[0] < 0.2, "the first restart is at once"
        assert gaps_s[1] >= 0.15
        assert gaps_s[2] >= 0.35
        assert gaps_s[3] >= 0.75
        assert any("worker ended: exit status 3; restart" in line for line in it.said)
        assert is_alive(core)


async def test_a_child_that_is_killed_is_restarted() -> None:
    async with program('obedient("core"), obedient("worker")') as it:
        await it.child("core")
        worker = await it.child("worker")
        os.kill(worker, signal.SIGKILL)
        assert await it.child("worker", 1) != worker
        assert any("worker ended: killed by SIGKILL; restart" in line for line in it.said)


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("usage", 2, "epp: nonsense was given"),
        ("crash", 1, "RuntimeError: a mistake"),
        ("lambda: 7", 7, "log core could not start: exit status 7"),
        ("lambda: os.kill(os.getpid(), 9)", 1, "log core could not start: killed by SIGKILL"),
    ],
)
async def test_a_child_that_cannot_start_ends_it_all(how: str, code: int, said: str) -> None:
    async with program(f'failing("core", {how}), deaf("worker")') as it:
        assert await it.ends() == code
        assert said in it.said


async def test_what_does_not_end_in_time_is_killed() -> None:
    async with program('obedient("core"), deaf("worker")', stop_timeout_s=0.2) as it:
        await it.child("core")
        worker = await it.child("worker")
        it.process.terminate()
        assert await it.ends() == 1
        assert "log what did not end in time is killed" in it.said
        assert not is_alive(worker)


async def test_a_second_ctrl_c_does_not_wait() -> None:
    async with program('deaf("core"), deaf("worker")') as it:
        pids = [await it.child("core"), await it.child("worker")]
        it.process.send_signal(signal.SIGINT)
        await it.line(lambda line: line == "log stopping")
        it.process.send_signal(signal.SIGTERM)  # it knows already
        it.process.send_signal(signal.SIGINT)
        assert await it.ends() == 130
        assert not any(map(is_alive, pids))


async def test_ctrl_c_at_the_terminal_reaches_the_parent_alone() -> None:
    async with program('obedient("core"), deaf("worker")') as it:
        core, worker = await it.child("core"), await it.child("worker")
        assert name_of(core) == "epp core"
        groups = {os.getpgid(pid) for pid in (it.process.pid, core, worker)}
        assert groups == {it.process.pid, core, worker}
        assert {os.getsid(pid) for pid in (core, worker)} == {it.process.pid}, "one session"


async def test_a_core_that_crashes_while_it_stops_leaves_the_rest_to_the_parent() -> None:
    async with program('obedient("core", code=5), obedient("worker")') as it:
        await it.child("core")
        await it.child("worker")
        it.process.terminate()
        assert await it.ends() == 1
        assert sum(line.startswith("told") for line in it.said) == 2
        assert "log core ended: exit status 5" in it.said


async def test_without_a_core_the_rest_is_told() -> None:
    async with program('failing("core", lambda: 3, is_ready=True), obedient("worker")') as it:
        worker = await it.child("worker")
        await it.child("core", 3)  # the next is not due for 0.8 s
        await it.line(lambda line: line.startswith("log core ended"), times=4)
        it.process.terminate()
        assert await it.ends() == 0
        assert f"told {worker}" in it.said


async def test_nobody_outlives_the_parent() -> None:
    async with program('deaf("core"), deaf("worker")') as it:
        pids = [await it.child("core"), await it.child("worker")]
        it.process.kill()
        await eventually(lambda: not any(map(is_alive, pids)))


async def test_a_first_start_that_went_well_is_remembered() -> None:
    """A core whose manifests have become wrong meanwhile must not take the workers with it."""
    specs = """ChildSpec(name="core", main=lambda restarts, tell_ready: (
        say("core", restarts, os.getpid()), tell_ready() if not restarts else None, 2)[-1]),
        obedient("worker")"""
    async with program(specs) as it:
        worker = await it.child("worker")
        await it.child("core", 2)
        assert is_alive(worker)


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "exit status 0"), (-9, "killed by SIGKILL"), (-64 - 50, "killed by signal 114")],
)
def test_an_end_is_described(code: int, said: str) -> None:
    assert describe_end(code) == said
