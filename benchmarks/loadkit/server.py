"""The model server of the benchmark: knows its answers beforehand, and costs almost nothing.

Run as a process of its own, ``python -m loadkit.server PORT...``: it listens on each port. With
``--addresses FILE`` it listens at each address in the file, one a line, and not at 127.0.0.1 alone.
"""

import argparse
import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import uvloop

from loadkit.http import MessageReader, WrongMessageError, header_value
from loadkit.scenarios import ANSWERS, Answer

__all__ = ["main"]

# The gaps between pieces, in parts of their mean. Each stream begins at another place, so that
# the streams do not all send in the same millisecond; together they make up the same time.
_GAPS: Final = (0.6, 1.0, 1.4, 0.8, 1.2)
_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_BACKLOG: Final = 4_096


def _whole(answer: Answer) -> bytes:
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return (head % len(answer.body)).encode() + answer.body


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


_WHOLE: Final = {name.encode(): _whole(answer) for name, answer in ANSWERS.items()}
_CHUNKS: Final = {
    name.encode(): tuple(_chunk(piece) for piece in answer.pieces)
    for name, answer in ANSWERS.items()
    if len(answer.pieces) > 1
}
_WAITS_S: Final = {name.encode(): answer.wait_s for name, answer in ANSWERS.items()}
_stream_numbers = itertools.count()


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._reader = MessageReader()
        self._transport = cast("asyncio.Transport", None)
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            if not self._reader.feed(data):
                return
        except WrongMessageError:
            self._transport.close()
            return
        name = header_value(self._reader.head, b"x-benchmark-answer") or b""
        wanted_bytes = header_value(self._reader.head, b"x-benchmark-bytes") or b""
        if name not in _WHOLE or wanted_bytes != b"%d" % self._reader.body_bytes:
            self._transport.write(_BAD_REQUEST)
        elif name in _CHUNKS:
            self._transport.write(_STREAM_HEAD)
            self._stream(name, next(_stream_numbers) % len(_GAPS), 0)
        elif _WAITS_S[name]:
            self._loop.call_later(_WAITS_S[name], self._write, _WHOLE[name])
        else:
            self._transport.write(_WHOLE[name])
        self._reader.next()

    def _stream(self, name: bytes, first_gap: int, index: int) -> None:
        """Send the rest of a stream, from the piece ``index`` on."""
        chunks = _CHUNKS[name]
        if index:
            self._write(chunks[index - 1])
        if index < len(chunks):
            gap_s = _WAITS_S[name] * _GAPS[(first_gap + index) % len(_GAPS)]
            self._loop.call_later(gap_s, self._stream, name, first_gap, index + 1)
        else:
            self._write(_LAST_CHUNK)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


async def _serve(ports: Sequence[int], addresses: Sequence[str]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(_Connection, addresses, port, backlog=_BACKLOG)
    await loop.create_future()


def main() -> None:
    """Serve on the ports that the command line names, until the process is ended."""
    parser = argparse.ArgumentParser(prog="python -m loadkit.server")
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--addresses", type=Path)
    arguments = parser.parse_args()
    file = arguments.addresses
    addresses = ["127.0.0.1"] if file is None else file.read_text().split()
    uvloop.run(_serve(arguments.ports, addresses))


if __name__ == "__main__":
    main()
