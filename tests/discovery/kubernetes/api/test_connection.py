"""Requests to an API server: what goes over the wire, and what errors become."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

import epp
from epp.discovery.kubernetes.api import connection as module
from epp.discovery.kubernetes.api.errors import (
    AnswerTooLarge,
    ApiError,
    ApiUnreachable,
    StreamBroken,
    StreamSilent,
)
from tests.discovery.kubernetes.following import connected
from tests.discovery.kubernetes.scripted import (
    DEADLINE_S,
    ScriptedServer,
    answer,
    listed,
    refusal,
    watched,
    zipped,
)


async def test_every_method_sends_what_the_api_expects(tmp_path: Path) -> None:
    stored = answer({"kind": "Thing"})
    body = {"kind": "Thing", "metadata": {"name": "a"}}
    async with (
        ScriptedServer(*[stored] * 7) as server,
        connected(server.url, tmp_path) as connection,
    ):
        assert (
            await connection.get("/api/v1/things/a", {"q": "x=1,y in (z)"}) == b'{"kind": "Thing"}'
        )
        await connection.create("/api/v1/things", body)
        await connection.replace("/api/v1/things/a", body)
        await connection.apply("/api/v1/things/a/status", body, field_manager="epp")
        await connection.apply("/api/v1/things/a", body, field_manager="epp", force=False)
        await connection.patch("/api/v1/things/a", body)
        await connection.delete("/api/v1/things/a")
        asked = [(request.method, request.path) for request in server.requests]
        assert asked == [
            ("GET", "/api/v1/things/a"),
            ("POST", "/api/v1/things"),
            ("PUT", "/api/v1/things/a"),
            ("PATCH", "/api/v1/things/a/status"),
            ("PATCH", "/api/v1/things/a"),
            ("PATCH", "/api/v1/things/a"),
            ("DELETE", "/api/v1/things/a"),
        ]
        assert server.queries[0] == {"q": "x=1,y in (z)"}
        assert server.queries[3] == {"fieldManager": "epp", "force": "true"}
        assert server.queries[4]["force"] == "false"
        assert [json.loads(sent) for sent in server.bodies[1:6]] == [body] * 5
        types = [request.headers.get("Content-Type") for request in server.requests]
        apply = "application/apply-patch+yaml"
        assert types[1:5] == ["application/json", "application/json", apply, apply]
        assert types[5] == "application/merge-patch+json"
        for request in server.requests:
            assert request.headers["User-Agent"] == f"epp/{epp.__version__}"
            assert request.headers["Accept"] == "application/json"
        assert connection.statistics.counts == {
            ("get", "200"): 1,
            ("create", "200"): 1,
            ("replace", "200"): 1,
            ("apply", "200"): 2,
            ("patch", "200"): 1,
            ("delete", "200"): 1,
        }


async def test_errors_are_one_line_with_all_that_is_known(tmp_path: Path) -> None:
    told = {"reason": "Conflict", "message": "the object\nhas been\tmodified", "code": 409}
    late = {"reason": "ServerTimeout", "details": {"retryAfterSeconds": 3}}
    async with (
        ScriptedServer(
            answer(told, 409),
            answer(late, 500),
            answer(b"<html>\nbad gateway</html>", 502),
            refusal(429, "TooManyRequests", "slow down", **{"Retry-After": "7"}),
            answer(b"", 302, Location="/elsewhere"),
            answer(b"x" * 100_000, 500),
        ) as server,
        connected(server.url, tmp_path) as connection,
    ):
        errors = []
        for _ in range(6):
            with pytest.raises(ApiError) as caught:
                await connection.replace("/api/v1/things/a", {})
            errors.append(caught.value)
        conflict, timeout, gateway, busy, elsewhere, long = errors
        assert str(conflict) == ("PUT /api/v1/things/a: 409 Conflict: the object has been modified")
        assert (conflict.status, conflict.reason) == (409, "Conflict")
        assert (timeout.reason, timeout.retry_after_s) == ("ServerTimeout", 3)
        assert str(timeout).endswith("500 ServerTimeout: (no message)")
        assert (gateway.reason, gateway.message) == ("Bad Gateway", "<html> bad gateway</html>")
        assert gateway.retry_after_s is None
        assert busy.retry_after_s == 7
        assert elsewhere.status == 302
        assert len(str(long)) < 600
        assert len(server.requests) == 6  # none was tried twice
        assert connection.statistics.counts["replace", "500"] == 2


async def test_lists_may_be_compressed_and_watches_not(tmp_path: Path) -> None:
    body = {"items": ["x" * 1000] * 100}
    async with (
        ScriptedServer(zipped(body), watched(b"{}\n")) as server,
        connected(server.url, tmp_path) as connection,
    ):
        assert json.loads(await connection.get("/api/v1/things", verb="list")) == body
        assert [line async for line in connection.stream("/api/v1/things")] == [b"{}"]
        accepted = [request.headers["Accept-Encoding"] for request in server.requests]
        assert accepted == ["gzip", "identity"]
        assert connection.statistics.counts == {("list", "200"): 1, ("watch", "200"): 1}


async def test_answers_are_bounded_also_when_they_are_compressed(tmp_path: Path) -> None:
    body = ["x" * 1000] * 100
    async with (
        ScriptedServer(answer(body), zipped(body), listed(1)) as server,
        connected(server.url, tmp_path, max_body_bytes=50_000) as connection,
    ):
        for _ in range(2):
            with pytest.raises(AnswerTooLarge, match="more than 50000 bytes"):
                await connection.get("/api/v1/things")
        await connection.get("/api/v1/things")


async def test_no_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with connected(url, tmp_path) as connection:
        with pytest.raises(ApiUnreachable, match=f"^GET /api/v1/things at {url}: Connection ref"):
            await connection.get("/api/v1/things")
        with pytest.raises(ApiUnreachable, match=": Connection refused"):
            await anext(connection.stream("/api/v1/things"))
        assert connection.statistics.counts == {
            ("get", "unreachable"): 1,
            ("watch", "unreachable"): 1,
        }


async def test_an_answer_that_does_not_come_or_end(tmp_path: Path) -> None:
    async with (
        ScriptedServer(watched(b"[", ends="silent"), watched(b"[", ends="broken")) as server,
        connected(server.url, tmp_path, read_timeout_s=0.1) as connection,
    ):
        for _ in range(3):  # the third is not answered at all
            with pytest.raises(ApiUnreachable, match=r"no answer in time|broke off"):
                await connection.get("/api/v1/things")


async def test_an_answer_that_breaks_off_is_told_of_in_words(tmp_path: Path) -> None:
    async with (
        ScriptedServer(watched(b"[", ends="broken")) as server,
        connected(server.url, tmp_path) as connection,
    ):
        with pytest.raises(ApiUnreachable, match="things: the connection broke off in the middle"):
            await connection.get("/api/v1/things")


async def test_streams_say_when_they_begin_and_how_they_end(tmp_path: Path) -> None:
    opened: list[int] = []
    parts = (b'{"a":', b'1}\n{"b":2}\n\n{"c"', b":3}")
    async with (
        ScriptedServer(
            watched(*parts), watched(*parts, ends="broken"), watched(*parts, ends="silent")
        ) as server,
        connected(server.url, tmp_path) as connection,
    ):
        lines: list[bytes] = []

        async def follow() -> None:
            lines.clear()
            stream = connection.stream(
                "/api/v1/things", idle_limit_s=0.1, on_open=lambda: opened.append(len(lines))
            )
            async for line in stream:
                lines.append(line)  # noqa: PERF401 - what came before an error counts

        await follow()
        assert lines == [b'{"a":1}', b'{"b":2}', b"", b'{"c":3}']
        with pytest.raises(StreamBroken):
            await follow()
        assert lines[:2] == [b'{"a":1}', b'{"b":2}']
        with pytest.raises(StreamSilent, match=r"nothing came for 0\.1 s"):
            await follow()
        assert opened == [0, 0, 0]


async def test_a_stream_that_is_left_is_closed(tmp_path: Path) -> None:
    left = asyncio.Event()
    async with (
        ScriptedServer(watched(b"{}\n", ends="silent", left=left)) as server,
        connected(server.url, tmp_path) as connection,
    ):
        stream = connection.stream("/api/v1/things")
        assert await anext(stream) == b"{}"
        await stream.aclose()
        await asyncio.wait_for(left.wait(), DEADLINE_S)


async def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    async with ScriptedServer() as server, connected(server.url, tmp_path) as connection:
        asking = asyncio.create_task(connection.get("/api/v1/things"))
        await server.exhausted()
        await connection.close()
        with pytest.raises(ApiUnreachable):
            await asking


def test_dead_peers_are_noticed_by_the_kernel() -> None:
    with module._new_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 0))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_cookies_are_not_kept(tmp_path: Path) -> None:
    async with (
        ScriptedServer(answer({}, **{"Set-Cookie": "a=b"}), answer({})) as server,
        connected(server.url.replace("127.0.0.1", "localhost"), tmp_path) as connection,
    ):
        await connection.get("/api/v1/things")
        await connection.get("/api/v1/things")
        assert "Cookie" not in server.requests[1].headers
