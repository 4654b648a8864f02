"""Who may read the metrics and who may not, and TLS before them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from epp.core.headers import Headers
from epp.observability.explain import PickAnswer
from epp.observability.http import Authorize, ObservabilityServer
from epp.proxy.key_pairs import FilePair
from epp.proxy.tls import ServerTls, TlsUse
from tests.proxy.tls_peers import Files, Pair, client_context

METRICS_USE = TlsUse(is_http2=False, title=" for metrics", ca_option="--metrics-client-ca-file")


async def judge(token: str) -> tuple[int, str] | None:
    return {"good": None, "bad": (403, "nobody may not"), "strange": (401, "not known")}[token]


def explain(*_: object) -> PickAnswer:
    raise AssertionError("this is for those who may read")


@asynccontextmanager
async def server(
    authorize: Authorize | None = judge, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ObservabilityServer]:
    running = ObservabilityServer(
        lambda: [b"m ", b"1\n"], lambda: True, explain, max_body_bytes=10, authorize=authorize
    )
    await running.start("127.0.0.1", 0, tls)
    yield running
    await running.stop()


async def ask(
    running: ObservabilityServer, path: str, authorization: str = "", method: str = "GET"
) -> tuple[int, str, str]:
    headers = {"authorization": authorization} if authorization else {}
    url = f"http://127.0.0.1:{running.port}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers) as response,
    ):
        text = await response.text()
        return response.status, text, response.headers.get("www-authenticate", "")


async def test_only_those_with_a_good_token_read_the_metrics() -> None:
    async with server() as running:
        assert await ask(running, "/metrics", "Bearer good") == (200, "m 1\n", "")
        assert await ask(running, "/metrics", "bearer  good") == (200, "m 1\n", "")
        assert await ask(running, "/metrics", "Bearer bad") == (403, "nobody may not\n", "")
        challenge = 'Bearer realm="epp"'
        assert await ask(running, "/metrics", "Bearer strange") == (401, "not known\n", challenge)
        for authorization in ("", "good", "Bearer", "Bearer ", "Basic good", "Bearer g\xf6\xf6d"):
            status, _, told = await ask(running, "/metrics", authorization)
            assert (status, told) == (401, challenge)


async def test_explanations_are_protected_as_well_and_probes_are_not() -> None:
    async with server() as running:
        assert (await ask(running, "/debug/explain-pick", method="POST"))[0] == 401
        assert (await ask(running, "/nothing"))[0] == 401
        for path in ("/healthz", "/readyz"):
            assert (await ask(running, path))[0] == 200


async def test_without_anybody_to_ask_all_may_read() -> None:
    async with server(None) as running:
        assert (await ask(running, "/metrics"))[0] == 200


async def test_a_reader_who_takes_nothing_does_not_keep_the_process_from_ending() -> None:
    running = ObservabilityServer(
        lambda: [b"x" * 100_000] * 200, lambda: True, explain, max_body_bytes=10
    )
    await running.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1_000)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    assert await reader.readexactly(1), "the answer has begun"
    async with asyncio.timeout(30):
        await running.stop()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    "target",
    ["//metrics", "/metrics/", "/%6detrics", "/healthz/../metrics", "/healthz/%2e%2e/metrics",
     "/healthz;/metrics", "/readyz%3f/metrics", "///healthz", "http://other/metrics"],
)  # fmt: skip
async def test_no_way_of_writing_a_path_goes_round_the_token(target: str) -> None:
    async with server() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        for method in ("HEAD", "OPTIONS", "POST", "GET"):
            writer.write(f"{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 401 ")
            if method != "HEAD":
                await reader.readexactly(
                    int(head.lower().partition(b"content-length:")[2].split()[0])
                )
        writer.close()
        await writer.wait_closed()


async def test_the_host_of_what_is_to_be_explained_is_the_authority_that_tells_its_pool() -> None:
    seen: list[bytes | None] = []

    def look(headers: Headers, body: bytes) -> PickAnswer:
        seen.append(headers.get(b":authority"))
        return PickAnswer(model="", priority=0, fairness_id="", prompt_tokens=0)

    running = ObservabilityServer(list, lambda: True, look, max_body_bytes=10)
    await running.start("127.0.0.1", 0)
    url = f"http://127.0.0.1:{running.port}/debug/explain-pick"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, headers={"host": "alpha.example.com"}, data=b"{}") as response,
    ):
        assert response.status == 200
    await running.stop()
    assert seen == [b"alpha.example.com"]


# ---- TLS ----


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def read_by_tls(port: int, context: ssl.SSLContext) -> str:
    url = f"https://127.0.0.1:{port}/healthz"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as response:
        return await response.text()


async def test_metrics_are_served_with_tls_that_is_renewed(files: Files) -> None:
    old = files.hold_pair(Pair())
    reloads: asyncio.Queue[bool] = asyncio.Queue()
    tls = ServerTls(
        FilePair(files.directory, "--metrics-cert-dir"),
        use=METRICS_USE,
        poll_interval_s=0.01,
        on_reload=reloads.put_nowait,
    )
    tls.load()
    watcher = asyncio.create_task(tls.run())
    async with server(None, tls.context) as running:
        for alpn in ((), ("http/1.1",), ("h2", "http/1.1")):
            assert await read_by_tls(running.port, client_context(trusts=old, alpn=alpn)) == "ok\n"
        new = files.hold_pair(Pair())
        assert await asyncio.wait_for(reloads.get(), 15)
        assert await read_by_tls(running.port, client_context(trusts=new, alpn=())) == "ok\n"
        with pytest.raises(aiohttp.ClientConnectorError):
            await read_by_tls(running.port, client_context(trusts=old, alpn=()))
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)


async def test_readers_show_a_certificate_where_that_is_demanded(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    pair, client = Pair(), Pair()
    files.hold(pair.certificate, pair.key, client.root)
    tls = ServerTls(FilePair(files.directory), client_ca_file=files.ca, use=METRICS_USE)
    tls.load()
    async with server(None, tls.context) as running:
        known = client_context(trusts=pair, client=client, alpn=(), directory=files.directory)
        assert await read_by_tls(running.port, known) == "ok\n"
        with pytest.raises(aiohttp.ClientError):
            await read_by_tls(running.port, client_context(trusts=pair, alpn=()))
    refused = "TLS connection refused for metrics: the peer has no client certificate"
    assert any(message.startswith(refused) for message in caplog.messages)
