"""What stands in the core process where a transport stands in a single one: the workers' socket."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from epp.clock import monotonic_s
from epp.core.pools import Pools
from epp.core.timers import Timers
from epp.proxy.health import Health
from epp.proxy.tls import ServerTls
from epp.workers.hub import Hub, Session
from epp.workers.link import Link
from epp.workers.messages import WorkerMessage, from_worker
from epp.workers.tally import Tally

__all__ = ["CoreSeat", "HubServer"]

logger = logging.getLogger(__name__)

_ALL_LISTENING_S: Final = 10.0
_GOODBYE_S: Final = 5.0


class CoreSeat(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is given that is to be the core of several.

    ``listener`` is the socket at which the workers find it, ``restarts`` how often there was a core
    before.
    """

    listener: socket.socket
    restarts: int


class HubServer:
    """The workers of this core (:class:`epp.proxy.transport.Transport`).

    ``may_serve`` tells what they are to tell the proxy of their readiness; they are told whenever
    ``health`` is. ``on_change`` is called when a worker has begun to listen or has left.
    """

    def __init__(
        self,
        pools: Pools,
        seat: CoreSeat,
        *,
        workers: int,
        timers: Timers,
        health: Health,
        tally: Tally,
        may_serve: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        self.port = 0
        self.hub = Hub(pools, workers=workers, timers=timers, tally=tally)
        self.hub.on_change = self._changed
        self._pools = pools
        self._listener = seat.listener
        self._workers = workers
        self._health = health
        self._links: set[Link[WorkerMessage]] = set()
        self._may_serve = may_serve
        self._on_change = on_change
        self._change = asyncio.Event()
        self._server: asyncio.Server | None = None

    @property
    def open_streams(self) -> int:
        """Streams that are open now, at all workers; a second old at most."""
        return sum(self.hub.open_streams.values())

    @property
    def has_workers(self) -> bool:
        """Whether any worker listens to the proxy."""
        return self.hub.listening > 0

    async def start(self, host: str, port: int, tls: ServerTls | None = None) -> None:
        """Let the workers in; return when all of them listen to the proxy, or, after a while, one.

        Where they listen, and with what TLS, is their own affair.
        """
        self.port = port
        self._announce_standing()
        self._health.watch(self._announce_standing)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._new_link, sock=self._listener)
        try:
            async with asyncio.timeout(_ALL_LISTENING_S):
                await self._until(lambda: self.hub.listening >= self._workers)
        except TimeoutError:
            logger.warning("workers listening: %d of %d", self.hub.listening, self._workers)
            await self._until(lambda: self.has_workers)

    async def stop(self, grace_s: float) -> None:
        """Let the workers give their streams ``grace_s`` seconds and end; wait for it."""
        if self._server is None:
            return
        self.hub.stop(grace_s)
        try:
            async with asyncio.timeout(grace_s + _GOODBYE_S):
                await self._until(lambda: not self._links)
        except TimeoutError:
            logger.warning("workers that did not end: %d", len(self._links))
        self._health.unwatch(self._announce_standing)
        for link in list(self._links):
            link.abort()
        self._server.close()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._change.clear()
            await self._change.wait()

    def _new_link(self) -> asyncio.Protocol:
        link: Link[WorkerMessage] = Link(
            "a worker",
            from_worker(),
            on_messages=lambda messages: self.hub.received(session, messages, monotonic_s()),
            on_lost=lambda: self._lost(link, session),
        )
        session = Session(link.send, link.abort)
        self._links.add(link)
        return link

    def _lost(self, link: Link[WorkerMessage], session: Session) -> None:
        self._links.discard(link)
        self.hub.left(session, monotonic_s())
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._on_change()

    def _announce_standing(self) -> None:
        is_draining = self._pools.is_draining
        self.hub.announce_standing(is_ready=self._may_serve(), is_draining=is_draining)
