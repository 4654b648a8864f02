"""One end of the socket between a worker and the core, on asyncio.

What is said within one turn of the loop leaves in one write, and what has come in one read is
answered in one. A peer that does not take what it is told for too long is cut off rather than
waited for: both ends can begin anew at any time, so nothing is lost by that.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar, cast

from epp.workers.messages import FrameError, FrameReader, encode_frame

__all__ = ["Link", "listen"]

logger = logging.getLogger(__name__)

_MAX_PENDING_BYTES: Final = 64 << 20
_MESSAGES_PER_FRAME: Final = 1_000
_UCRED: Final = struct.Struct("3i")

M = TypeVar("M")


class Link(asyncio.Protocol, Generic[M]):
    """A connection. ``peer`` is who is at the other end, for the log; who it is by right must run
    as the same user.

    ``on_messages`` is called with what has come, ``on_lost`` once when the connection is over. If
    ``on_messages`` raises, the connection is cut off.
    """

    def __init__(
        self,
        peer: str,
        reader: FrameReader[M],
        *,
        on_messages: Callable[[list[M]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._peer = peer
        self._reader = reader
        self._on_messages = on_messages
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._outgoing: list[Any] = []
        self._is_marked = False
        self.is_over = asyncio.Event()

    def send(self, message: object) -> None:
        """Send a message by the end of this turn; on a connection that is over, do nothing."""
        self._outgoing.append(message)
        if not self._is_marked:
            self._is_marked = True
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what is queued, then close."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        # uvloop's transports are of no asyncio class.
        self._transport = cast("asyncio.Transport", transport)
        if not _is_same_user(transport):
            logger.error("cut off from %s, which is of another user", self._peer)
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Answer everything that one read has brought in one write."""
        if self._transport is None or self._transport.is_closing():
            return
        self._is_marked = True
        try:
            self._on_messages(self._reader.feed(data))
        except FrameError as error:
            logger.error("cut off from %s, which makes no sense: %s", self._peer, error)
            self.abort()
        except Exception:  # whatever it is, beginning anew is the way out
            logger.exception("cut off from %s", self._peer)
            self.abort()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        self._transport = None
        self._outgoing.clear()
        self.is_over.set()
        self._on_lost()

    def _flush(self) -> None:
        self._is_marked = False
        outgoing, self._outgoing = self._outgoing, []
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while outgoing:
            transport.write(encode_frame(outgoing[:_MESSAGES_PER_FRAME]))
            outgoing = outgoing[_MESSAGES_PER_FRAME:]
        if transport.get_write_buffer_size() > _MAX_PENDING_BYTES:
            logger.error("cut off from %s, which does not listen", self._peer)
            transport.abort()


def listen(backlog: int) -> socket.socket:
    """Return a socket that listens at an address of its own, which is in no file system.

    So a read-only root file system is no obstacle, and nothing is left behind.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("")  # Linux finds a free abstract address: unix(7), autobind
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def _is_same_user(transport: asyncio.BaseTransport) -> bool:
    own = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(own.fileno())) as copy:
        credentials = copy.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, user, _ = _UCRED.unpack(credentials)
    return bool(user == os.getuid())
