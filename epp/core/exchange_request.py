"""The request's half of an exchange: what of it is held back, and how it goes on in its turn."""

from collections.abc import Iterable
from typing import Final

from epp.core.exchange_rewrite import RewrittenBody
from epp.core.replies import (
    BodyContinue,
    BodyMode,
    Header,
    HeadersReply,
    Phase,
    ProxyStream,
    Reply,
    TrailersReply,
    body_replies,
)

__all__ = ["HeldRequest"]

_REQUEST: Final = Phase.REQUEST
_FULL_DUPLEX: Final = BodyMode.FULL_DUPLEX_STREAMED
_BUFFERED: Final = BodyMode.BUFFERED
_CONTENT_LENGTH: Final = b"content-length"


class HeldRequest:
    """Keeps the pieces of a body, and what is to be said to the proxy when its turn has come.

    ``removed_headers`` are not to go on. ``mode`` is the proxy's for the body. ``headers_due`` and
    ``trailers_due`` say for what it awaits a reply, ``body_seen`` whether for a body as well;
    ``is_whole`` whether no more of the body comes.
    """

    __slots__ = ("_pieces", "_removed_headers", "_replies", "body_bytes", "body_seen",
                 "headers_due", "is_whole", "mode", "trailers_due")  # fmt: skip

    def __init__(self, removed_headers: tuple[bytes, ...] = ()) -> None:
        self._removed_headers = removed_headers
        self.mode = _FULL_DUPLEX
        self.headers_due = False
        self.trailers_due = False
        self.is_whole = False
        self.body_seen = False
        self.body_bytes = 0
        self._pieces: list[bytes] = []
        self._replies: list[Reply] = []

    def keep(self, piece: bytes) -> None:
        """Keep a piece of the body."""
        self.body_seen = True
        if piece:  # the end often comes by itself, and a body in one piece need not be copied
            self._pieces.append(piece)

    def body(self) -> bytes:
        """Return all that was kept."""
        body = b"".join(self._pieces)
        self._pieces = [body]
        return body

    def follow(self, replies: Iterable[Reply]) -> None:
        """Have these replies follow when it is their turn, all before them having gone on."""
        self._replies.extend(replies)

    def replies(self, piece: bytes, end_of_stream: bool) -> list[Reply]:
        """Return what lets a piece of the body go on as it came."""
        if self.mode is _FULL_DUPLEX:
            return [*body_replies(_REQUEST, piece, end_of_stream=end_of_stream)]
        return [BodyContinue(_REQUEST)]

    def drop(self) -> None:
        """Forget the body and what was to follow."""
        self._pieces.clear()
        self._replies.clear()

    def send_headers(
        self,
        stream: ProxyStream,
        destination: str | None = None,
        rewritten: RewrittenBody | None = None,
    ) -> None:
        """Let the headers go on, those that a rewritten body needs with them."""
        self.headers_due = False
        set_headers: tuple[Header, ...] = ()
        removed = self._removed_headers
        if rewritten is not None:
            set_headers = rewritten.set_headers
            removed += (*rewritten.removed_headers, _CONTENT_LENGTH)
        stream.send(HeadersReply(_REQUEST, destination, set_headers, removed))

    def send_on(
        self, stream: ProxyStream, destination: str, rewritten: RewrittenBody | None = None
    ) -> None:
        """Send what the proxy waits for: headers, the body that was held back, trailers, in this
        order. A ``rewritten`` body takes the place of the one that came."""
        told: str | None = destination
        body = self.body() if rewritten is None else rewritten.body
        if self.headers_due:
            self.send_headers(stream, told, rewritten)
            told = None
        if self.body_seen:
            if self.mode is _FULL_DUPLEX:
                ends = self.is_whole and not self.trailers_due
                for reply in body_replies(_REQUEST, body, end_of_stream=ends):
                    stream.send(reply)
            else:
                stream.send(self._continue(told, rewritten))
                told = None
        if self.trailers_due:
            stream.send(TrailersReply(_REQUEST, told))
        followers, self._replies, self._pieces = self._replies, [], []
        for follower in followers:
            stream.send(follower)

    def _continue(self, destination: str | None, rewritten: RewrittenBody | None) -> BodyContinue:
        if rewritten is None:
            return BodyContinue(_REQUEST, destination)
        set_headers = rewritten.set_headers
        if self.mode is _BUFFERED:  # in the other modes the proxy takes the length out by itself
            set_headers += ((_CONTENT_LENGTH, b"%d" % len(rewritten.body)),)
        return BodyContinue(
            _REQUEST, destination, rewritten.body, set_headers, rewritten.removed_headers
        )
