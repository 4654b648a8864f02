"""What stands in the core process where a transport stands in a single one: the workers' socket."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from epp.clock import monotonic_s
from epp.core.router import Router
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

    ``health`` is kept from being ready as long as no worker listens to the proxy.
    """

    def __init__(
        self,
        router: Router,
        seat: CoreSeat,
        *,
        workers: int,
        timers: Timers,
        health: Health,
        tally: Tally,
    ) -> None:
        self.port = 0
        self.hub = Hub(router, workers=workers, timers=timers, tally=tally)
        self.hub.on_change = self._changed
        self._router = router
        self._listener = seat.listener
        self._workers = workers
        self._health = health
        self._links: set[Link[WorkerMessage]] = set()
        self._change = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._follower: asyncio.Task[None] | None = None
        self._told_ready = False

    @property
    def open_streams(self) -> int:
        """Streams that are open now, at all workers; a second old at most."""
        return sum(self.hub.open_streams.values())

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served: the pool is known, and a worker listens."""
        return self._router.is_ready and self.hub.listening > 0

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
            await self._until(lambda: self.hub.listening > 0)
        self._follower = asyncio.create_task(self._follow(), name="follow workers")

    async def stop(self, grace_s: float) -> None:
        """Let the workers give their streams ``grace_s`` seconds and end; wait for it."""
        if self._server is None:
            return
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
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

    async def _follow(self) -> None:
        """Be ready as long as there is a worker that listens."""
        while True:
            self._told_ready = self.is_ready
            await self._health.set_ready(self._told_ready)
            await self._until(lambda: self.is_ready != self._told_ready)

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

    def _announce_standing(self) -> None:
        router = self._router
        self.hub.announce_standing(is_ready=router.is_ready, is_draining=router.is_draining)
