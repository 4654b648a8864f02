"""A port that can be listened on, left alone and listened on again."""

import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["Listener"]


class Listener:
    """Serves HTTP on one loopback port, which stays this one's while nobody listens on it."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        self._handler = handler
        self._holder: socket.socket | None = None
        self._runner: web.ServerRunner | None = None
        self.port = 0

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._runner is not None

    async def start(self, port: int = 0) -> None:
        """Listen, the first time on this port (0: any that is free), then on the same again."""
        if self._holder is None:
            self._holder = self._bound(port)
            self.port = self._holder.getsockname()[1]
        # Its own cancellation is how a watch learns that its client has gone.
        server = web.Server(self._handler, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0)
        await self._runner.setup()
        await web.SockSite(self._runner, self._bound(self.port)).start()

    async def stop(self) -> None:
        """Break all connections and refuse new ones; the port is kept."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        self._abort(runner)
        await runner.cleanup()

    async def close(self) -> None:
        """Stop, and give the port back."""
        await self.stop()
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def abort(self) -> None:
        """Break all connections."""
        if self._runner is not None:
            self._abort(self._runner)

    @staticmethod
    def _abort(runner: web.ServerRunner) -> None:
        for connection in list(runner.server.connections) if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()

    @staticmethod
    def _bound(port: int) -> socket.socket:
        found = socket.socket()
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(("127.0.0.1", port))
        return found
