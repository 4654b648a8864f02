"""An exchange whose gate has another model for its request."""

import gzip
import json

import pytest

from epp.core.claims import RequestClaims
from epp.core.exchange import Exchange, ExchangeLimits
from epp.core.gate import Admission, Ending, GateWaiter, Route
from epp.core.pool import EngineLoad
from epp.core.replies import (
    MAX_BODY_REPLY_BYTES,
    BodyContinue,
    BodyMode,
    BodyReply,
    Header,
    HeadersReply,
    Phase,
    Reply,
    TrailersReply,
)

from .support import RecordingStream, headers

_HERE = "10.0.0.1:8000"
_DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
_BODY = b'{"prompt": "hi", "model":"alias" , "n":1.0}'
_SENT = b'{"prompt": "hi", "model":"the/target" , "n":1.0}'
_ANSWER = b'{"model": "the/target", "text": "the/target"}'
_RESTORED = b'{"model": "alias", "text": "the/target"}'
_PLAIN: tuple[Header, ...] = ((b"accept-encoding", b"identity"),)
_WAITED: tuple[Header, ...] = ((b"x-queue-wait-ms", b"0"),)


class _Standing:
    is_waiting = False
    deadline_s = None


class _Gate:
    """Dispatches at once and has a target for all."""

    def __init__(self, model: str = "the/target") -> None:
        self.route = Route(_HERE, model)
        self.skipped: list[str] = []
        self.ended = 0

    def admit(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> Admission:
        waiter.dispatched(self.route, 0.0, now)
        return _Standing()

    def pass_by(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> Admission | None:
        waiter.passed(_HERE, now)
        return None

    def finish(self, admission: Admission, ending: Ending, now: float) -> None:
        self.ended += 1

    def rewrite_skipped(self, reason: str) -> None:
        self.skipped.append(reason)

    def withdraw(self, admission: Admission, now: float) -> None:
        raise AssertionError("nothing waits")

    def served_by(self, admission: Admission, destination: str, now: float) -> None:
        raise AssertionError("nobody told")

    def reported(self, admission: Admission, load: EngineLoad, now: float) -> None:
        raise AssertionError("nobody told")

    def progress(self, admission: Admission, output_tokens: int, now: float) -> None:
        raise AssertionError("nothing is so long")

    def refused_early(self, reason: str) -> None:
        raise AssertionError("nothing is refused")


def _open(
    request_mode: BodyMode = _DUPLEX,
    response_mode: BodyMode = _DUPLEX,
    *pairs: Header,
    body: bytes = _BODY,
) -> tuple[Exchange, RecordingStream, _Gate]:
    """Open an exchange and send its whole request in two pieces, or one where it is buffered."""
    gate, stream = _Gate(), RecordingStream()
    exchange = Exchange(stream, lambda _: gate, ExchangeLimits())
    exchange.protocol(request_mode, response_mode)
    exchange.request_headers(headers(*pairs), None, False, 0.0)
    if request_mode is _DUPLEX:
        exchange.request_body(body[:20], False, 0.0)
        body = body[20:]
    exchange.request_body(body, True, 0.0)
    return exchange, stream, gate


def _respond(
    exchange: Exchange, stream: RecordingStream, *pieces: bytes, encoding: bytes = b""
) -> list[Reply]:
    """Let the server answer, and return what the proxy is told."""
    stream.take()
    exchange.response_headers(200, None, False, 0.0, content_encoding=encoding)
    for number, piece in enumerate(pieces, 1):
        exchange.response_body(piece, number == len(pieces), 0.0)
    return stream.take()


# The request


def test_in_full_duplex_the_headers_go_with_the_body_that_follows() -> None:
    _, stream, gate = _open()
    assert stream.take() == [
        HeadersReply(Phase.REQUEST, _HERE, _PLAIN, (b"content-length",)),
        BodyReply(Phase.REQUEST, _SENT, True),
    ]
    assert gate.skipped == []


def test_trailers_follow_a_rewritten_body() -> None:
    gate, stream = _Gate(), RecordingStream()
    exchange = Exchange(stream, lambda _: gate, ExchangeLimits())
    exchange.request_headers(headers(), None, False, 0.0)
    exchange.request_body(_BODY, False, 0.0)
    exchange.request_trailers(0.0)
    assert stream.take()[1:] == [
        BodyReply(Phase.REQUEST, _SENT, False),
        TrailersReply(Phase.REQUEST),
    ]


@pytest.mark.parametrize("mode", [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL])
def test_where_the_body_is_buffered_it_is_replaced(mode: BodyMode) -> None:
    """Only in the first of the modes does the proxy leave the length to the EPP."""
    _, stream, _ = _open(mode)
    length = ((b"content-length", b"%d" % len(_SENT)),) if mode is BodyMode.BUFFERED else ()
    assert stream.take() == [
        HeadersReply(Phase.REQUEST),
        BodyContinue(Phase.REQUEST, _HERE, _SENT, _PLAIN + length),
    ]


def test_a_large_body_goes_on_in_pieces() -> None:
    body = json.dumps({"model": "alias", "prompt": "x" * 400_000}).encode()
    _, stream, _ = _open(body=body)
    pieces = [reply for reply in stream.take() if isinstance(reply, BodyReply)]
    assert all(len(piece.body) <= MAX_BODY_REPLY_BYTES for piece in pieces)
    sent = b"".join(piece.body for piece in pieces)
    assert sent == body.replace(b'"alias"', b'"the/target"')


@pytest.mark.parametrize("encoding", [b"identity", b" GZip"])
def test_a_compressed_body_goes_on_plain(encoding: bytes) -> None:
    is_plain = encoding == b"identity"
    body = _BODY if is_plain else gzip.compress(_BODY)
    removed = () if is_plain else (b"content-encoding",)
    _, stream, _ = _open(_DUPLEX, _DUPLEX, (b"content-encoding", encoding), body=body)
    assert stream.take() == [
        HeadersReply(Phase.REQUEST, _HERE, _PLAIN, (*removed, b"content-length")),
        BodyReply(Phase.REQUEST, _SENT, True),
    ]
    _, stream, _ = _open(BodyMode.BUFFERED, _DUPLEX, (b"content-encoding", encoding), body=body)
    reply = stream.take()[-1]
    assert isinstance(reply, BodyContinue)
    assert (reply.body, reply.remove_headers) == (_SENT, removed)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b'{"prompt":"hi"}', b""), (b'{"model":7}', b""), (_BODY, b"gzip"), (_BODY, b"unheard-of")],
)
def test_a_body_that_names_no_model_goes_as_it_came(body: bytes, encoding: bytes) -> None:
    exchange, stream, gate = _open(_DUPLEX, _DUPLEX, (b"content-encoding", encoding), body=body)
    assert stream.take() == [
        HeadersReply(Phase.REQUEST, _HERE),
        BodyReply(Phase.REQUEST, body, True),
    ]
    assert gate.skipped == ["request-not-read"]
    replies = _respond(exchange, stream, _ANSWER)
    assert replies[1:] == [BodyReply(Phase.RESPONSE, _ANSWER, True)]
    assert gate.skipped == ["request-not-read"]


