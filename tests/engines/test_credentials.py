"""Certificates, tokens, and their rotation: against real servers, and in files that change."""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from epp.config.scrape import ScrapeOptions
from epp.engines import credentials as module
from epp.engines.credentials import Credentials
from epp.engines.fetch import Failure, FetchError, PageClient
from epp.errors import UsageError

from .pages import LOAD_PAGE, web_server


class Server:
    """An engine that notes the tokens and the client certificates that it is shown."""

    def __init__(self) -> None:
        self.tokens: list[str | None] = []
        self.clients: list[str] = []

    async def __call__(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        self.tokens.append(request.headers.get("authorization"))
        certificate = request.transport.get_extra_info("peercert") or {}
        self.clients += [name for _, name in certificate.get("subjectAltName", ())]
        return web.Response(body=LOAD_PAGE)


def server_tls(ca: trustme.CA, *names: str, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(*names).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def client_of(**options: object) -> AsyncIterator[PageClient]:
    client = PageClient(ScrapeOptions(scheme="https", deadline_s=20.0, **options))  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


async def failure_at(destination: str, **options: object) -> Failure:
    async with client_of(**options) as client:
        with pytest.raises(FetchError) as caught:
            await client.fetch(destination)
        return caught.value.failure


def write_pair(directory: Path, ca: trustme.CA, name: str) -> tuple[Path, Path]:
    leaf = ca.issue_cert(name)
    certificate, key = directory / "tls.crt", directory / "tls.key"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
    return certificate, key


async def test_certificates_are_verified_where_an_authority_is_given(tmp_path: Path) -> None:
    ca, other = trustme.CA(), trustme.CA()
    ca_file, other_file = tmp_path / "ca.pem", tmp_path / "other.pem"
    ca.cert_pem.write_to_path(ca_file)
    other.cert_pem.write_to_path(other_file)
    async with web_server(Server(), tls=server_tls(ca, "127.0.0.1")) as destination:
        async with client_of(ca_file=ca_file) as client:
            assert await client.fetch(destination) == LOAD_PAGE
        assert await failure_at(destination, ca_file=other_file) is Failure.TLS
        assert await failure_at(destination, insecure_skip_verify=False) is Failure.TLS
        async with client_of(ca_file=other_file, insecure_skip_verify=True) as client:
            assert await client.fetch(destination) == LOAD_PAGE


async def test_a_certificate_may_have_a_name_that_is_given(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(ca_file)
    async with web_server(Server(), tls=server_tls(ca, "engine.test")) as destination:
        assert await failure_at(destination, ca_file=ca_file) is Failure.TLS
        async with client_of(ca_file=ca_file, server_name="engine.test") as client:
            assert await client.fetch(destination) == LOAD_PAGE


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    ca, clients = trustme.CA(), trustme.CA()
    certificate, key = write_pair(tmp_path, clients, "epp.test")
    server = Server()
    tls = server_tls(ca, "127.0.0.1", clients=clients)
    async with web_server(server, tls=tls) as destination:
        async with client_of(client_cert_file=certificate, client_key_file=key) as client:
            assert await client.fetch(destination) == LOAD_PAGE
        assert server.clients == ["epp.test"]
        assert await failure_at(destination) in (Failure.TLS, Failure.BROKEN)


async def test_an_engine_without_tls(tmp_path: Path) -> None:
    async with web_server(Server()) as destination:
        assert await failure_at(destination) is Failure.TLS


async def test_files_that_change_count_from_the_next_fetch_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificate and token are replaced under a client that goes on; its connections too."""
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.0)
    ca, clients, others = trustme.CA(), trustme.CA(), trustme.CA()
    certificate, key = write_pair(tmp_path, others, "old.test")
    token = tmp_path / "token"
    token.write_text("first\n")
    server = Server()
    files = {"client_cert_file": certificate, "client_key_file": key, "bearer_token_file": token}
    tls = server_tls(ca, "127.0.0.1", clients=clients)
    async with web_server(server, tls=tls) as destination, client_of(**files) as client:
        with pytest.raises(FetchError):
            await client.fetch(destination)
        write_pair(tmp_path, clients, "new.test")
        for text in ("first\n", "second"):
            token.write_text(text)
            await client.fetch(destination)
    assert server.tokens == ["Bearer first", "Bearer second"]
    assert server.clients == ["new.test", "new.test"]


def options_with_token(tmp_path: Path, content: bytes) -> ScrapeOptions:
    file = tmp_path / "token"
    file.write_bytes(content)
    return ScrapeOptions(bearer_token_file=file)


def test_a_token_is_read_again_when_its_file_changes_and_no_more_than_once_a_second(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = options_with_token(tmp_path, b" one\n")
    file = options.bearer_token_file
    assert file is not None
    credentials = Credentials(options, 10.0)
    assert credentials.headers == {"Authorization": "Bearer one"}
    # Kubernetes replaces files by moving links.
    (tmp_path / "next").write_bytes(b"two")
    os.replace(tmp_path / "next", file)
    credentials.refresh(10.9)
    assert credentials.headers == {"Authorization": "Bearer one"}
    with caplog.at_level(logging.INFO):
        for now in (11.0, 12.0, 13.0):
            credentials.refresh(now)
    assert credentials.headers == {"Authorization": "Bearer two"}
    assert [record.getMessage() for record in caplog.records] == [
        "credentials for scraping have changed"
    ]


def test_what_cannot_be_read_any_more_stays_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = options_with_token(tmp_path, b"one")
    file = options.bearer_token_file
    assert file is not None
    credentials = Credentials(options, 0.0)
    file.unlink()
    for now in (1.0, 2.0):
        credentials.refresh(now)
    assert credentials.headers == {"Authorization": "Bearer one"}
    (record,) = caplog.records  # told once
    assert record.getMessage() == (
        "credentials for scraping rejected, those in use stay: "
        f"cannot read the bearer token {file}: No such file or directory"
    )
    file.write_bytes(b"two")
    credentials.refresh(3.0)
    assert credentials.headers == {"Authorization": "Bearer two"}


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"two words", b"a\r\nX-Other: b", "é".encode(), b"x" * 65_537]
)
def test_what_is_no_token(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=r"token: expected a bearer token: printable characters"):
        Credentials(options_with_token(tmp_path, content), 0.0)


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    certificate, key = write_pair(tmp_path, trustme.CA(), "a.test")
    junk, absent = tmp_path / "junk", tmp_path / "absent"
    junk.write_text("junk")
    other = tmp_path / "other"
    other.mkdir()
    _, other_key = write_pair(other, trustme.CA(), "b.test")
    for files, complaint in (
        ({"ca_file": junk}, f"{junk}: expected certificates in the PEM format"),
        ({"ca_file": absent}, f"cannot read the authorities {absent}: No such file or directory"),
        ({"bearer_token_file": absent}, f"cannot read the bearer token {absent}: No such file"),
        (
            {"client_cert_file": certificate, "client_key_file": absent},
            f"cannot read the client certificate {certificate} or its key {absent}: No such file",
        ),
        (
            {"client_cert_file": certificate, "client_key_file": other_key},
            f"{certificate}, {other_key}: expected a client certificate and its key in the PEM",
        ),
        (
            {"client_cert_file": certificate, "client_key_file": junk},
            f"{certificate}, {junk}: expected a client certificate and its key in the PEM",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            Credentials(ScrapeOptions(**files), 0.0)
        assert str(caught.value).startswith(complaint)
        assert "\n" not in str(caught.value)
    assert key.exists()


def test_a_key_with_a_password_asks_nobody(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    certificate, key = write_pair(tmp_path, trustme.CA(), "a.test")
    private = pem.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        private.private_bytes(
            pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret")
        )
    )
    with pytest.raises(UsageError, match="without a password"):
        Credentials(ScrapeOptions(client_cert_file=certificate, client_key_file=key), 0.0)


async def test_tokens_of_two_clients_do_not_mix(tmp_path: Path) -> None:
    server = Server()
    async with web_server(server) as destination:
        for content in (b"one", b"two"):
            client = PageClient(options_with_token(tmp_path, content))
            await client.fetch(destination)
            await asyncio.wait_for(client.close(), 20)
        plain = PageClient(ScrapeOptions())
        await plain.fetch(destination)
        await plain.close()
    assert server.tokens == ["Bearer one", "Bearer two", None]
