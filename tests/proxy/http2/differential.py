"""The same bytes for this server and for that of the `h2` package, and what each makes of them."""

import contextlib

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hypothesis import strategies as st

from epp.proxy.http2.events import CallReset, CallStarted, HalfClosed, Message
from tests.proxy.http2.support import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PREFACE,
    PRIORITY_FLAG,
    RST_STREAM,
    Fields,
    Peer,
    data,
    frame,
    goaway,
    grpc,
    padded,
    parse,
    ping,
    priority,
    request_fields,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)

Outcome = list[tuple[object, ...]]
"""What became known to the application: what happened, on which stream, with what."""

Action = tuple[object, ...]
"""Something that a client, or the application, does, with its arguments."""


class Ours:
    """This server, reduced to what is comparable: until a call fails by the rules of gRPC."""

    def __init__(self) -> None:
        self.is_comparable = True
        self.peer = Peer(handshake=False, connection_window_bytes=1 << 20)
        self.peer.receive()

    def feed(self, piece: bytes) -> tuple[Outcome, bool]:
        """What has happened, and whether something was rejected."""
        outcome: Outcome = []
        for event in self.peer.send(piece):
            if isinstance(event, CallStarted):
                outcome.append(("request", event.stream_id, sorted(event.headers)))
            elif isinstance(event, Message):
                outcome.append(("data", event.stream_id, grpc(event.payload)))
            elif isinstance(event, HalfClosed):
                outcome.append(("end", event.stream_id))
            elif isinstance(event, CallReset):
                if event.reason == "the last message is incomplete":
                    self.is_comparable = False
                    outcome.append(("end", event.stream_id))
                else:
                    outcome.append(("reset", event.stream_id, event.error_code))
        return outcome, any(a.kind in (RST_STREAM, GOAWAY) for a in self.peer.receive())

    def end(self, stream_id: int) -> None:
        self.peer.connection.end_call(stream_id)
        self.peer.receive()

    def reset(self, stream_id: int) -> None:
        self.peer.connection.reset(stream_id)
        self.peer.receive()

    def is_open(self, stream_id: int) -> bool:
        return self.peer.connection.is_writable(stream_id)


