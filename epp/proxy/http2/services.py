"""The calls that are served: streams of ext_proc, and health.

A call is told what its client says and what becomes of it; it answers by its connection, at once or
later. What it must not know is how the connection speaks.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from grpc_health.v1 import health_pb2

from epp.clock import monotonic_s
from epp.core.exchange import Exchange, ProxyProtocolError
from epp.core.exchange_states import WAITING
from epp.core.replies import ProxyStream, Reply
from epp.proxy.health import Health
from epp.proxy.http2.grpc_framing import GrpcStatus
from epp.proxy.messages import encode, feed

if TYPE_CHECKING:
    import asyncio

__all__ = ["Call", "CallConnection", "ExtProcCall", "HealthCall"]

logger = logging.getLogger(__name__)


class CallConnection(Protocol):
    """What a call asks of its connection."""

    def send(self, call: "Call", payload: bytes) -> None:
        """Send a message."""

    def end(self, call: "Call", status: GrpcStatus, message: str) -> None:
        """End a call; it is told so at the end of the turn, when nothing of it is under way."""

    def settle_later(self, call: "Call") -> None:
        """Look at the call again at the end of the turn."""


class Call:
    """A call of whatever method."""

    __slots__ = ("_connection", "deadline", "stream_id")

    def __init__(self, connection: CallConnection, stream_id: int) -> None:
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


class ExtProcCall(Call):
    """A stream of ext_proc: :class:`epp.core.replies.ProxyStream` for its exchange."""

    __slots__ = ("_exchange", "_was_ended", "_was_half_closed")

    def __init__(
        self,
        connection: CallConnection,
        stream_id: int,
        new_exchange: Callable[[ProxyStream], Exchange],
    ) -> None:
        super().__init__(connection, stream_id)
        self._was_ended = False
        self._was_half_closed = False
        self._exchange = new_exchange(self)

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


class HealthCall(Call):
    """A call of the health service: ``Check`` answers once, ``Watch`` with every change."""

    __slots__ = ("_health", "_is_watch", "_is_watching", "_last", "_service", "_was_answered")

    def __init__(
        self, connection: CallConnection, stream_id: int, health: Health, *, is_watch: bool
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
