"""The transport on our own HTTP/2: an asyncio protocol, callbacks, no task and no coroutine per
stream.

What has come in one read is answered in one write. A reply that comes later, when a queued request
has its turn, marks its connection, which writes all of the turn's replies at the turn's end.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from epp.clock import monotonic_s
from epp.core.exchange import Exchange
from epp.core.replies import ProxyStream
from epp.core.resources import join_host_port
from epp.errors import UsageError
from epp.proxy.health import EXT_PROC_SERVICE, Health
from epp.proxy.http2.connection import ServerConnection
from epp.proxy.http2.events import (
    CallReset,
    CallStarted,
    ConnectionTerminated,
    Event,
    HalfClosed,
    Message,
)
from epp.proxy.http2.grpc_framing import GrpcStatus
from epp.proxy.http2.limits import ConnectionSettings, Limit
from epp.proxy.http2.services import Call, ExtProcCall, HealthCall
from epp.proxy.tls import ServerTls
from epp.proxy.transport import SharedPort

__all__ = ["Http2Server"]

logger = logging.getLogger(__name__)

_PROCESS: Final = f"/{EXT_PROC_SERVICE}/Process"
_HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
_HEALTH_WATCH: Final = "/grpc.health.v1.Health/Watch"
_MESSAGE_OVERHEAD_BYTES: Final = 1 << 20
_MAX_STREAMS: Final = 100_000
_STALL_TIMEOUT_S: Final = 300.0
_TICK_S: Final = 1.0
_TELL_EVERY_S: Final = 60.0


class Http2Server:
    """Serves ext_proc and gRPC health on one address.

    ``new_exchange`` makes the exchange for a stream. ``max_body_bytes`` is the largest body that an
    exchange takes: one message may hold all of it. ``shared_port`` is given where other processes
    serve the same address. ``port`` is the bound port once :meth:`start` has returned. ``on_limit``
    is told once a second how often peers have met each limit since.
    """

    def __init__(
        self,
        new_exchange: Callable[[ProxyStream], Exchange],
        *,
        health: Health,
        max_body_bytes: int,
        shared_port: SharedPort | None = None,
        on_limit: Callable[[str, int], None] = lambda _limit, _count: None,
    ) -> None:
        self.new_exchange = new_exchange
        self.health = health
        self.settings = ConnectionSettings(
            methods=frozenset((_PROCESS, _HEALTH_CHECK, _HEALTH_WATCH)),
            max_concurrent_streams=_MAX_STREAMS,
            announced_streams=None if shared_port is None else shared_port.connection_streams,
            max_message_bytes=max_body_bytes + _MESSAGE_OVERHEAD_BYTES,
            stall_timeout_s=_STALL_TIMEOUT_S,
        )
        self._shared_port = shared_port
        self._on_limit = on_limit
        self.limits_met: Counter[Limit] = Counter()
        self.open_streams = 0
        self.port = 0
        self._told_reason = ""
        self._tell_again_s = 0.0
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def start(self, host: str, port: int, tls: ServerTls | None = None) -> None:
        """Listen, with TLS if it is given (and loaded); port 0 takes any that is free.

        Raises UsageError if the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        options = {} if tls is None else tls.listen_arguments
        if self._shared_port is not None:
            options["reuse_port"] = True
        try:
            self._server = await loop.create_server(
                lambda: _Connection(self), host, port, backlog=1024, **options
            )
        except OSError as error:
            raise UsageError(
                f"cannot listen on {join_host_port(host, port)} for ext_proc (--grpc-port):"
                f" {error.strerror or error}"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self, grace_s: float) -> None:
        """Take no new streams, give the open ones ``grace_s`` seconds, then end them."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.begin_goaway()
        try:
            await asyncio.wait_for(self._is_idle.wait(), grace_s)
        except TimeoutError:
            logger.warning("streams ended that were still open: %d", self.open_streams)
            for connection in list(self._connections):
                connection.abort()

    def joined(self, connection: "_Connection") -> None:
        """A connection has come: let time pass for it."""
        self._connections.add(connection)
        self._is_idle.clear()
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def left(self, connection: "_Connection") -> None:
        """A connection has gone."""
        self._connections.discard(connection)
        self._report_limits()
        if not self._connections:
            self._is_idle.set()

    def tell_ended(self, reason: str, now: float) -> None:
        """Say for what a connection was ended, but for the same once a minute only: a gateway that
        is set up wrongly tries again all the time."""
        if reason != self._told_reason or now >= self._tell_again_s:
            self._told_reason, self._tell_again_s = reason, now + _TELL_EVERY_S
            logger.warning("connection ended: %s", reason)

    def _tick(self) -> None:
        self._ticker = None
        for connection in list(self._connections):
            connection.tick()
        self._report_limits()
        if self._connections:
            self._ticker = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _report_limits(self) -> None:
        for limit, count in self.limits_met.items():
            self._on_limit(limit.value, count)
        self.limits_met.clear()


class _Connection(asyncio.Protocol):
    """One connection of a proxy."""

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._http2 = ServerConnection(server.settings, monotonic_s(), server.limits_met)
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._settling: list[Call] = []
        self._is_in_turn = False
        self._is_marked = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        # uvloop's transports are of no asyncio class.
        self._transport = cast("asyncio.Transport", transport)
        self._server.joined(self)
        self._write()

    def data_received(self, data: bytes) -> None:
        """Answer everything that one read has brought in one write."""
        now = monotonic_s()
        self._is_in_turn = True
        self._take(self._http2.receive(data, now), now)
        self._is_in_turn = False
        self._write()

    def eof_received(self) -> bool:
        """Let the transport close: a peer that has half-closed its connection can end no call."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call."""
        self._transport = None
        self._take(self._http2.lost(), monotonic_s())
        self._settle()
        self._server.left(self)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._http2.pause_sending()

    def resume_writing(self) -> None:
        """The transport's buffer has room."""
        self._http2.resume_sending()
        self._write()

    # What the server calls

    def begin_goaway(self) -> None:
        """Ask the peer to open no more streams here, and close when the last has ended."""
        self._http2.begin_goaway()
        self._write()

    def tick(self) -> None:
        """Let time pass."""
        now = monotonic_s()
        self._take(self._http2.tick(now), now)
        self._write()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    # What the calls call

    def send(self, call: Call, payload: bytes) -> None:
        """Send a message."""
        self._http2.send_message(call.stream_id, payload)
        if not self._is_in_turn:
            self._mark()

    def end(self, call: Call, status: GrpcStatus, message: str) -> None:
        """End a call; it is told so at the end of the turn, when nothing of it is under way."""
        self._http2.end_call(call.stream_id, status, message)
        self.settle_later(call)

    def settle_later(self, call: Call) -> None:
        """Look at the call again at the end of the turn."""
        self._settling.append(call)
        self._mark()

    def _mark(self) -> None:
        """See to it that what is queued is written at the end of this turn."""
        if not self._is_in_turn and not self._is_marked:
            self._is_marked = True
            self._loop.call_soon(self._write)

    # The turn

    def _take(self, events: list[Event], now: float) -> None:
        calls = self._calls
        for event in events:
            kind = type(event)
            if kind is Message:
                call = calls.get(event.stream_id)  # type: ignore[union-attr]
                if call is not None:
                    call.message(event.payload, now)  # type: ignore[union-attr]
            elif isinstance(event, CallStarted):
                calls[event.stream_id] = self._new_call(event)
                self._server.open_streams += 1
            elif isinstance(event, CallReset):
                self._forget(event.stream_id)
            elif isinstance(event, HalfClosed):
                call = calls.get(event.stream_id)
                if call is not None:
                    call.half_closed()
            elif isinstance(event, ConnectionTerminated) and self._transport is not None:
                self._server.tell_ended(event.reason, now)

    def _new_call(self, event: CallStarted) -> Call:
        if event.path == _PROCESS:
            call: Call = ExtProcCall(self, event.stream_id, self._server.new_exchange)
        else:
            is_watch = event.path == _HEALTH_WATCH
            call = HealthCall(self, event.stream_id, self._server.health, is_watch=is_watch)
        if event.timeout_s is not None:
            call.deadline = self._loop.call_later(event.timeout_s, self._expire, call)
        return call

    def _expire(self, call: Call) -> None:
        call.deadline = None
        if call.stream_id in self._calls:
            self._http2.end_call(call.stream_id, GrpcStatus.DEADLINE_EXCEEDED, "deadline exceeded")
            self._forget(call.stream_id)
            self._mark()

    def _forget(self, stream_id: int) -> None:
        call = self._calls.pop(stream_id, None)
        if call is None:
            return
        self._server.open_streams -= 1
        if call.deadline is not None:
            call.deadline.cancel()
        call.closed()

    def _settle(self) -> None:
        """Close the calls that have ended in this turn."""
        while self._settling:
            settling, self._settling = self._settling, []
            for call in settling:
                if call.is_over():
                    self._http2.end_call(call.stream_id)
                    self._forget(call.stream_id)

    def _write(self) -> None:
        """Write what is queued: once per turn, unless the backlog is large."""
        self._is_marked = False
        self._is_in_turn = True
        if self._settling:
            self._settle()
        transport, http2 = self._transport, self._http2
        while transport is not None and (data := http2.data_to_send()):
            transport.write(data)
            if not http2.has_more:
                break
            self._take(http2.take_events(), monotonic_s())
            if self._settling:
                self._settle()
        self._is_in_turn = False
        if transport is not None and http2.is_finished:
            transport.close()
