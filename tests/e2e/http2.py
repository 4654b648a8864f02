"""An HTTP/2 client by prior knowledge, on the ``h2`` package: trailers, resets, many streams."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from .http1 import Response
from .support import PATIENCE_S

__all__ = ["Http2", "Http2Stream", "StreamWasReset"]

Headers = Sequence[tuple[str, str]]
_WINDOW_BYTES = 16 << 20
_READ_BYTES = 1 << 18


class StreamWasReset(Exception):
    """The other side reset the stream, or the connection ended under it."""


class Http2Stream:
    """One request on a connection."""

    def __init__(self, connection: "Http2", stream_id: int) -> None:
        self.id = stream_id
        self.status = 0
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False
        self.was_reset = False
        self._connection = connection

    async def begun(self) -> int:
        """Wait for the response's headers and return the status."""
        await self._wait(lambda: bool(self.status))
        return self.status

    async def has(self, size_bytes: int) -> None:
        """Wait until so much of the body has come."""
        await self._wait(lambda: len(self.body) >= size_bytes)

    async def response(self) -> Response:
        """Wait for the end and return the response."""
        await self._wait(lambda: self.ended)
        return Response(self.status, self.headers, bytes(self.body))

    async def send(self, data: bytes, *, end_stream: bool = False) -> None:
        """Send a piece of the body, as the windows allow."""
        await self._connection.send_data(self, data, end_stream)

    async def send_trailers(self, trailers: Headers) -> None:
        """End the request with trailers."""
        await self._connection.send_headers(self.id, trailers, end_stream=True)

    async def reset(self) -> None:
        """Take the request back."""
        await self._connection.reset(self.id)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        await self._connection.wait(lambda: condition() or self.was_reset)
        if not condition():
            raise StreamWasReset(f"stream {self.id} was reset")


class Http2:
    """One connection; an asynchronous context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        config = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
        self._h2 = h2.connection.H2Connection(config)
        self._streams: dict[int, Http2Stream] = {}
        self._changed = asyncio.Event()
        self._is_open = False

    async def __aenter__(self) -> "Http2":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._h2.initiate_connection()
        self._h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES})
        self._h2.increment_flow_control_window(_WINDOW_BYTES)
        self._flush()
        self._is_open = True
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def start(
        self, method: str, path: str, headers: Headers = (), *, end_stream: bool = False
    ) -> Http2Stream:
        """Begin a request."""
        stream_id = self._h2.get_next_available_stream_id()
        stream = self._streams[stream_id] = Http2Stream(self, stream_id)
        pseudo = [
            (":method", method),
            (":path", path),
            (":scheme", "http"),
            (":authority", "gateway"),
        ]
        await self.send_headers(stream_id, [*pseudo, *headers], end_stream=end_stream)
        return stream

    async def post(self, path: str, body: bytes, headers: Headers = ()) -> Response:
        """Send a POST and return the response."""
        stream = await self.start("POST", path, headers)
        await stream.send(body, end_stream=True)
        return await stream.response()

    async def send_headers(self, stream_id: int, headers: Headers, *, end_stream: bool) -> None:
        """Send headers or trailers."""
        self._h2.send_headers(stream_id, headers, end_stream=end_stream)
        await self._drain()

    async def send_data(self, stream: Http2Stream, data: bytes, end_stream: bool) -> None:
        """Send a piece of a body as the windows allow."""
        view = memoryview(data)
        while view:
            await self.wait(lambda: self._window(stream) > 0)
            if not self._is_open or stream.was_reset:
                raise StreamWasReset(f"stream {stream.id} was reset while it was sent")
            size = min(self._window(stream), len(view))
            self._h2.send_data(stream.id, view[:size].tobytes())
            view = view[size:]
            await self._drain()
        if end_stream:
            self._h2.end_stream(stream.id)
            await self._drain()

    async def reset(self, stream_id: int) -> None:
        """Reset a stream."""
        self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        await self._drain()

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds or the connection has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while self._is_open and not condition():
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        """Close the connection with all its streams."""
        self._writer.close()

    def _window(self, stream: Http2Stream) -> int:
        if not self._is_open or stream.was_reset:
            return 1  # the caller looks and gives up
        return int(
            min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
        )

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _drain(self) -> None:
        self._flush()
        await self._writer.drain()

    async def _read(self) -> None:
        try:
            with suppress(ConnectionError):
                while data := await self._reader.read(_READ_BYTES):
                    for event in self._h2.receive_data(data):
                        self._take(event)
                    self._flush()
                    self._changed.set()
        finally:
            self._is_open = False
            for stream in self._streams.values():
                stream.was_reset = stream.was_reset or not stream.ended
            self._changed.set()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self._streams[event.stream_id].body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.ResponseReceived):
            stream = self._streams[event.stream_id]
            stream.headers = dict(event.headers)
            stream.status = int(stream.headers[":status"])
        elif isinstance(event, h2.events.TrailersReceived):
            self._streams[event.stream_id].trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self._streams[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self._streams[event.stream_id].was_reset = True
