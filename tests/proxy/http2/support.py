"""A client made of raw frames. It shares no code with the server, so no mistake either."""

import gzip
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from epp.proxy.http2.connection import ServerConnection
from epp.proxy.http2.events import CallStarted, Event, Message
from epp.proxy.http2.limits import ConnectionSettings, Limit

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
ACK = END_STREAM = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 4, 5, 6, 7
CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 8, 9, 11

MAX_WINDOW = (1 << 31) - 1
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
CHECK = "/grpc.health.v1.Health/Check"

Fields = list[tuple[str, str]]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big")
        + bytes((kind, flags))
        + stream_id.to_bytes(4, "big")
        + payload
    )


def parse(data: bytes) -> list[Frame]:
    """The frames in some bytes, which must be whole."""
    frames = []
    while data:
        length = int.from_bytes(data[:3], "big")
        stream_id = int.from_bytes(data[5:9], "big")
        assert len(data) >= 9 + length, "a frame that is cut off"
        frames.append(Frame(data[3], data[4], stream_id, data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *value) for value in values))


def settings_ack() -> bytes:
    return frame(SETTINGS, ACK)


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def rst_stream(stream_id: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, struct.pack(">I", code))


def priority(stream_id: int, dependency: int = 0, weight: int = 15) -> bytes:
    return frame(PRIORITY, 0, stream_id, struct.pack(">IB", dependency, weight))


def ping(payload: bytes = b"12345678", flags: int = 0) -> bytes:
    return frame(PING, flags, 0, payload)


def goaway(last: int = 0, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def data(stream_id: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def padded(payload: bytes, padding: int) -> bytes:
    return bytes((padding,)) + payload + bytes(padding)


def grpc(*messages: bytes, compressed: bool = False) -> bytes:
    """Messages with their prefixes."""
    if compressed:
        messages = tuple(gzip.compress(message, mtime=0) for message in messages)
    flag = bytes((compressed,))
    return b"".join(flag + len(message).to_bytes(4, "big") + message for message in messages)


def ungrpc(content: bytes) -> list[bytes]:
    """The messages in some content, which must be whole and not compressed."""
    messages = []
    while content:
        assert content[0] == 0
        end = 5 + int.from_bytes(content[1:5], "big")
        assert len(content) >= end
        messages.append(content[5:end])
        content = content[end:]
    return messages


def request_fields(path: str = PROCESS, /, **changes: str | None) -> Fields:
    """The fields of a call; change some by their names, with ``_`` for ``-`` and ``:``, or drop
    them with None."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "epp",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    for name, value in changes.items():
        key = name.replace("_", "-")
        key = ":" + key[1:] if key.startswith("-") else key
        if value is None:
            del fields[key]
        else:
            fields[key] = value
    return list(fields.items())


class Peer:
    """A client of one connection, past the preface unless ``handshake`` is False.

    Other keyword arguments are settings of the server.
    """

    def __init__(self, *, handshake: bool = True, now: float = 1000.0, **options: Any):
        self.now = now
        self.counters: dict[Limit, int] = {}
        options = {"methods": frozenset((PROCESS, CHECK))} | options
        self.connection = ServerConnection(ConnectionSettings(**options), now, self.counters)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.preface: list[Frame] = []
        if handshake:
            assert self.send(PREFACE, settings(), settings_ack()) == []
            self.preface = self.receive()

    def send(self, *frames: bytes) -> list[Event]:
        return self.connection.receive(b"".join(frames), self.now)

    def receive(self) -> list[Frame]:
        """All that the server has to send now."""
        pieces = []
        while piece := self.connection.data_to_send():
            pieces.append(piece)
        return parse(b"".join(pieces))

    def exchange(self, *frames: bytes) -> list[Frame]:
        self.send(*frames)
        return self.receive()

    def block(self, fields: Fields) -> bytes:
        return self.encoder.encode(fields)

    def headers(self, stream_id: int, fields: Fields | None = None, *, end: bool = False) -> bytes:
        block = self.block(request_fields() if fields is None else fields)
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream_id, block)

    def open(self, stream_id: int, *, end: bool = False) -> None:
        """Open a call that the server takes."""
        events = self.send(self.headers(stream_id, end=end))
        assert [type(event).__name__ for event in events][:1] == ["CallStarted"], events

    def fields(self, a_frame: Frame) -> Fields:
        """The fields of a HEADERS frame of the server, which must come in their order."""
        assert a_frame.kind == HEADERS
        assert a_frame.flags & END_HEADERS
        return [(str(name), str(value)) for name, value in self.decoder.decode(a_frame.payload)]

    @property
    def is_closed(self) -> bool:
        return self.connection.is_finished


def kinds(frames: Iterable[Frame]) -> list[int]:
    return [a_frame.kind for a_frame in frames]


def connection_error(frames: list[Frame]) -> int | None:
    """The code of the connection error among the frames; it must be the last of them."""
    errors = [struct.unpack(">II", a.payload[:8])[1] for a in frames if a.kind == GOAWAY]
    if not errors:
        return None
    assert frames[-1].kind == GOAWAY
    assert len(errors) == 1
    return int(errors[0])


def stream_error(frames: list[Frame], stream_id: int = 1) -> int | None:
    """The code of the one RST_STREAM for a stream among the frames; no GOAWAY may be there."""
    assert GOAWAY not in kinds(frames)
    resets = [a for a in frames if a.kind == RST_STREAM and a.stream_id == stream_id]
    assert len(resets) <= 1
    return int.from_bytes(resets[0].payload, "big") if resets else None


def content(frames: Iterable[Frame], stream_id: int = 1) -> bytes:
    """What the DATA frames for a stream carry."""
    return b"".join(a.payload for a in frames if a.kind == DATA and a.stream_id == stream_id)


def payloads(events: Iterable[Event]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, Message)]


def call_headers(events: Iterable[Event]) -> list[tuple[bytes, bytes]]:
    """The headers of all calls that have started."""
    return [pair for event in events if isinstance(event, CallStarted) for pair in event.headers]


def event_names(events: Iterable[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def status_of(peer: Peer, frames: list[Frame]) -> tuple[int, str, dict[str, str]]:
    """The status in the last section of a call, its message, and all fields of that section."""
    last = [a for a in frames if a.kind == HEADERS][-1]
    assert last.flags & END_STREAM
    sections = [dict(peer.fields(a)) for a in frames if a.kind == HEADERS]
    fields = sections[-1]
    return int(fields["grpc-status"]), fields.get("grpc-message", ""), fields
