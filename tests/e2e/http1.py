"""A raw HTTP/1.1 client: every byte, and the moment it is sent, is the test's own."""

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress

import msgspec

from .support import PATIENCE_S

__all__ = ["Head", "Http1", "Response", "chunked", "request_head"]

Headers = Sequence[tuple[str, str | bytes]]
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER for zero seconds
_LIMIT_BYTES = 1 << 20


class Head(msgspec.Struct, frozen=True):
    """Status and headers of a response, names in lower case."""

    status: int
    headers: dict[str, str]


class Response(msgspec.Struct, frozen=True):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes


def request_head(method: str, path: str, headers: Headers = ()) -> bytes:
    """Return the head of a request, the empty line after it included."""
    lines = [f"{method} {path} HTTP/1.1".encode(), b"host: gateway"]
    for name, value in headers:
        raw = value if isinstance(value, bytes) else value.encode()
        lines.append(name.encode() + b": " + raw)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunked(pieces: Iterable[bytes], trailers: Headers = ()) -> bytes:
    """Return a body in chunked framing, one chunk per piece that is not empty."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
    ends = b"".join(
        name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
        for name, value in trailers
    )
    return framed + b"0\r\n" + ends + b"\r\n"


class Http1:
    """One connection. Use it as an asynchronous context manager, or :meth:`open` and close it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> "Http1":
        async with asyncio.timeout(PATIENCE_S):
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, limit=_LIMIT_BYTES
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def request(
        self, method: str, path: str, headers: Headers = (), body: bytes | None = None
    ) -> Response:
        """Send a request, its body with Content-Length, and return the response."""
        length = () if body is None else (("content-length", str(len(body))),)
        await self.send(request_head(method, path, [*headers, *length]) + (body or b""))
        return await self.response(has_body=method != "HEAD")

    async def post(self, path: str, body: bytes, headers: Headers = ()) -> Response:
        """Send a POST and return the response."""
        return await self.request("POST", path, headers, body)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self._writer.drain()

    async def head(self) -> Head:
        """Return the next head. Raises EOFError where the connection ends before."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self._reader.readuntil(b"\r\n\r\n")
        status_line, *lines = raw[:-4].split(b"\r\n")
        pairs = (line.decode("latin-1").split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        return Head(int(status_line.split()[1]), headers)

    async def response(self, *, has_body: bool = True) -> Response:
        """Return the next response."""
        head = await self.head()
        body = await self.body(head) if has_body else b""
        return Response(head.status, head.headers, body)

    async def body(self, head: Head) -> bytes:
        """Return the body that follows a head. Raises EOFError where it ends too early."""
        if head.headers.get("transfer-encoding") == "chunked":
            pieces = []
            while piece := await self.chunk():
                pieces.append(piece)
            return b"".join(pieces)
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readexactly(int(head.headers.get("content-length", "0")))

    async def chunk(self) -> bytes:
        """Return the next chunk of a chunked body, empty after the last."""
        async with asyncio.timeout(PATIENCE_S):
            size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
            piece = await self._reader.readexactly(size)
            await self._reader.readuntil(b"\r\n")
        return piece

    async def first_bytes(self) -> bytes:
        """Return whatever comes first, empty where the other side closes without a word."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.read(_LIMIT_BYTES)

    async def ended(self) -> bytes:
        """Wait until the other side closes; return what came before."""
        pieces = []
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while piece := await self._reader.read(_LIMIT_BYTES):
                    pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close in good order."""
        self._writer.close()

    def reset(self) -> None:
        """Close with a reset, as a process that is killed does with unread data."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._writer.transport.abort()
