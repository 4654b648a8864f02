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

from grpc_health.v1 import health_pb2

from epp.clock import monotonic_s
from epp.core.exchange import Exchange, ProxyProtocolError
from epp.core.exchange_states import WAITING
from epp.core.replies import ProxyStream, Reply
from epp.core.resources import join_host_port
from epp.errors import UsageError
from epp.proxy.grpc_framing import GrpcStatus
from epp.proxy.health import EXT_PROC_SERVICE, Health
from epp.proxy.http2 import ServerConnection
from epp.proxy.http2_events import (
    CallReset,
    CallStarted,
    ConnectionTerminated,
    Event,
    HalfClosed,
    Message,
)
from epp.proxy.http2_limits import ConnectionSettings, Limit
from epp.proxy.messages import encode, feed
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
        self._calls: dict[int, _Call] = {}
        self._settling: list[_Call] = []
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

    def send(self, call: "_Call", payload: bytes) -> None:
        """Send a message."""
        self._http2.send_message(call.stream_id, payload)
        if not self._is_in_turn:
            self._mark()

    def end(self, call: "_Call", status: GrpcStatus, message: str) -> None:
        """End a call; it is told so at the end of the turn, when nothing of it is under way."""
        self._http2.end_call(call.stream_id, status, message)
        self.settle_later(call)

    def settle_later(self, call: "_Call") -> None:
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
                logger.info("connection ended: %s", event.reason)

    def _new_call(self, event: CallStarted) -> "_Call":
        if event.path == _PROCESS:
            call: _Call = _ExtProcCall(self, event.stream_id, self._server)
        else:
            is_watch = event.path == _HEALTH_WATCH
            call = _HealthCall(self, event.stream_id, self._server.health, is_watch=is_watch)
        if event.timeout_s is not None:
            call.deadline = self._loop.call_later(event.timeout_s, self._expire, call)
        return call

    def _expire(self, call: "_Call") -> None:
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


class _Call:
    """A call of whatever method."""

    __slots__ = ("_connection", "deadline", "stream_id")

    def __init__(self, connection: _Connection, stream_id: int) -> None:
        self._connection = connection
        self.stream_id = stream_id
        self.deadline: asyncio.TimerHandle | None = None

    def message(self, payload: bytes, now: float) -> None:
        """One message of the client."""
        raise AssertionError("a call must say what it does with a message")

    def half_closed(self) -> None:
        """The client has nothing more to say."""

    def is_over(self) -> bool:
        """Whether nothing more is to be said."""
        return True

    def closed(self) -> None:
        """The call is over."""


class _ExtProcCall(_Call):
    """A stream of ext_proc: :class:`epp.core.replies.ProxyStream` for its exchange."""

    __slots__ = ("_exchange", "_was_ended", "_was_half_closed")

    def __init__(self, connection: _Connection, stream_id: int, server: Http2Server) -> None:
        super().__init__(connection, stream_id)
        self._was_ended = False
        self._was_half_closed = False
        self._exchange = server.new_exchange(self)

    def send(self, reply: Reply) -> None:
        """Send a reply; see ProxyStream."""
        self._connection.send(self, encode(reply))
        if self._was_half_closed:
            self._connection.settle_later(self)

    def end(self) -> None:
        """End the stream; see ProxyStream."""
        self._was_ended = True
        self._connection.settle_later(self)

    def message(self, payload: bytes, now: float) -> None:
        """Feed the exchange; whatever goes wrong concerns this call alone."""
        try:
            feed(self._exchange, payload, now)
        except ProxyProtocolError as error:
            logger.warning("ext_proc stream refused: %s", error)
            self._was_ended = True
            self._connection.end(self, GrpcStatus.INVALID_ARGUMENT, str(error))
        except Exception:
            logger.exception("ext_proc stream failed")
            self._was_ended = True
            self._connection.end(self, GrpcStatus.INTERNAL, "internal error")

    def half_closed(self) -> None:
        """Go on as long as a reply is awaited."""
        self._was_half_closed = True
        self._connection.settle_later(self)

    def is_over(self) -> bool:
        """Whether it was ended, or the client has gone and awaits nothing."""
        is_waiting = self._exchange.state is WAITING
        return self._was_ended or (self._was_half_closed and not is_waiting)

    def closed(self) -> None:
        """Tell the exchange; should that fail, other calls must not suffer."""
        try:
            self._exchange.closed(monotonic_s())
        except Exception:
            logger.exception("ext_proc stream did not close in order")


class _HealthCall(_Call):
    """A call of the health service: ``Check`` answers once, ``Watch`` with every change."""

    __slots__ = ("_health", "_is_watch", "_is_watching", "_last", "_service", "_was_answered")

    def __init__(
        self, connection: _Connection, stream_id: int, health: Health, *, is_watch: bool
    ) -> None:
        super().__init__(connection, stream_id)
        self._health = health
        self._is_watch = is_watch
        self._is_watching = False
        self._was_answered = False
        self._service = ""
        self._last: int | None = None

    def message(self, payload: bytes, now: float) -> None:
        """Answer the one request."""
        try:
            self._service = health_pb2.HealthCheckRequest.FromString(payload).service
        except ValueError:
            self._finish(GrpcStatus.INVALID_ARGUMENT, "not a HealthCheckRequest message")
            return
        if self._is_watch:
            self._is_watching = True
            self._health.watch(self._changed)
            self._changed()
            return
        status = self._health.status(self._service)
        if status is None:
            self._finish(GrpcStatus.NOT_FOUND, "unknown service")
        else:
            self._answer(status)
            self._finish(GrpcStatus.OK, "")

    def is_over(self) -> bool:
        """Whether it has its answer, or never asked."""
        return not self._is_watching

    def half_closed(self) -> None:
        """A client that ends without having asked gets nothing."""
        self._connection.settle_later(self)

    def closed(self) -> None:
        """Watch no more."""
        if self._is_watching:
            self._is_watching = False
            self._health.unwatch(self._changed)

    def _changed(self) -> None:
        status = self._health.status(self._service)
        if status is None:
            status = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if status != self._last:
            self._last = status
            self._answer(status)

    def _answer(self, status: int) -> None:
        answer = health_pb2.HealthCheckResponse(status=status)
        self._connection.send(self, answer.SerializeToString())

    def _finish(self, status: GrpcStatus, message: str) -> None:
        self._connection.end(self, status, message)
