"""A worker process: the proxy's streams end here, and decisions come from the core."""

import asyncio
import logging
import random
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from epp.clock import Alarm, monotonic_s
from epp.config import ServeOptions
from epp.core.claims import ClaimsReader
from epp.core.exchange import Exchange
from epp.core.flow.saturation import ConcurrencyOptions, known_limit, make_detector
from epp.core.headers import Headers
from epp.core.replies import ProxyStream
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.errors import UsageError
from epp.proxy.health import Health
from epp.proxy.transport import SharedPort
from epp.proxy.transports import make_tls, make_transport
from epp.workers.degraded import WorkerCounts
from epp.workers.link import Link
from epp.workers.messages import (
    Beat,
    CoreMessage,
    Dispatched,
    EndpointsChanged,
    Evict,
    Hello,
    Listening,
    Passed,
    PoolGone,
    Refused,
    Reread,
    Resources,
    Standing,
    Stop,
    Welcome,
    WorkerMessage,
    from_core,
)
from epp.workers.remote_gate import RemoteGate

__all__ = ["Worker", "WorkerSeat"]

logger = logging.getLogger(__name__)

_RECONNECT_S: Final = 0.05
_STATS_EVERY_S: Final = 1.0
_SILENCE_S: Final = 5.0
_GOODBYE_S: Final = 2.0


