"""The response's half of an exchange: how its body goes on, with the client's model name in it."""

from typing import Final

from epp.core.exchange_rewrite import IS_PLAIN
from epp.core.parsing.model_name import ModelNameRestorer
from epp.core.replies import (
    MAX_BODY_REPLY_BYTES,
    BodyContinue,
    BodyMode,
    BodyReply,
    Header,
    Phase,
    ProxyStream,
    TrailersReply,
    body_replies,
)

__all__ = ["send_body", "send_trailers", "why_not_restored"]

_RESPONSE: Final = Phase.RESPONSE
_NO_BODY: Final = BodyMode.NONE
_FULL_DUPLEX: Final = BodyMode.FULL_DUPLEX_STREAMED
_BUFFERED: Final = BodyMode.BUFFERED
_BUFFERING: Final = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)


def why_not_restored(mode: BodyMode, content_encoding: bytes) -> str | None:
    """Return in a word why the client's model name cannot be put into a response's body; None where
    it can."""
    if mode is _NO_BODY:
        return "response-not-seen"
    return None if content_encoding.strip().lower() in IS_PLAIN else "response-compressed"


def send_body(
    stream: ProxyStream,
    mode: BodyMode,
    piece: bytes,
    end_of_stream: bool,
    restorer: ModelNameRestorer | None,
) -> None:
    """Let a piece of the body go on: as it came, or with what the restorer makes of it."""
    going = piece
    if restorer is None and mode is _FULL_DUPLEX and len(piece) <= MAX_BODY_REPLY_BYTES:
        stream.send(BodyReply(_RESPONSE, piece, end_of_stream))
        return
    if restorer is not None:
        going = restorer.feed(piece)
        if end_of_stream or mode in _BUFFERING:  # what is not buffered is not seen either
            going += restorer.end()
    if mode is not _FULL_DUPLEX:
        stream.send(_continue(mode, piece, going))
    elif len(going) > MAX_BODY_REPLY_BYTES:
        for reply in body_replies(_RESPONSE, going, end_of_stream=end_of_stream):
            stream.send(reply)
    elif going or end_of_stream:
        stream.send(BodyReply(_RESPONSE, going, end_of_stream))


def send_trailers(stream: ProxyStream, mode: BodyMode, restorer: ModelNameRestorer | None) -> None:
    """Let the trailers go on, after the rest of the body.

    In the other modes nothing can be sent before them; what would be lost there is the beginning of
    a name that never came to its end.
    """
    if restorer is not None and mode is _FULL_DUPLEX:
        rest = restorer.end()
        if rest:
            stream.send(BodyReply(_RESPONSE, rest, False))
    stream.send(TrailersReply(_RESPONSE))


def _continue(mode: BodyMode, piece: bytes, going: bytes) -> BodyContinue:
    if going == piece:
        return BodyContinue(_RESPONSE)
    headers: tuple[Header, ...] = ()
    if mode is _BUFFERED:  # in the other modes the proxy takes the length out by itself
        headers = ((b"content-length", b"%d" % len(going)),)
    return BodyContinue(_RESPONSE, None, going, headers)
