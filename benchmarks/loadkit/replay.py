"""Says again to an EPP what Envoy has said, as the benchmark wants it to arrive."""

import socket
from typing import Final

import msgspec

from epp.proxy.wire import ext_proc_pb2
from loadkit.capture import Burst, Capture, MessageReader
from loadkit.measure import LoadFailedError
from loadkit.stack import cpu_s

__all__ = ["Replayed", "replay"]

_TIMEOUT_S: Final = 10.0
_READ_BYTES: Final = 1 << 18


class Replayed(msgspec.Struct, frozen=True):
    """What a replay cost the EPP: CPU time in seconds for so many chunks."""

    cpu_s: float
    chunks: int


def replay(capture: Capture, port: int, pid: int, chunks_per_read: int) -> Replayed:
    """Send so many chunks at once, wait until all of them have come back, send the next; return
    what that cost the EPP process ``pid``, which listens on ``port``.

    Raises LoadFailedError if anything comes back other than what was sent.
    """
    chunks = 0
    with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        player = _Player(connection)
        player.say(capture.opening)
        before_s = cpu_s(pid)
        for burst in capture.bursts(chunks_per_read):
            player.say(burst)
            chunks += burst.replies
        after_s = cpu_s(pid)
    player.check(capture)
    return Replayed(after_s - before_s, chunks)


class _Player:
    """One side of the conversation."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = MessageReader()
        self._due = 0
        self._bodies: dict[int, bytes] = {}

    def say(self, burst: Burst) -> None:
        """Send, and wait for the replies."""
        self._due += burst.replies
        self._connection.sendall(burst.data)
        while self._due:
            data = self._connection.recv(_READ_BYTES)
            if not data:
                raise LoadFailedError("replay: the EPP has closed the connection")
            for stream_id, message in self._reader.feed(data):
                self._take(stream_id, ext_proc_pb2.ProcessingResponse.FromString(message))

    def _take(self, stream_id: int, reply: ext_proc_pb2.ProcessingResponse) -> None:
        kind = reply.WhichOneof("response")
        if kind == "response_body":
            body = reply.response_body.response.body_mutation.streamed_response.body
            self._bodies[stream_id] = self._bodies.get(stream_id, b"") + body
        self._due -= kind in ("response_headers", "response_body")

    def check(self, capture: Capture) -> None:
        """See whether all that was said was said back. Raises LoadFailedError."""
        for stream_id, body in capture.bodies.items():
            # The capture may go on for some chunks that made no whole burst.
            if not (said := self._bodies.get(stream_id, b"")) or not body.startswith(said):
                raise LoadFailedError(f"replay: a wrong body came back on stream {stream_id}")
