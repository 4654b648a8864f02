"""The load: clients that send one request after the other and check every answer to the last byte.

A closed loop: each client has a connection of its own and sends its next request as soon as it has
its answer. A client that gets a wrong answer stops, and the whole run counts as failed.
"""

import asyncio
import math
from time import perf_counter
from typing import Final, cast

import msgspec

from loadkit.http import MessageReader, WrongMessageError, header_value

__all__ = ["Load", "Task", "Window"]

_PATIENCE_S: Final = 30.0
_MAX_FAILURES_SHOWN: Final = 5


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends and what it must get.

    ``is_picked`` is whether the EPP must have had a hand in it, which its response header proves:
    a gateway that goes around its EPP would be fast.
    """

    port: int
    request: bytes
    body: bytes
    is_picked: bool


class Window(msgspec.Struct, kw_only=True):
    """What happened in a run: the latencies in seconds, one for each good answer.

    ``queue_waits_ms`` are the waits that the EPP reports, ``failures`` the first few reasons.
    """

    elapsed_s: float = 0.0
    latencies_s: list[float] = []
    queue_waits_ms: list[int] = []
    failed: int = 0
    failures: list[str] = []

    def fail(self, reason: str) -> None:
        """Count a request that had a wrong answer or none."""
        self.failed += 1
        if len(self.failures) < _MAX_FAILURES_SHOWN:
            self.failures.append(reason)


class Load:
    """Clients with open connections, ready to run. Use it as an asynchronous context manager."""

    def __init__(self, task: Task, clients: int) -> None:
        self.task = task
        self.window = Window()
        self.clients = clients
        self._members: list[_Client] = []
        self._end_s = -math.inf
        self._requests_left = math.inf
        self._asking = 0
        self._all_done = asyncio.Event()

    async def __aenter__(self) -> "Load":
        """Connect all clients."""
        loop = asyncio.get_running_loop()
        for _ in range(self.clients):
            _, client = await loop.create_connection(
                lambda: _Client(self), "127.0.0.1", self.task.port
            )
            self._members.append(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        for client in self._members:
            client.close()

    async def run(self, *, duration_s: float | None = None, requests: int | None = None) -> Window:
        """Send for so long, or so many requests; return when the last answer is in."""
        window = self.window = Window()
        begin_s = perf_counter()
        self._end_s = begin_s + (math.inf if duration_s is None else duration_s)
        self._requests_left = math.inf if requests is None else requests
        self._all_done.clear()
        self._asking = len(self._members)
        for client in self._members:
            client.ask()
        try:
            async with asyncio.timeout((duration_s or 0.0) + _PATIENCE_S):
                await self._all_done.wait()
        except TimeoutError:
            for client in self._members:
                client.give_up()
        window.elapsed_s = perf_counter() - begin_s
        return window

    # For the clients

    def may_ask(self) -> bool:
        """Return whether one more request is to be sent; the client must send it or stop."""
        self._requests_left -= 1
        return self._requests_left >= 0 and perf_counter() < self._end_s

    def stopped(self) -> None:
        """One client sends no more."""
        self._asking -= 1
        if not self._asking:
            self._all_done.set()


class _Client(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._reader = MessageReader(load.task.body)
        self._transport = cast("asyncio.Transport", None)
        self._asked_s = 0.0
        self._is_asking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        if self._transport.is_closing() or not self._load.may_ask():
            self._load.stopped()
            return
        self._is_asking = True
        self._asked_s = perf_counter()
        self._transport.write(self._load.task.request)

    def data_received(self, data: bytes) -> None:
        try:
            if not self._is_asking:
                raise WrongMessageError(f"unasked bytes: {data[:40]!r}")
            if not self._reader.feed(data):
                return
            self._check(self._reader.head)
        except WrongMessageError as error:
            self._fail(f"{error}; the head is {self._reader.head[:80]!r}")
            return
        self._load.window.latencies_s.append(perf_counter() - self._asked_s)
        self._reader.next()
        self._is_asking = False
        self.ask()

    def _check(self, head: bytes) -> None:
        if not head.startswith(b"http/1.1 200 "):
            raise WrongMessageError("not the status 200")
        if self._load.task.is_picked:
            wait_ms = header_value(head, b"x-queue-wait-ms")
            if wait_ms is None:
                raise WrongMessageError("an answer without the EPP's header: it went around it")
            self._load.window.queue_waits_ms.append(int(wait_ms))

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_asking:
            self._fail(f"the connection was lost ({error or 'closed by Envoy'})")

    def give_up(self) -> None:
        if self._is_asking:
            self._fail(f"no answer within {_PATIENCE_S:g} s after the end")

    def close(self) -> None:
        self._is_asking = False
        self._transport.close()

    def _fail(self, reason: str) -> None:
        was_asking, self._is_asking = self._is_asking, False
        self._load.window.fail(reason)
        self._transport.close()
        if was_asking:
            self._load.stopped()