class Theirs:
    """The server of h2, likewise. Data is told by whole messages."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.initiate_connection()
        self.connection.update_settings(
            {
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 10_000,
                h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
            }
        )
        self.connection.increment_flow_control_window((1 << 20) - 65_535)
        self.connection.data_to_send()
        self.rest: dict[int, bytes] = {}
        self.reset_ids: set[int] = set()

    def feed(self, piece: bytes) -> tuple[Outcome, bool]:
        outcome: Outcome = []
        try:
            events = self.connection.receive_data(piece)
        except h2.exceptions.ProtocolError:
            return outcome, True
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                fields = [(bytes(name), bytes(value)) for name, value in event.headers or []]
                regular = tuple(field for field in fields if not field[0].startswith(b":"))
                outcome.append(("request", event.stream_id, sorted(regular)))
            elif isinstance(event, h2.events.DataReceived):
                outcome.extend(self._messages(event.stream_id or 0, event.data or b""))
                length = event.flow_controlled_length or 0
                self.connection.acknowledge_received_data(length, event.stream_id or 0)
            elif isinstance(event, h2.events.StreamEnded):
                outcome.append(("end", event.stream_id))
            elif isinstance(event, h2.events.StreamReset) and event.remote_reset:
                outcome.append(("reset", event.stream_id, int(event.error_code or 0)))
        sent = parse(self.connection.data_to_send())
        # It answers frames on a stream that it has reset with one more reset.
        rejected = any(
            a.kind == GOAWAY or (a.kind == RST_STREAM and a.stream_id not in self.reset_ids)
            for a in sent
        )
        return outcome, rejected

    def _messages(self, stream_id: int, content: bytes) -> Outcome:
        content = self.rest.get(stream_id, b"") + content
        found: Outcome = []
        while len(content) >= 5:
            end = 5 + int.from_bytes(content[1:5], "big")
            if len(content) < end:
                break
            found.append(("data", stream_id, content[:end]))
            content = content[end:]
        self.rest[stream_id] = content
        return found

    def end(self, stream_id: int) -> None:
        self.reset_ids.add(stream_id)
        self.connection.send_headers(stream_id, [(":status", "200")], end_stream=True)
        with contextlib.suppress(h2.exceptions.StreamClosedError):  # the client has ended too
            self.connection.reset_stream(stream_id, 0)
        self.connection.data_to_send()

    def reset(self, stream_id: int) -> None:
        self.reset_ids.add(stream_id)
        self.connection.reset_stream(stream_id, 8)
        self.connection.data_to_send()


VARIANTS: dict[str, Fields] = {
    "plain": request_fields(),
    "more": [*request_fields(), ("x-a", "1"), ("cookie", "a=b"), ("x-b", "")],
    "timeout": request_fields(grpc_timeout="1S"),
    "length": request_fields(content_length="10"),
    "upper": [*request_fields(), ("X-Upper", "1")],
    "no-path": request_fields(_path=None),
    "no-method": request_fields(_method=None),
    "empty-path": request_fields(_path=""),
    "twice": [(":path", "/"), *request_fields()],
    "late": [*request_fields()[1:], (":method", "POST")],
    "status": [(":status", "200"), *request_fields()],
    "te": request_fields(te="gzip"),
    "connection": [*request_fields(), ("connection", "close")],
    "host": request_fields(host="other"),
    "space": [*request_fields(), ("x-a", " 1")],
    "newline": [*request_fields(), ("x-a", "1\n2")],
    "name": [*request_fields(), ("x a", "1")],
}
TRAILERS: dict[str, Fields] = {
    "plain": [("x-trailer", "1")],
    "pseudo": [(":path", "/")],
    "upper": [("X-Trailer", "1")],
}

stream_ids = st.sampled_from([1, 1, 1, 3, 3, 5, 7, 0, 2])
mostly = {True: st.sampled_from([True] * 4 + [False]), False: st.sampled_from([False] * 4 + [True])}
sizes = st.sampled_from([0, 1, 4, 5, 10, 10, 23])
small = st.integers(0, 255)

actions = st.one_of(
    st.tuples(
        st.just("request"),
        st.sampled_from([0, 0, 0, 0, 1, -1]),
        st.sampled_from(["plain", "more", "timeout", "length"] * 3 + list(VARIANTS)),
        mostly[False],
        st.sampled_from(["", "", "padded", "priority", "split"]),
    ),
    st.tuples(st.just("data"), stream_ids, sizes, mostly[False], st.sampled_from([0, 0, 3])),
    st.tuples(
        st.just("trailers"),
        stream_ids,
        st.sampled_from(["plain"] * 3 + list(TRAILERS)),
        mostly[True],
    ),
    st.tuples(st.just("rst"), stream_ids),
    st.tuples(
        st.just("window"),
        stream_ids,
        st.sampled_from([1, 1000, 0, (1 << 31) - 1, (1 << 31) - 65536]),
    ),
    st.tuples(st.just("priority"), stream_ids, stream_ids),
    st.tuples(st.just("ping"), st.sampled_from([0, ACK])),
    st.tuples(
        st.just("settings"),
        st.lists(
            st.tuples(
                st.sampled_from([1, 2, 3, 4, 5, 6, 99]),
                st.sampled_from(
                    [0, 1, 2, 100, 16_384, 65_535, (1 << 24) - 1, (1 << 31) - 1, 1 << 31]
                ),
            ),
            max_size=2,
        ),
    ),
    st.tuples(st.just("ack")),
    st.tuples(st.just("goaway")),
    st.tuples(st.just("unknown"), stream_ids),
    st.tuples(st.just("raw"), st.integers(1, 11), small, stream_ids, st.binary(max_size=12)),
    st.tuples(st.just("server-end"), stream_ids),
    st.tuples(st.just("server-reset"), stream_ids),
)


class Script:
    """Turns actions into bytes. ``next_id`` is the next stream that the client opens."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.next_id = 1
        self.sent_bytes: dict[int, int] = {}

    def frames(self, action: Action) -> bytes:
        kind, *arguments = action
        made: bytes = getattr(self, "_" + str(kind))(*arguments)
        return made

    def _request(self, skip: int, variant: str, end: bool, form: str) -> bytes:
        stream_id = max(self.next_id + 2 * skip, 1)
        self.next_id = max(stream_id + 2, self.next_id)
        block = self.peer.block(VARIANTS[variant])
        flags = END_HEADERS | (END_STREAM if end else 0)
        if form == "padded":
            return frame(HEADERS, flags | PADDED, stream_id, padded(block, 7))
        if form == "priority":
            return frame(HEADERS, flags | PRIORITY_FLAG, stream_id, b"\0\0\0\0\x09" + block)
        if form == "split":
            first = frame(HEADERS, flags & END_STREAM, stream_id, block[:5])
            return first + frame(CONTINUATION, END_HEADERS, stream_id, block[5:])
        return frame(HEADERS, flags, stream_id, block)

    def _data(self, stream_id: int, size: int, end: bool, padding: int) -> bytes:
        """The next so many bytes of an endless row of messages."""
        start = self.sent_bytes.get(stream_id, 0)
        self.sent_bytes[stream_id] = start + size
        content = _MESSAGES[start : start + size]
        if padding:
            flags = PADDED | (END_STREAM if end else 0)
            return frame(DATA, flags, stream_id, padded(content, padding))
        return data(stream_id, content, end=end)

    def _trailers(self, stream_id: int, variant: str, end: bool) -> bytes:
        return self.peer.headers(stream_id, TRAILERS[variant], end=end)

    def _rst(self, stream_id: int) -> bytes:
        return rst_stream(stream_id)

    def _window(self, stream_id: int, increment: int) -> bytes:
        return window_update(stream_id, increment)

    def _priority(self, stream_id: int, dependency: int) -> bytes:
        return priority(stream_id, dependency)

    def _ping(self, flags: int) -> bytes:
        return ping(flags=flags)

    def _settings(self, values: list[tuple[int, int]]) -> bytes:
        return settings(*values)

    def _ack(self) -> bytes:
        return settings_ack()

    def _goaway(self) -> bytes:
        return goaway()

    def _unknown(self, stream_id: int) -> bytes:
        return frame(0x42, 0xFF, stream_id, b"unknown")

    def _raw(self, kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
        return frame(kind, flags, stream_id, payload)


START = PREFACE + settings()
_MESSAGES = grpc(b"hello", b"", b"a") * 1_000
