"""What the server says of connections that come to nothing."""

import asyncio

import pytest

from epp.proxy.health import Health
from epp.proxy.http2 import server as module
from epp.proxy.http2.server import Http2Server

CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00"


async def refused(port: int, sent: bytes) -> None:
    """Send this, and wait until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    await reader.read()
    writer.close()


async def test_what_is_not_spoken_is_told_in_plain_words_and_not_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Http2Server(lambda _: None, health=Health(), max_body_bytes=1)  # type: ignore[arg-type, return-value]
    await server.start("127.0.0.1", 0)
    for sent in (CLIENT_HELLO, CLIENT_HELLO, CLIENT_HELLO, b"GET / HTTP/1.1\r\n"):
        await refused(server.port, sent)
    start = "connection ended: expected an HTTP/2 connection preface, found"
    expected = [f"{start} TLS, which is not spoken here", f"{start} something else"]
    assert caplog.messages == expected
    assert {record.levelname for record in caplog.records} == {"WARNING"}

    monkeypatch.setattr(module, "_TELL_EVERY_S", 0.0)
    for _ in range(2):
        await refused(server.port, CLIENT_HELLO)
    assert caplog.messages == [*expected, expected[0], expected[0]]
    await server.stop(0.0)
