"""The core behind each transport, and a proxy before it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import pytest

from epp.clock import monotonic_s
from epp.core.exchange import Exchange
from epp.core.replies import ProxyStream
from epp.proxy.grpc_server import GrpcServer
from epp.proxy.health import Health
from epp.proxy.http2.server import Http2Server

from ..core.support import Harness
from .ext_proc_peer import Proxy, Stream, body, destination_of, headers, until

__all__ = ["MAX_BODY_BYTES", "Served"]

MAX_BODY_BYTES = 64 << 20


class LiveHarness(Harness):
    """The core on the real clock."""

    @property
    def now(self) -> float:
        return monotonic_s()


class Served:
    """A server of the core with two endpoints that take one request each, and a proxy."""

    def __init__(
        self,
        harness: LiveHarness,
        server: GrpcServer | Http2Server,
        proxy: Proxy,
        health: Health,
    ):
        self.harness = harness
        self.server = server
        self.proxy = proxy
        self.health = health

    @property
    def flow_requests(self) -> int:
        return self.harness.router.flow.requests

    @contextmanager
    def full(self) -> Iterator[Callable[[], None]]:
        """Have the endpoints taken, until the function that this gives is called."""
        leases = [self.harness.occupy(1), self.harness.occupy(2)]

        def free() -> None:
            while leases:
                self.harness.give_back(leases.pop())

        yield free
        free()

    async def dispatched(self) -> tuple[Stream, str]:
        """Return a stream whose request was dispatched, and where to."""
        stream = self.proxy.stream()
        await stream.send(headers())
        await stream.send(body(b"hello"))
        where = destination_of(await stream.reply())
        assert await stream.body("request_body") == b"hello"
        return stream, where

    async def rests(self) -> None:
        await until(lambda: self.server.open_streams == 0)
        self.harness.assert_at_rest()


@pytest.fixture(params=["grpcio", "http2"])
async def ext_proc(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    harness = LiveHarness((1, 2), objectives={"urgent": 10})
    health = Health()
    await health.start()

    def new_exchange(stream: ProxyStream) -> Exchange:
        return Exchange(stream, lambda headers: harness.router, harness.exchange_limits)

    server: GrpcServer | Http2Server
    if request.param == "grpcio":
        server = GrpcServer(
            new_exchange, health=health, now=monotonic_s, max_body_bytes=MAX_BODY_BYTES
        )
    else:
        server = Http2Server(new_exchange, health=health, max_body_bytes=MAX_BODY_BYTES)
    await server.start("127.0.0.1", 0)
    proxy = Proxy(server.port)
    yield Served(harness, server, proxy, health)
    await proxy.channel.close()
    await server.stop(0)
