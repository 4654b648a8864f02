"""A relay between a client and a server that sees the pings and the ends that go by."""

import asyncio
from contextlib import suppress

from .http2.support import ACK, GOAWAY, PING, PREFACE

__all__ = ["PingRelay"]


class PingRelay:
    """Passes bytes on; ``answered`` counts the server's answers to pings, ``goaways`` its GOAWAY
    frames. An asynchronous context manager; ``port`` is where it listens."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.answered = 0
        self.goaways = 0

    async def __aenter__(self) -> "PingRelay":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        others = await asyncio.open_connection("127.0.0.1", self._target_port)
        for coroutine in (self._up(reader, others[1]), self._down(others[0], writer)):
            task = asyncio.create_task(coroutine)
            self._tasks.add(task)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                writer.write(await reader.readexactly(len(PREFACE)))
                while True:
                    await self._frame(reader, writer)
        finally:
            writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    kind, flags = await self._frame(reader, writer)
                    self.answered += kind == PING and flags == ACK
                    self.goaways += kind == GOAWAY
        finally:
            writer.close()

    async def _frame(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int, int]:
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        writer.write(head + payload)
        await writer.drain()
        return head[3], head[4]