def test_a_name_that_claims_have_only_the_hash_of_comes_back_whole() -> None:
    name = "n" * 300
    body = json.dumps({"model": name}).encode()
    exchange, stream, _ = _open(body=body)
    replies = _respond(exchange, stream, b'{"model":"the/target"}')
    assert replies[1:] == [BodyReply(Phase.RESPONSE, b'{"model":"%b"}' % name.encode(), True)]


# The response


@pytest.mark.parametrize("size_bytes", [1, 3, 17, 1_000])
def test_in_full_duplex_the_response_is_restored_wherever_it_is_torn(size_bytes: int) -> None:
    exchange, stream, gate = _open()
    pieces = [_ANSWER[start : start + size_bytes] for start in range(0, len(_ANSWER), size_bytes)]
    head, *replies = _respond(exchange, stream, *pieces)
    assert head == HeadersReply(Phase.RESPONSE, None, _WAITED, (b"content-length",))
    bodies = [reply for reply in replies if isinstance(reply, BodyReply)]
    assert len(bodies) == len(replies)
    assert b"".join(reply.body for reply in bodies) == _RESTORED
    assert [reply.end_of_stream for reply in bodies] == [False] * (len(bodies) - 1) + [True]
    assert all(reply.body for reply in bodies[:-1]), "empty pieces say nothing"
    assert (gate.skipped, gate.ended) == ([], 1)


def test_a_large_piece_of_a_response_goes_on_in_pieces() -> None:
    exchange, stream, _ = _open()
    answer = b'{"model":"the/target","text":"%b"}' % (b"x" * 100_000)
    _, *replies = _respond(exchange, stream, answer)
    bodies = [reply.body for reply in replies if isinstance(reply, BodyReply)]
    assert max(map(len, bodies)) == MAX_BODY_REPLY_BYTES
    assert b"".join(bodies) == answer.replace(b"the/target", b"alias")


