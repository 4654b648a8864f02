"""Load at a rate: requests are sent when they are due, however long the answers take.

An open loop, unlike :mod:`loadkit.client`. A latency counts from when its request was due, so what
holds the client up is not lost from the figures.
"""

import asyncio
import random
from time import perf_counter
from typing import Final, cast

from loadkit.client import Task, Window
from loadkit.http import MessageReader, WrongMessageError, header_value

__all__ = ["paced"]

_PATIENCE_S: Final = 30.0


async def paced(task: Task, *, rate_per_s: float, duration_s: float, seed: int = 0) -> Window:
    """Send requests for so long, with exponential gaps; return when the last answer is in."""
    load = _Load(task)
    chance = random.Random(seed)
    begin_s = perf_counter()
    due_s = begin_s + chance.expovariate(rate_per_s)
    while due_s < begin_s + duration_s:
        await asyncio.sleep(max(0.0, due_s - perf_counter()))
        await load.send(due_s)
        due_s += chance.expovariate(rate_per_s)
    await load.end()
    load.window.elapsed_s = perf_counter() - begin_s
    return load.window


class _Load:
    """The connections; each carries one request at a time."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.window = Window()
        self.idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def send(self, due_s: float) -> None:
        """Send one over a connection that has nothing to do."""
        while self.idle:
            connection = self.idle.pop()
            if connection.send(due_s):
                return
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self), "127.0.0.1", self.task.port
        )
        self._all.append(connection)
        connection.send(due_s)

    async def end(self) -> None:
        """Wait for the answers and close the connections."""
        give_up_s = perf_counter() + _PATIENCE_S
        while any(each.is_asking for each in self._all) and perf_counter() < give_up_s:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for connection in self._all:
            if connection.is_asking:
                self.window.fail(f"no answer within {_PATIENCE_S:g} s after the end")
            connection.close()


class _Connection(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self.is_asking = False
        self._load = load
        self._reader = MessageReader(load.task.body)
        self._transport = cast("asyncio.Transport", None)
        self._due_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, due_s: float) -> bool:
        if self._transport.is_closing():
            return False
        self.is_asking = True
        self._due_s = due_s
        self._transport.write(self._load.task.request)
        return True

    def data_received(self, data: bytes) -> None:
        try:
            if not self._reader.feed(data):
                return
            self._check(self._reader.head)
        except WrongMessageError as error:
            self._fail(f"{error}; the head is {self._reader.head[:80]!r}")
            return
        self._load.window.latencies_s.append(perf_counter() - self._due_s)
        self._reader.next()
        self.is_asking = False
        self._load.idle.append(self)

    def _check(self, head: bytes) -> None:
        if not head.startswith(b"http/1.1 200 "):
            raise WrongMessageError("not the status 200")
        if self._load.task.is_picked and header_value(head, b"x-queue-wait-ms") is None:
            raise WrongMessageError("an answer without the EPP's header: it went around it")

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_asking:
            self._fail(f"the connection was lost ({error or 'closed by Envoy'})")

    def close(self) -> None:
        self.is_asking = False
        self._transport.close()

    def _fail(self, reason: str) -> None:
        if self.is_asking:
            self._load.window.fail(reason)
        self.close()
