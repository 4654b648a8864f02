import asyncio

import pytest

from epp.gateway.ports import free_ports
from epp.gateway.probes import all_ready, http_ready, tcp_ready


async def serve(answer: bytes) -> asyncio.Server:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"HTTP/1.1\r\n\r\n", False),
        (b"SSH-2.0 200\r\n", False),
        (b"", False),
    ],
)
async def test_http(answer: bytes, expected: bool) -> None:
    async with await serve(answer) as server:
        port = server.sockets[0].getsockname()[1]
        assert await http_ready("127.0.0.1", port, "/health")() is expected


async def test_nobody_listens() -> None:
    (port,) = free_ports(1)
    assert not await http_ready("127.0.0.1", port, "/")()
    assert not await tcp_ready("127.0.0.1", port)()


async def test_tcp() -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as it:
        assert await tcp_ready("127.0.0.1", it.sockets[0].getsockname()[1])()


async def test_all() -> None:
    async def yes() -> bool:
        return True

    async def no() -> bool:
        return False

    assert await all_ready(yes, yes)()
    assert not await all_ready(yes, no)()
