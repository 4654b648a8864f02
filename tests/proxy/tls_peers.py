"""Servers with TLS on either transport, and peers of every kind for them."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.clock import monotonic_s
from epp.core.exchange import Exchange
from epp.core.replies import ProxyStream
from epp.proxy.grpc_server import GrpcServer
from epp.proxy.health import Health
from epp.proxy.http2.server import Http2Server
from epp.proxy.key_pairs import FilePair, KeyPair
from epp.proxy.tls import Refusal, ServerTls

PATIENCE_S = 15.0


class Pair:
    """A certificate for this machine, or for a client, and who has signed it."""

    def __init__(self, authority: trustme.CA | None = None, **more: trustme.KeyType) -> None:
        self.authority = authority or trustme.CA()
        leaf = self.authority.issue_cert("localhost", "127.0.0.1", **more)
        self.certificate = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        self.key = leaf.private_key_pem.bytes()
        self.root = self.authority.cert_pem.bytes()


class Files:
    """A directory as Kubernetes mounts a Secret, which changes at once as a whole."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._versions = 0
        for name in ("tls.crt", "tls.key", "ca.crt"):
            (directory / name).symlink_to(Path("..data") / name)

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    def hold(self, certificate: bytes, key: bytes | None, ca: bytes = b"") -> None:
        self._versions += 1
        version = self.directory / f"..{self._versions}"
        version.mkdir()
        for name, content in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", ca)):
            if content is not None:
                (version / name).write_bytes(content)
        link = self.directory / "..new"
        link.symlink_to(version.name)
        link.replace(self.directory / "..data")

    def hold_pair(self, pair: Pair) -> Pair:
        self.hold(pair.certificate, pair.key)
        return pair


class Served:
    """A server that answers health checks with TLS, and what it has told."""

    def __init__(self, pair: Files | KeyPair, kind: str, **options: object) -> None:
        self.health = Health()
        self.reloads: asyncio.Queue[bool] = asyncio.Queue()
        self.refusals: asyncio.Queue[Refusal] = asyncio.Queue()
        self.tls = ServerTls(
            FilePair(pair.directory) if isinstance(pair, Files) else pair,
            poll_interval_s=0.01,
            on_reload=self.reloads.put_nowait,
            on_refused=self.refusals.put_nowait,
            **options,  # type: ignore[arg-type]
        )
        self.tells = kind == "http2"
        self._server = make_server(kind, self.health)

    @property
    def port(self) -> int:
        return self._server.port

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Served"]:
        self.tls.load()
        await self.health.start()
        await self._server.start("127.0.0.1", 0, self.tls)
        watcher = asyncio.create_task(self.tls.run())
        try:
            yield self
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            await self._server.stop(0.1)

    async def reloaded(self) -> bool:
        return await asyncio.wait_for(self.reloads.get(), PATIENCE_S)

    async def refuses(self, refusal: Refusal) -> None:
        """The next refusal is this; grpcio does not tell."""
        if self.tells:
            assert await asyncio.wait_for(self.refusals.get(), PATIENCE_S) is refusal
        assert self.refusals.empty()

    async def refuses_nobody(self) -> None:
        assert self.refusals.empty()

    async def hears(self, **options: object) -> bytes:
        """What a raw client hears first, which is nothing if it is refused without a word."""
        return await asyncio.to_thread(hear, self.port, client_context(**options))

    async def shows(self, pair: Pair) -> bool:
        """Whether a new connection is shown this certificate."""
        seen = await asyncio.to_thread(shown, self.port, client_context())
        return seen == ssl.PEM_cert_to_DER_cert(first_certificate(pair.certificate))


def make_server(kind: str, health: Health) -> GrpcServer | Http2Server:
    if kind == "grpcio":
        return GrpcServer(new_exchange, health=health, now=monotonic_s, max_body_bytes=1_000_000)
    return Http2Server(new_exchange, health=health, max_body_bytes=1_000_000)


def new_exchange(stream: ProxyStream) -> Exchange:
    raise AssertionError("only health is asked for")


@asynccontextmanager
async def served(pair: Files | KeyPair, kind: str, **options: object) -> AsyncIterator[Served]:
    async with Served(pair, kind, **options).running() as server:
        yield server


@asynccontextmanager
async def stub(
    server: Served, trusted: Pair, client: Pair | None = None
) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    identity = (client.key, client.certificate) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(trusted.root, *identity)
    async with grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials) as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def is_served(server: Served, trusted: Pair, client: Pair | None = None) -> bool:
    async with stub(server, trusted, client) as health:
        try:
            await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            return False
    return True


# ---- raw clients ----


def client_context(
    *,
    trusts: Pair | None = None,
    client: Pair | None = None,
    alpn: Sequence[str] = ("h2",),
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    directory: Path | None = None,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    if trusts is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=trusts.root.decode())
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if client is not None:
        assert directory is not None
        (directory / "client.pem").write_bytes(client.key + client.certificate)
        context.load_cert_chain(directory / "client.pem")
    return context


def hear(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bytes:
    with connected(port) as plain, wrapped(context, plain, session) as secure:
        first = secure.recv(9)
        assert session is None or secure.session_reused
        return first


def resumable(port: int, context: ssl.SSLContext) -> ssl.SSLSession:
    """A session, which can be resumed once the server has said something."""
    with connected(port) as plain, wrapped(context, plain) as secure:
        assert secure.recv(9)
        assert secure.session is not None
        return secure.session


def shown(port: int, context: ssl.SSLContext) -> bytes | None:
    with connected(port) as plain, wrapped(context, plain) as secure:
        return secure.getpeercert(binary_form=True)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)


def wrapped(
    context: ssl.SSLContext, plain: socket.socket, session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    return context.wrap_socket(plain, server_hostname="127.0.0.1", session=session)


def first_certificate(pem: bytes) -> str:
    end = b"-----END CERTIFICATE-----\n"
    return (pem.split(end)[0] + end).decode()
