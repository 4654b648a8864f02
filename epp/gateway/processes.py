"""A small supervisor: processes that start in order, live together and stop together.

Every process runs in a session of its own, so that Ctrl-C at the terminal reaches only the parent,
which then stops the rest in good order. On Linux the kernel kills them when the parent dies, in
whatever way. What a process prints goes straight into its log file: no pipe can fill up and block
it.
"""

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from epp.gateway.leash import leashed
from epp.gateway.probes import Probe

__all__ = ["ManagedProcess", "ProcessFailure", "ProcessSpec", "Supervisor"]

_POLL_S = 0.05
_TAIL_BYTES = 16 * 1024
_TAIL_LINES = 15


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, how to know that it is ready, and how long it may take.

    ``environment`` is added to the parent's. ``stop_timeout_s`` lies between SIGTERM and SIGKILL.
    """

    name: str
    command: Sequence[str]
    ready: Probe
    environment: Mapping[str, str] = {}
    ready_timeout_s: float = 30.0
    stop_timeout_s: float = 5.0


class ProcessFailure(Exception):
    """A process that did not become ready, or ended by itself.

    ``log_lines`` are the last lines that it printed, ``log_path`` where the others are.
    """

    def __init__(self, name: str, what: str, log_path: Path, log_lines: Sequence[str]) -> None:
        super().__init__(f"{name} {what}")
        self.name = name
        self.what = what
        self.log_path = log_path
        self.log_lines = tuple(log_lines)

    def report(self) -> str:
        """Return the whole story for the terminal: what happened, and the last log lines."""
        if not self.log_lines:
            return f"{self}; it printed nothing"
        lines = "\n".join(f"  | {line}" for line in self.log_lines)
        return f"{self}; the last lines of {self.log_path}:\n{lines}"


class ManagedProcess:
    """One running process of the supervisor."""

    def __init__(
        self, spec: ProcessSpec, process: asyncio.subprocess.Process, log_path: Path
    ) -> None:
        self.spec = spec
        self.log_path = log_path
        self.started_at_s = asyncio.get_running_loop().time()
        self._process = process
        self.exit: asyncio.Task[int] = asyncio.create_task(process.wait(), name=f"exit {spec.name}")

    @property
    def name(self) -> str:
        """The name from the specification."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session."""
        return self._process.pid

    def failure(self, what: str) -> ProcessFailure:
        """Return the failure of this process with the end of its log."""
        return ProcessFailure(self.name, what, self.log_path, _last_lines(self.log_path))

    async def stop(self) -> None:
        """End the process and its children: SIGTERM, ``stop_timeout_s`` of patience, SIGKILL."""
        if not self.exit.done():
            self.signal(signal.SIGTERM)
            await asyncio.wait({self.exit}, timeout=self.spec.stop_timeout_s)
        # Also after a good end: a wrapper script may have left behind what it started.
        self.signal(signal.SIGKILL)
        await asyncio.wait({self.exit})

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all that it started in its session."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


class Supervisor:
    """Starts groups of processes one after the other and stops them in the opposite order.

    An async context manager: leaving it, by whatever way, stops all that was started.
    """

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._groups: list[list[ManagedProcess]] = []

    async def __aenter__(self) -> "Supervisor":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def processes(self) -> list[ManagedProcess]:
        """All processes that were started, in that order."""
        return [process for group in self._groups for process in group]

    async def start(self, specs: Iterable[ProcessSpec]) -> list[ManagedProcess]:
        """Start a group at once and return when all of it is ready.

        Raises :class:`ProcessFailure` when one is not ready in its time, or when any process, also
        of an earlier group, ends meanwhile.
        """
        group: list[ManagedProcess] = []
        self._groups.append(group)
        for spec in specs:
            await self._spawn(spec, group)
        ready = asyncio.create_task(_wait_ready(group))
        ended = asyncio.create_task(self.watch())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            ready.result()
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)
        return group

    async def watch(self) -> None:
        """Wait until a process ends by itself, and raise :class:`ProcessFailure` for it."""
        exits = {process.exit: process for process in self.processes}
        done, _ = await asyncio.wait(exits, return_when=asyncio.FIRST_COMPLETED)
        # In order of start: what started first is more likely the cause than the consequence.
        first = next(process for exit_, process in exits.items() if exit_ in done)
        raise first.failure(f"ended by itself ({_exit_reason(first.exit.result())})")

    async def stop(self) -> None:
        """Stop every process, the last group first; returns when all have ended."""
        while self._groups:
            await asyncio.gather(*(process.stop() for process in self._groups[-1]))
            self._groups.pop()

    def kill(self) -> None:
        """Kill every process at once, for a user who does not want to wait."""
        for process in self.processes:
            process.signal(signal.SIGKILL)

    async def _spawn(self, spec: ProcessSpec, group: list[ManagedProcess]) -> None:
        log_path = self._log_directory / f"{spec.name}.log"
        with log_path.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leashed(list(spec.command)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **spec.environment},
                start_new_session=True,
            )
        group.append(ManagedProcess(spec, process, log_path))


async def _wait_ready(group: Iterable[ManagedProcess]) -> None:
    # One after the other takes no longer than all at once: each deadline counts from the start.
    for process in group:
        spec = process.spec
        try:
            async with asyncio.timeout_at(process.started_at_s + spec.ready_timeout_s):
                while not await spec.ready():  # noqa: ASYNC110 - the other end is a process
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise process.failure(f"was not ready within {spec.ready_timeout_s:g} s") from None


def _exit_reason(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _last_lines(path: Path) -> list[str]:
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _TAIL_BYTES))
        text = log.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