def test_what_was_held_back_comes_before_the_trailers() -> None:
    exchange, stream, _ = _open()
    stream.take()
    exchange.response_headers(200, None, False, 0.0)
    exchange.response_body(b'{"model":"the/tar', False, 0.0)
    exchange.response_trailers(0.0)
    assert stream.take()[1:] == [
        BodyReply(Phase.RESPONSE, b"{", False),
        BodyReply(Phase.RESPONSE, b'"model":"the/tar', False),
        TrailersReply(Phase.RESPONSE),
    ]
    exchange, stream, _ = _open()
    stream.take()
    exchange.response_headers(200, None, False, 0.0)
    exchange.response_body(_ANSWER, False, 0.0)
    exchange.response_trailers(0.0)
    assert stream.take()[1:] == [
        BodyReply(Phase.RESPONSE, _RESTORED, False),
        TrailersReply(Phase.RESPONSE),
    ]


def test_in_the_streamed_mode_each_piece_is_replaced_that_changes() -> None:
    exchange, stream, _ = _open(_DUPLEX, BodyMode.STREAMED)
    head, *replies = _respond(exchange, stream, b'{"x":1,', b'"model":"the/', b'target"}', b"")
    assert head == HeadersReply(Phase.RESPONSE, None, _WAITED, (b"content-length",))
    assert replies == [
        BodyContinue(Phase.RESPONSE),
        BodyContinue(Phase.RESPONSE, None, b""),
        BodyContinue(Phase.RESPONSE, None, b'"model":"alias"}'),
        BodyContinue(Phase.RESPONSE),
    ]
    exchange, stream, _ = _open(_DUPLEX, BodyMode.STREAMED)
    stream.take()
    exchange.response_headers(200, None, False, 0.0)
    exchange.response_trailers(0.0)
    assert stream.take()[1:] == [TrailersReply(Phase.RESPONSE)]


@pytest.mark.parametrize("mode", [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL])
def test_a_buffered_response_is_replaced(mode: BodyMode) -> None:
    exchange, stream, _ = _open(_DUPLEX, mode)
    is_buffered = mode is BodyMode.BUFFERED
    removed = () if is_buffered else (b"content-length",)
    length = ((b"content-length", b"%d" % len(_RESTORED)),) if is_buffered else ()
    assert _respond(exchange, stream, _ANSWER) == [
        HeadersReply(Phase.RESPONSE, None, _WAITED, removed),
        BodyContinue(Phase.RESPONSE, None, _RESTORED, length),
    ]


def test_a_part_of_a_buffered_response_is_let_go_to_its_last_byte() -> None:
    """What comes after it is not seen."""
    exchange, stream, _ = _open(_DUPLEX, BodyMode.BUFFERED_PARTIAL)
    stream.take()
    exchange.response_headers(200, None, False, 0.0)
    exchange.response_body(_ANSWER + b'"model', False, 0.0)
    assert stream.take()[1:] == [BodyContinue(Phase.RESPONSE, None, _RESTORED + b'"model')]


@pytest.mark.parametrize(
    ("mode", "encoding", "reason"),
    [
        (BodyMode.NONE, b"", "response-not-seen"),
        (_DUPLEX, b"gzip", "response-compressed"),
        (BodyMode.BUFFERED, b"BR", "response-compressed"),
        (_DUPLEX, b"Identity", None),
    ],
)
def test_what_cannot_be_restored_is_counted_and_stays(
    mode: BodyMode, encoding: bytes, reason: str | None
) -> None:
    exchange, stream, gate = _open(_DUPLEX, mode)
    opening = stream.take()[0]
    assert isinstance(opening, HeadersReply)
    assert opening.set_headers == (() if mode is BodyMode.NONE else _PLAIN)
    exchange.response_headers(200, None, False, 0.0, content_encoding=encoding)
    if mode is not BodyMode.NONE:
        exchange.response_body(_ANSWER, True, 0.0)
    (head, *replies) = stream.take()
    assert gate.skipped == ([] if reason is None else [reason])
    removed = (b"content-length",) if reason is None else ()
    assert head == HeadersReply(Phase.RESPONSE, None, _WAITED, removed)
    goes = {
        BodyMode.NONE: [],
        BodyMode.BUFFERED: [BodyContinue(Phase.RESPONSE)],
        _DUPLEX: [BodyReply(Phase.RESPONSE, _ANSWER if reason else _RESTORED, True)],
    }
    assert replies == goes[mode]


def test_a_response_without_a_body_keeps_its_length() -> None:
    exchange, stream, gate = _open()
    stream.take()
    exchange.response_headers(304, None, True, 0.0)
    assert stream.take() == [HeadersReply(Phase.RESPONSE, None, _WAITED)]
    assert gate.skipped == []