class WorkerSeat(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is given that is to be a worker.

    ``number`` is its place among the workers, ``restarts`` how often there was a worker at this
    place before; ``core_address`` is where to find the core.
    """

    number: int
    restarts: int
    core_address: bytes


class Worker:
    """One worker. ``tell_ready`` is called when it listens."""

    def __init__(
        self, options: ServeOptions, seat: WorkerSeat, tell_ready: Callable[[], None]
    ) -> None:
        self._options = options
        self._seat = seat
        self._tell_ready = tell_ready
        self._claims = ClaimsReader(options.claims)
        self._timers = Timers()
        self._alarm = Alarm(self._timers)
        self._health = Health()
        self._counts = WorkerCounts()
        self._tls = make_tls(options, on_refused=self._counts.handshake_refused)
        self._gate = RemoteGate(
            self._send,
            new_router=self._new_router,
            counts=self._counts,
            options=options.flow,
            gap_timeout_s=options.core_gap_timeout_s,
            timers=self._timers,
        )
        self._transport = make_transport(
            options,
            self._new_exchange,
            self._health,
            SharedPort(connection_streams=options.connection_streams),
            self._counts.limit_met,
        )
        self._link: Link[CoreMessage] | None = None
        self._heard_s = 0.0
        self._is_listening = False
        self._is_leaving = False
        self._is_ready = False
        self._standing_changed = asyncio.Event()
        self._knows_pools = asyncio.Event()
        self._stop = asyncio.Event()
        self._grace_s = options.shutdown_grace_s
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            Welcome: self._on_welcome,
            Dispatched: self._gate.dispatched,
            Passed: self._gate.passed,
            Refused: self._gate.refused,
            Evict: self._gate.evicted,
            Resources: self._on_resources,
            EndpointsChanged: self._gate.endpoints_changed,
            PoolGone: self._on_pool_gone,
            Standing: self._on_standing,
            Stop: self._on_stop,
            Beat: self._on_beat,
            Reread: self._on_reread,
        }

    async def run(self) -> None:
        """Serve until the core or a signal says stop. Raises UsageError as Service does."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        work = [self._stay_connected(), self._report(), self._follow_standing()]
        if self._tls is not None:
            self._tls.load()
            work.append(self._tls.run())
        self._alarm.start()
        await self._health.start()
        tasks = [asyncio.create_task(coroutine) for coroutine in work]
        try:
            if await self._listen():
                await self._stop.wait()
        finally:
            await self._transport.stop(self._grace_s if self._stop.is_set() else 0.0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._say_goodbye()
            self._alarm.stop()

    async def _listen(self) -> bool:
        """Listen as soon as the pools are known; return False if told to stop before.

        A worker that knew no pools could only refuse what the others can serve.
        """
        waits = [asyncio.create_task(event.wait()) for event in (self._knows_pools, self._stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if self._stop.is_set():
            return False
        await self._transport.start(self._options.host, self._options.grpc_port, self._tls)
        self._is_listening = True
        if self._gate.has_core:
            self._send(Listening())
        self._tell_ready()
        logger.info("listening ext_proc=%d", self._transport.port)
        return True

    # The core

    async def _stay_connected(self) -> None:
        """Connect to the core that is there, or that will be: its socket outlives it."""
        while True:
            try:
                link = await self._connect()
            except OSError as error:  # as many wait there already as may
                logger.debug("no connection to the core: %s", error)
            else:
                self._link = link
                link.send(Hello(self._seat.number, self._seat.restarts))
                await link.is_over.wait()
                self._link = None
            await asyncio.sleep(_RECONNECT_S)

    async def _connect(self) -> Link[CoreMessage]:
        loop = asyncio.get_running_loop()
        link: Link[CoreMessage] = Link(
            "the core", from_core(), on_messages=self._received, on_lost=self._lost
        )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, self._seat.core_address)
            await loop.create_unix_connection(lambda: link, sock=connection)
        except BaseException:
            connection.close()
            raise
        return link

    async def _say_goodbye(self) -> None:
        """See to it that the core hears the last words."""
        if self._link is not None:
            self._is_leaving = True
            self._link.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._link.is_over.wait(), _GOODBYE_S)

    def _send(self, message: WorkerMessage) -> None:
        if self._link is not None:
            self._link.send(message)

    def _received(self, messages: list[CoreMessage]) -> None:
        now = self._heard_s = monotonic_s()
        handlers = self._handlers
        for message in messages:
            handlers[type(message)](message, now)

    def _lost(self) -> None:
        if self._gate.has_core and not self._is_leaving:
            logger.warning("the core is gone, requests=%d", len(self._gate))
        self._gate.lost(monotonic_s())

    async def _report(self) -> None:
        """Tell what was counted, and notice a core that does not turn its loop."""
        while True:
            await asyncio.sleep(_STATS_EVERY_S)
            if not self._gate.has_core or self._link is None:
                continue
            if monotonic_s() - self._heard_s > _SILENCE_S:
                logger.error("the core does not answer")
                self._link.abort()
            else:
                self._send_stats()

    def _send_stats(self) -> None:
        self._send(self._counts.take(self._transport.open_streams))

    async def _follow_standing(self) -> None:
        while True:
            await self._standing_changed.wait()
            self._standing_changed.clear()
            await self._health.set_ready(self._is_ready)

    # What the core says

    def _on_welcome(self, message: Welcome, now: float) -> None:
        self._gate.welcome(message, now)
        if self._is_listening:
            self._send(Listening())
        self._send_stats()
        logger.info("the core is there, requests=%d", len(self._gate))

    def _on_resources(self, message: Resources, now: float) -> None:
        self._gate.resources(message, now)
        self._claims.reads_conversation = self._gate.pools.has_choices

    def _on_pool_gone(self, message: PoolGone, now: float) -> None:
        self._gate.pool_gone(message, now)
        self._claims.reads_conversation = self._gate.pools.has_choices

    def _on_standing(self, message: Standing, now: float) -> None:
        self._gate.standing(message.is_draining)
        self._is_ready = message.is_ready
        self._standing_changed.set()
        self._knows_pools.set()  # the core tells of all pools first

    def _on_stop(self, message: Stop, now: float) -> None:
        self._grace_s = message.grace_s
        self._stop.set()

    def _on_reread(self, message: Reread, now: float) -> None:
        try:
            self._options = options = self._options.renewed()
        except UsageError as error:
            logger.warning("configuration rejected, though the core took it: %s", error)
            return
        claims = ClaimsReader(options.claims)
        claims.reads_conversation = self._claims.reads_conversation
        self._claims = claims
        self._gate.reconfigure(options.flow)

    def _on_beat(self, message: Beat, now: float) -> None:
        """That it came is all that matters."""

    def _terminate(self) -> None:
        """Take no more connections; where there is no core, nobody else refuses what waits."""
        self._is_ready = False
        self._standing_changed.set()
        if not self._gate.has_core:
            self._gate.shut_down(monotonic_s())
        self._stop.set()

    # What is made

    def _new_exchange(self, stream: ProxyStream) -> Exchange:
        return Exchange(stream, self._bind, self._options.exchange, self._claims)

    def _bind(self, _: Headers) -> RemoteGate:
        return self._gate

    def _new_router(self, key: str) -> Router:
        """Return the router that decides for a pool without a core, with this worker's share of the
        limits."""
        options = self._options
        limit = -(-known_limit(options.saturation) // options.workers)
        share = ConcurrencyOptions(max_requests=limit)
        logger.warning("there is no core: this worker decides itself, pool=%s", key)
        return Router(
            scheduler=LeastLoaded(),
            options=options.flow,
            make_detector=partial(make_detector, share),
            timers=self._timers,
            rng=random.Random(),
            recorder=self._counts,
        )
