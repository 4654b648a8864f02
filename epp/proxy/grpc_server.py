"""The transport on grpcio's asyncio server: one coroutine per stream, which this library demands.

The coroutine reads; whatever it reads is fed to the stream's exchange. Replies that the exchange
gives while it is fed are written by the same coroutine; those that come later, when a queued
request has its turn, by a short-lived task. Exchanges know nothing of either.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from epp.core.exchange import Exchange, ProxyProtocolError
from epp.core.exchange_states import State
from epp.core.replies import ProxyStream, Reply
from epp.proxy.health import EXT_PROC_SERVICE, Health
from epp.proxy.listen import bind
from epp.proxy.messages import encode, feed
from epp.proxy.tls import ServerTls
from epp.proxy.transport import SharedPort

__all__ = ["GrpcServer"]

logger = logging.getLogger(__name__)

_MESSAGE_OVERHEAD_BYTES: Final = 1 << 20
_MAX_STREAMS: Final = 100_000


class GrpcServer:
    """Serves ext_proc and gRPC health on one address.

    ``new_exchange`` makes the exchange for a stream, ``now`` is the core's clock.
    ``max_body_bytes`` is the largest body that an exchange takes: one message may hold all of it.
    ``shared_port`` is given where other processes serve the same address. ``port`` is the bound
    port once :meth:`start` has returned.
    """

    def __init__(
        self,
        new_exchange: Callable[[ProxyStream], Exchange],
        *,
        health: Health,
        now: Callable[[], float],
        max_body_bytes: int,
        shared_port: SharedPort | None = None,
    ) -> None:
        self._new_exchange = new_exchange
        self._now = now
        self._health = health
        self._max_message_bytes = max_body_bytes + _MESSAGE_OVERHEAD_BYTES
        self._shared_port = shared_port
        self._server: grpc.aio.Server | None = None
        self.open_streams = 0
        self.port = 0

    async def start(self, host: str, port: int, tls: ServerTls | None = None) -> None:
        """Listen, with TLS if it is given (and loaded); port 0 takes any that is free.

        Raises UsageError if the address cannot be had.
        """
        options = [
            ("grpc.so_reuseport", int(self._shared_port is not None)),
            # Also where the port is shared: grpcio does not just announce its limit, it refuses the
            # streams that a proxy has opened before it could know.
            ("grpc.max_concurrent_streams", _MAX_STREAMS),
            # Else it cancels streams at random where a thousand have come and were not looked at.
            ("grpc.server.max_pending_requests", _MAX_STREAMS),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_STREAMS),
            ("grpc.max_receive_message_length", self._max_message_bytes),
            ("grpc.max_send_message_length", self._max_message_bytes),
            # Envoy may be told to ping often; that is no reason to close its connection.
            ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        server = grpc.aio.server(options=options)
        # Without (de)serializers the messages stay bytes.
        handler: Any = grpc.stream_stream_rpc_method_handler(self._process)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(EXT_PROC_SERVICE, {"Process": handler}),)
        )
        self._health.add_to(server)
        credentials = None if tls is None else _credentials(tls)
        self.port = bind(server, host, port, "ext_proc (--grpc-port)", credentials)
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Take no new streams, give the open ones ``grace_s`` seconds, then end them."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _process(self, _: object, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        stream = _GrpcStream(context)
        exchange = self._new_exchange(stream)
        self.open_streams += 1
        try:
            await self._converse(exchange, stream, context)
        except ProxyProtocolError as error:
            logger.warning("ext_proc stream refused: %s", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except asyncio.CancelledError:
            if not stream.was_ended or stream.task is None:
                raise  # the proxy reset its stream, as it does with each that is finished
            stream.task.uncancel()
        finally:
            self.open_streams -= 1
            stream.close()
            exchange.closed(self._now())

    async def _converse(
        self,
        exchange: Exchange,
        stream: "_GrpcStream",
        context: "grpc.aio.ServicerContext[bytes, bytes]",
    ) -> None:
        while not stream.was_ended:
            message: object = await context.read()
            if not isinstance(message, bytes):  # grpcio's mark for the end
                break
            with stream.writing() as is_writer:
                feed(exchange, message, self._now())
                if is_writer:
                    await stream.write_all()
        while exchange.state is State.WAITING:  # half-closed: the reply is still awaited
            await stream.next_reply()
        await stream.written()


def _credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials that follow ``tls``: grpcio asks for changes with every connection."""
    used = tls.files

    def configuration() -> grpc.ServerCertificateConfiguration:
        assert used is not None, "TLS must be loaded before it is served"
        return grpc.ssl_server_certificate_configuration(
            [(used.key, used.certificates)], used.client_authorities
        )

    def changed() -> Any:  # called in a thread of grpcio's
        nonlocal used
        if tls.files is used:
            return None
        used = tls.files
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(), changed, tls.requires_client_certificate
    )


class _GrpcStream:
    """A :class:`epp.core.replies.ProxyStream` on a grpcio stream.

    grpcio allows one write at a time, so one coroutine writes all that is queued: the reader, while
    it feeds the exchange, else a task made for the purpose, which is gone when the queue is empty.
    """

    __slots__ = ("_context", "_is_open", "_outgoing", "_wakers", "_writes", "task", "was_ended")

    def __init__(self, context: "grpc.aio.ServicerContext[bytes, bytes]"):
        self._context = context
        self._outgoing: deque[bytes] = deque()
        self.task = asyncio.current_task()
        self._wakers: list[asyncio.Future[None]] = []
        self._writes = False
        self._is_open = True
        self.was_ended = False

    def send(self, reply: Reply) -> None:
        """Queue a reply; see to it that somebody writes it."""
        if not self._is_open:
            return
        self._outgoing.append(encode(reply))
        self._see_to_writing()

    def end(self) -> None:
        """End the stream once all is written."""
        self.was_ended = True
        self._see_to_writing()

    def close(self) -> None:
        """The stream is over; what is still queued cannot be sent."""
        self._is_open = False
        self._outgoing.clear()
        self._wake()

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Be the writer for a while, unless there is one; gives whether the caller is."""
        if self._writes:
            yield False
            return
        self._writes = True
        try:
            yield True
        finally:
            self._writes = False
            self._wake()

    async def write_all(self) -> None:
        """Write what is queued and what is queued meanwhile. Only the writer may call it."""
        while self._outgoing:
            try:
                await self._context.write(self._outgoing.popleft())
            except (
                Exception
            ) as error:  # grpcio's errors for a stream that is gone have no public base
                logger.debug("ext_proc reply not sent: %s", error)
                self.close()

    async def next_reply(self) -> None:
        """Wait until a reply has been queued or written, or the stream has closed."""
        waker = asyncio.get_running_loop().create_future()
        self._wakers.append(waker)
        await waker

    async def written(self) -> None:
        """Wait until all that is queued has been written."""
        while self._writes:
            await self.next_reply()

    def _see_to_writing(self) -> None:
        if not self._writes and self._is_open:
            self._writes = True
            task = asyncio.get_running_loop().create_task(self._write_alone())
            _writers.add(task)
            task.add_done_callback(_writers.discard)

    async def _write_alone(self) -> None:
        self._writes = False
        with self.writing():
            await self.write_all()
        if self.was_ended and self.task is not None:
            self.task.cancel()  # it waits for a message that nobody needs any more

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)


_writers: Final[set[asyncio.Task[None]]] = set()
"""The writing tasks that run: the event loop itself keeps no hold on them."""
