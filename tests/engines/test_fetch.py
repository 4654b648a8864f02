"""Fetches from servers on loopback: whatever they do, a fetch ends, within its bounds."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trustme
from aiohttp import web

from epp.config.scrape import ScrapeOptions
from epp.engines.fetch import Failure, FetchError, PageClient

from .pages import LOAD_PAGE, raw_server, web_server

MAX_BYTES = 100_000


@asynccontextmanager
async def client_of(**options: object) -> AsyncIterator[PageClient]:
    values = {"max_page_bytes": MAX_BYTES, "deadline_s": 20.0, **options}
    client = PageClient(ScrapeOptions(**values))  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await client.close()


async def failure_at(destination: str, **options: object) -> Failure:
    async with client_of(**options) as client:
        with pytest.raises(FetchError) as caught:
            await client.fetch(destination)
        return caught.value.failure


async def test_fetches_pages_over_one_connection() -> None:
    seen = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen.append((request.path_qs, request.headers, request.transport))
        return web.Response(body=LOAD_PAGE, headers={"set-cookie": "a=b"})

    async with web_server(answer) as destination, client_of(path="/a/metrics?b=c") as client:
        for _ in range(3):
            assert await client.fetch(destination) == LOAD_PAGE
    assert [path for path, _, _ in seen] == ["/a/metrics?b=c"] * 3
    assert len({transport for _, _, transport in seen}) == 1
    assert all(headers["accept"] == "text/plain;version=0.0.4" for _, headers, _ in seen)
    assert not any("cookie" in headers for _, headers, _ in seen)


async def test_ipv6() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=LOAD_PAGE)

    async with web_server(answer, host="::1") as destination, client_of() as client:
        assert await client.fetch(destination) == LOAD_PAGE


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=LOAD_PAGE)

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with web_server(answer) as destination, client_of() as client:
        assert await client.fetch(destination) == LOAD_PAGE


async def test_a_page_in_pieces_and_in_chunks() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in range(0, len(LOAD_PAGE), 10):
            await response.write(LOAD_PAGE[piece : piece + 10])
        return response

    async with web_server(answer) as destination, client_of() as client:
        assert await client.fetch(destination) == LOAD_PAGE


async def test_gzip_though_it_was_not_asked_for() -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["accept-encoding"] == "identity"
        return web.Response(body=gzip.compress(LOAD_PAGE), headers={"content-encoding": "gzip"})

    async with web_server(answer) as destination, client_of() as client:
        assert await client.fetch(destination) == LOAD_PAGE


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(bytes(MAX_BYTES + 1)), "gzip"),  # a bomb
        (gzip.compress(LOAD_PAGE)[:-9], "gzip"),
        (LOAD_PAGE, "gzip"),
        (LOAD_PAGE, "x-unknown"),
    ],
)
async def test_an_encoding_that_cannot_be_undone(body: bytes, encoding: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"content-encoding": encoding})

    async with web_server(answer) as destination:
        assert await failure_at(destination) is Failure.UNREADABLE


@pytest.mark.parametrize("status", [204, 206, 301, 302, 307, 404, 500, 503])
async def test_any_status_but_200(status: int) -> None:
    """A redirect is not followed: the EPP asks nobody whom an engine names."""
    requests = count()

    async def answer(request: web.Request) -> web.Response:
        next(requests)
        return web.Response(status=status, headers={"location": "/elsewhere"}, body=None)

    async with web_server(answer) as destination:
        assert await failure_at(destination) is Failure.STATUS
    assert next(requests) == 1


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_page_that_is_too_large_is_not_read_to_its_end(is_announced: bool) -> None:
    gone = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if is_announced:
            response.content_length = 1 << 40
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(10_000))
        except ConnectionError:
            gone.set()
            raise

    async with web_server(answer) as destination:
        assert await failure_at(destination) is Failure.TOO_LARGE
        await asyncio.wait_for(gone.wait(), 20)


async def test_a_page_of_just_the_largest_size() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=bytes(MAX_BYTES))

    async with web_server(answer) as destination, client_of() as client:
        assert len(await client.fetch(destination)) == MAX_BYTES


@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n12345"],
    ids=["silent", "in the headers", "in the body"],
)
async def test_a_server_that_hangs(begin: bytes) -> None:
    async with raw_server(begin, then_close=False) as destination:
        assert await failure_at(destination, deadline_s=0.05) is Failure.TIMEOUT


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nvllm",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\na: " + bytes(100_000),
    ],
)
async def test_a_server_that_speaks_no_http_or_breaks_off(answer: bytes) -> None:
    async with raw_server(answer) as destination:
        assert await failure_at(destination) is Failure.BROKEN


async def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        assert await failure_at(f"127.0.0.1:{port}") is Failure.UNREACHABLE


async def test_a_connection_that_the_server_has_closed_is_opened_again() -> None:
    page = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with raw_server(page) as destination, client_of() as client:
        for _ in range(3):
            assert await client.fetch(destination) == b"ok"


async def test_https_without_a_certificate_that_anybody_knows() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("engine.test").configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server, client_of(scheme="https") as client:
        port = server.sockets[0].getsockname()[1]
        assert await client.fetch(f"127.0.0.1:{port}") == b"ok"
