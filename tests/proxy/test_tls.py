"""TLS on both transports: who is served, who is refused, and the reload of certificates."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from grpc_health.v1 import health_pb2

from epp.proxy.tls import Refusal

from .tls_peers import (
    Files,
    Pair,
    client_context,
    connected,
    hear,
    is_served,
    resumable,
    served,
    stub,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))

both_transports = pytest.mark.parametrize("kind", ["http2", "grpcio"])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


# ---- who is served and who is not ----


@both_transports
async def test_a_grpc_client_is_served(kind: str, files: Files) -> None:
    pair = files.hold_pair(Pair())
    async with served(files, kind) as server, stub(server, pair) as health:
        answer = await health.Check(health_pb2.HealthCheckRequest(service="liveness"))
        assert answer.status == SERVING


@both_transports
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_are_spoken(
    kind: str, files: Files, version: ssl.TLSVersion
) -> None:
    pair = files.hold_pair(Pair())
    async with served(files, kind) as server:
        assert (await server.hears(trusts=pair, version=version))[3] == 4  # SETTINGS


@both_transports
async def test_a_peer_without_h2_is_refused(kind: str, files: Files) -> None:
    pair = files.hold_pair(Pair())
    async with served(files, kind) as server:
        for alpn in ((), ("http/1.1",)):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                assert await server.hears(trusts=pair, alpn=alpn, version=version) == b""
                await server.refuses(Refusal.ALPN)
        assert (await server.hears(alpn=("http/1.1", "h2")))[3] == 4
        await server.refuses_nobody()


@both_transports
async def test_a_peer_that_speaks_plaintext_is_refused(kind: str, files: Files) -> None:
    files.hold_pair(Pair())

    def speak(port: int, words: bytes) -> bytes:
        with connected(port) as plain, suppress(ConnectionResetError):
            plain.sendall(words)
            return plain.recv(1)
        return b""

    async with served(files, kind) as server:
        for words in (PREFACE, b"GET / HTTP/1.1\r\n\r\n"):
            assert await asyncio.to_thread(speak, server.port, words) in (b"", b"\x15")  # an alert
            await server.refuses(Refusal.PLAINTEXT)


async def test_a_peer_of_an_older_version_is_refused(files: Files) -> None:
    files.hold_pair(Pair())
    async with served(files, "http2", min_version="VersionTLS13") as server:
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            await server.hears(version=ssl.TLSVersion.TLSv1_2)
        await server.refuses(Refusal.VERSION)
        assert (await server.hears())[3] == 4


async def test_only_the_cipher_suites_that_were_named_are_spoken(files: Files) -> None:
    files.hold_pair(Pair())
    named, other = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"

    def hello(port: int, suite: str) -> bytes:
        context = client_context(version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers(suite)
        return hear(port, context)

    async with served(files, "http2", cipher_suites=(named,)) as server:
        assert (await asyncio.to_thread(hello, server.port, named))[3] == 4
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(hello, server.port, other)
        assert (await server.hears())[3] == 4  # TLS 1.3 has suites of its own


@both_transports
async def test_a_client_that_does_not_trust_the_server_goes(kind: str, files: Files) -> None:
    files.hold_pair(Pair())
    async with served(files, kind) as server:
        assert not await is_served(server, trusted=Pair())
        with pytest.raises(ssl.SSLCertVerificationError):
            await server.hears(trusts=Pair())
        await server.refuses(Refusal.BY_PEER)


@both_transports
async def test_clients_must_show_a_certificate_where_that_is_demanded(
    kind: str, files: Files
) -> None:
    pair, client = Pair(), Pair()
    files.hold(pair.certificate, pair.key, client.root)
    async with served(files, kind, client_ca_file=files.ca) as server:
        assert await is_served(server, pair, client)
        await server.refuses_nobody()
        assert not await is_served(server, pair)
        await server.refuses(Refusal.NO_CERTIFICATE)
        assert not await is_served(server, pair, client=Pair())
        await server.refuses(Refusal.BAD_CERTIFICATE)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_refused_client_is_told_why(version: ssl.TLSVersion, files: Files) -> None:
    pair = Pair()
    files.hold(pair.certificate, pair.key, Pair().root)
    async with served(files, "http2", client_ca_file=files.ca) as server:
        alert = "UNKNOWN_CA"
        with pytest.raises(ssl.SSLError, match=alert):
            await server.hears(version=version, client=Pair(), directory=files.directory)
        await server.refuses(Refusal.BAD_CERTIFICATE)
        is_new = version is ssl.TLSVersion.TLSv1_3
        alert = "CERTIFICATE_REQUIRED" if is_new else "HANDSHAKE_FAILURE"
        with pytest.raises(ssl.SSLError, match=alert):
            await server.hears(version=version)
        await server.refuses(Refusal.NO_CERTIFICATE)


async def test_a_peer_that_says_nothing_is_not_kept(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.hold_pair(Pair())
    monkeypatch.setattr("epp.proxy.tls._HANDSHAKE_TIMEOUT_S", 0.05)

    def listen(port: int) -> bytes:
        with connected(port) as plain:
            return plain.recv(1)

    async with served(files, "http2") as server:
        assert await asyncio.to_thread(listen, server.port) == b""


async def test_refusals_are_told_in_plain_words_and_not_each(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    files.hold_pair(Pair())
    async with served(files, "http2") as server:
        for _ in range(3):
            await server.hears(alpn=())
            await server.refuses(Refusal.ALPN)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["TLS connection refused: the peer does not offer h2 (HTTP/2) by ALPN"]


# ---- reload ----


@both_transports
async def test_a_new_certificate_is_for_new_connections(kind: str, files: Files) -> None:
    old = files.hold_pair(Pair())
    async with served(files, kind) as server, stub(server, old) as health:
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == NOT_SERVING
        assert await server.shows(old)
        new = files.hold_pair(Pair())
        assert await server.reloaded()
        assert await server.shows(new)
        assert await is_served(server, trusted=new)
        await server.health.set_ready(True)
        assert (await watch.read()).status == SERVING
        watch.cancel()


@both_transports
async def test_what_is_broken_is_not_taken(
    kind: str, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    good = files.hold_pair(Pair())
    async with served(files, kind) as server:
        for certificate, key, reason in (
            (Pair().certificate, good.key, "tls.key: not the key of the certificate"),
            (b"", b"", "tls.crt: expected certificates in the PEM format"),
            (good.certificate, None, "tls.key (--cert-path): No such file"),
        ):
            caplog.clear()
            files.hold(certificate, key)
            assert not await server.reloaded()
            (told,) = [text for text in caplog.messages if "the one in use stays" in text]
            assert reason in told
            assert await server.shows(good)
        better = files.hold_pair(Pair())
        assert await server.reloaded()
        assert await server.shows(better)
        assert server.reloads.empty()


@both_transports
async def test_an_authority_that_is_withdrawn_vouches_for_nobody(kind: str, files: Files) -> None:
    pair, old, new = Pair(), Pair(), Pair()
    files.hold(pair.certificate, pair.key, old.root)
    async with served(files, kind, client_ca_file=files.ca) as server:
        assert await is_served(server, pair, old)
        files.hold(pair.certificate, pair.key, new.root)
        assert await server.reloaded()
        assert await is_served(server, pair, new)
        assert not await is_served(server, pair, old)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_does_not_outlive_the_authority(
    files: Files, version: ssl.TLSVersion
) -> None:
    pair, old, new = Pair(), Pair(), Pair()
    files.hold(pair.certificate, pair.key, old.root)
    context = client_context(client=old, directory=files.directory, version=version)
    async with served(files, "http2", client_ca_file=files.ca) as server:
        session = await asyncio.to_thread(resumable, server.port, context)
        assert await asyncio.to_thread(hear, server.port, context, session)
        files.hold(pair.certificate, pair.key, new.root)
        assert await server.reloaded()
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            await asyncio.to_thread(hear, server.port, context, session)


async def test_files_that_say_the_same_are_no_reload(files: Files) -> None:
    pair = files.hold_pair(Pair())
    async with served(files, "http2") as server:
        before = server.tls.files
        files.hold_pair(pair)
        server.tls.load()
        assert server.tls.files is before
        files.hold_pair(Pair())
        assert await server.reloaded()
        assert server.tls.files is not before


@pytest.mark.parametrize(
    ("scenario", "argument"),
    [
        (test_a_grpc_client_is_served, "http2"),
        (test_a_peer_without_h2_is_refused, "http2"),
        (test_a_peer_that_speaks_plaintext_is_refused, "http2"),
        (test_clients_must_show_a_certificate_where_that_is_demanded, "http2"),
        (test_a_refused_client_is_told_why, ssl.TLSVersion.TLSv1_2),
        (test_a_refused_client_is_told_why, ssl.TLSVersion.TLSv1_3),
        (test_a_new_certificate_is_for_new_connections, "http2"),
    ],
)
def test_it_is_the_same_on_uvloop(
    scenario: Callable[[object, Files], Awaitable[None]], argument: object, files: Files
) -> None:
    async def run() -> None:
        await scenario(argument, files)

    uvloop.run(run())
