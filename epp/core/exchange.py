"""The life of one HTTP request as ext_proc sees it: messages in, replies out, no I/O.

A transport makes one exchange per stream and calls the method of each message that comes; the
exchange calls ``stream.send`` and ``stream.end``, at once or later, when its turn has come. It
needs no task and no coroutine of its own.

How the request phase runs depends on the body mode that the proxy announced:

* full duplex: the headers' reply is held back until the whole body was seen and the request
  dispatched; then follow the headers with the destination, the body as it came, and the trailers.
* buffered, buffered partially: the headers go on at once, the destination comes with the body's
  reply.
* streamed, none: only the headers can carry the destination, so the request is judged by them
  alone.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from epp.core.answers import error_reply, refusal_reply
from epp.core.claims import read_claims
from epp.core.exchange_states import TRANSITIONS, Event, State
from epp.core.flow import Ticket
from epp.core.headers import QUEUE_WAIT, Headers
from epp.core.pool import Lease
from epp.core.ports import Ending
from epp.core.replies import (
    BodyContinue,
    BodyMode,
    ExtendTimeout,
    Header,
    HeadersReply,
    Phase,
    ProxyStream,
    Reply,
    TrailersReply,
    body_replies,
)
from epp.core.request import Outcome, Request
from epp.core.router import Router

__all__ = ["Exchange", "ExchangeLimits", "ProxyProtocolError"]

_TIMEOUT_MARGIN_S: Final = 5.0
_MAX_TIMEOUT_S: Final = 3600.0


_BUFFERING: Final = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)


class ProxyProtocolError(Exception):
    """The proxy sent what ext_proc does not allow at this point; its stream is to be ended."""


class ExchangeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one exchange: the largest request body, and the largest one that is looked into."""

    max_body_bytes: int = 64 << 20
    max_inspected_bytes: int = 32 << 20


class Exchange:
    """One HTTP request. Methods are named after ext_proc's messages; ``now`` is in monotonic
    seconds.

    ``bind`` chooses the router, and so the pool, when the headers arrive. Every method that takes a
    message may raise :class:`ProxyProtocolError`. :meth:`closed` must be called once when the
    stream is over, however it ended; nothing may be called after it.
    """

    __slots__ = (
        "_arrived_s",
        "_bind",
        "_body",
        "_body_bytes",
        "_body_seen",
        "_headers",
        "_headers_due",
        "_held",
        "_lease",
        "_limits",
        "_request",
        "_request_done",
        "_request_mode",
        "_response_bytes",
        "_response_mode",
        "_router",
        "_status",
        "_stream",
        "_subset",
        "_ticket",
        "_trailers_due",
        "_waited_s",
        "state",
    )

    def __init__(
        self, stream: ProxyStream, bind: Callable[[Headers], Router], limits: ExchangeLimits
    ) -> None:
        self.state = State.NEW
        self._stream = stream
        self._bind = bind
        self._limits = limits
        self._router: Router | None = None
        self._headers = Headers([])
        self._subset: frozenset[str] | None = None
        self._request_mode = BodyMode.FULL_DUPLEX_STREAMED
        self._response_mode = BodyMode.FULL_DUPLEX_STREAMED
        self._arrived_s = 0.0
        self._headers_due = False
        self._trailers_due = False
        self._request_done = False
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_seen = False
        self._request: Request | None = None
        self._held: list[Reply] = []
        self._ticket: Ticket | None = None
        self._lease: Lease | None = None
        self._waited_s: float | None = None
        self._status = 0
        self._response_bytes: int | None = None

    # What the proxy says

    def protocol(self, request_mode: BodyMode, response_mode: BodyMode) -> None:
        """The body modes that the proxy announces with its first message; full duplex if it is
        silent."""
        self._request_mode = request_mode
        self._response_mode = response_mode

    def request_headers(
        self, headers: Headers, subset: frozenset[str] | None, end_of_stream: bool, now: float
    ) -> None:
        """The request's headers; ``subset`` is the gateway's hint, None where it gave none."""
        if self.state is State.ANSWERED:
            return
        if self.state is not State.NEW:
            raise ProxyProtocolError("request headers came twice or too late")
        self._headers_due = True
        self._begin(headers, subset, now)
        if headers.get(b"upgrade") is not None:
            self._admit(now)
        elif end_of_stream:
            self._request_done = True
            self._pass(now)
        elif self._request_mode is BodyMode.FULL_DUPLEX_STREAMED:
            self._step(Event.BODY_AWAITED)
        elif self._request_mode in _BUFFERING:
            self._step(Event.BODY_AWAITED)
            self._headers_due = False
            self._stream.send(HeadersReply(Phase.REQUEST))
        else:
            self._admit(now)

    def request_body(self, body: bytes, end_of_stream: bool, now: float) -> None:
        """A piece of the request's body, or all of it, as the mode has it."""
        if self._request_done or self.state is State.ANSWERED:
            return  # large bodies can bring the last piece twice
        if self.state is State.NEW:  # the proxy is configured to skip the headers
            self._begin(self._headers, None, now)
            self._step(Event.BODY_AWAITED)
        self._request_done = end_of_stream
        if self.state is not State.RECEIVING:
            self._reply_in_turn(*self._body_replies(body, end_of_stream))
            return
        self._body_seen = True
        self._body.append(body)
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._refuse_too_large()
        elif end_of_stream or self._request_mode is not BodyMode.FULL_DUPLEX_STREAMED:
            self._request_done = True
            self._judge(now)

    def request_trailers(self, now: float) -> None:
        """The request's trailers, which also end a body that has not ended by itself."""
        if self.state is State.NEW:  # the proxy is configured to skip headers and body
            self._begin(self._headers, None, now)
            self._step(Event.BODY_AWAITED)
        if self.state is State.RECEIVING:
            self._request_done = self._trailers_due = True
            self._judge(now)
        elif self.state is not State.ANSWERED:
            self._reply_in_turn(TrailersReply(Phase.REQUEST))

    def response_headers(
        self, status: int, served_by: str | None, end_of_stream: bool, now: float
    ) -> None:
        """The response's headers: the model server's, or the proxy's own where it failed before.

        ``served_by`` is the ``ip:port`` that really served, where the proxy tells it.
        """
        if self.state in (State.ANSWERED, State.COMPLETE):
            return
        if self.state is State.RESPONDING:
            raise ProxyProtocolError("response headers came twice")
        self._response_began(now)
        self._status = status
        if served_by is not None and self._lease is not None and self._router is not None:
            self._router.follow(self._lease, served_by, now)
        self._stream.send(HeadersReply(Phase.RESPONSE, None, self._response_headers_to_set()))
        if end_of_stream:
            self._response_ended(now)

    def response_body(self, body: bytes, end_of_stream: bool, now: float) -> None:
        """A piece of the response's body, which goes on unchanged."""
        if self.state in (State.ANSWERED, State.COMPLETE):
            return
        if self.state is not State.RESPONDING:
            self._response_began(now)
        self._response_bytes = (self._response_bytes or 0) + len(body)
        if self._response_mode is BodyMode.FULL_DUPLEX_STREAMED:
            for reply in body_replies(Phase.RESPONSE, body, end_of_stream=end_of_stream):
                self._stream.send(reply)
        else:
            self._stream.send(BodyContinue(Phase.RESPONSE))
        if end_of_stream:
            self._response_ended(now)

    def response_trailers(self, now: float) -> None:
        """The response's trailers, with which it ends."""
        if self.state is State.ANSWERED:
            return
        if self.state not in (State.RESPONDING, State.COMPLETE):
            self._response_began(now)
        self._stream.send(TrailersReply(Phase.RESPONSE))
        if self.state is State.RESPONDING:
            self._response_ended(now)

    def closed(self, now: float) -> None:
        """The proxy's stream is over: in good order, reset, or lost. Whatever is held is given
        back."""
        was_seen_to_its_end = self.state is State.COMPLETE or (
            self.state is State.RESPONDING and self._response_mode is BodyMode.NONE
        )
        self._step(Event.CLOSED)
        self._withdraw(now)
        self._release("complete" if was_seen_to_its_end else "aborted", now)
        self._body.clear()
        self._held.clear()

    # What the flow control says (epp.core.flow.Waiter)

    def dispatched(self, lease: Lease, waited_s: float, now: float) -> None:
        """The request has its endpoint."""
        self._step(Event.DISPATCHED)
        self._ticket = None
        self._lease = lease
        self._waited_s = waited_s
        self._send_on(lease.endpoint.destination)

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """The request does not go; its client is told why and when to come back."""
        self._ticket = None
        self._answer(refusal_reply(outcome, retry_after_s, self._path()))

    # The request phase

    def _begin(self, headers: Headers, subset: frozenset[str] | None, now: float) -> None:
        self._headers = headers
        self._subset = subset
        self._arrived_s = now
        self._router = self._bind(headers)

    def _judge(self, now: float) -> None:
        """The whole body has been seen: a request with one is inference, one without is not."""
        if self._body_bytes:
            self._admit(now)
        else:
            self._pass(now)

    def _admit(self, now: float) -> None:
        """Offer the request to the flow control: all that was to be seen of it has been seen."""
        router = self._bound_router()
        body = b"".join(self._body)
        self._body = [body]
        claims = read_claims(
            self._headers,
            body,
            self._subset,
            max_inspected_bytes=self._limits.max_inspected_bytes,
        )
        self._request = router.resolve(claims)
        self._step(Event.ADMITTED)
        ticket = router.admit(self._request, self, now)
        if ticket.is_waiting:
            self._ticket = ticket
            if self._request_mode is not BodyMode.FULL_DUPLEX_STREAMED:
                # Only in full duplex does the proxy wait without a clock of its own.
                self._stream.send(ExtendTimeout(_timeout_s(ticket, now)))

    def _pass(self, now: float) -> None:
        """Send a request on that is no inference (it has no body): any endpoint, no wait, no
        lease."""
        router = self._bound_router()
        endpoint = None if router.is_draining else router.any_endpoint(self._subset)
        if endpoint is None:
            outcome = Outcome.SHUTTING_DOWN if router.is_draining else Outcome.REJECTED_NO_ENDPOINTS
            router.recorder.refused_early(outcome.value)
            self._answer(refusal_reply(outcome, router.flow.retry_after_s(now), self._path()))
            return
        self._step(Event.PASSED)
        self._send_on(endpoint.destination)

    def _refuse_too_large(self) -> None:
        self._body.clear()
        self._bound_router().recorder.refused_early("too-large")
        limit = self._limits.max_body_bytes
        message = f"The request body is larger than this gateway takes ({limit} bytes)."
        self._answer(error_reply(413, "request_too_large", message, self._path()))

    def _send_on(self, destination: str) -> None:
        """Send what the proxy waits for: headers, the body that was held back, trailers, in this
        order."""
        told: str | None = destination
        if self._headers_due:
            self._headers_due = False
            self._stream.send(HeadersReply(Phase.REQUEST, told))
            told = None
        if self._body_seen:
            body, self._body = b"".join(self._body), []
            if self._request_mode is BodyMode.FULL_DUPLEX_STREAMED:
                ends = self._request_done and not self._trailers_due
                for reply in body_replies(Phase.REQUEST, body, end_of_stream=ends):
                    self._stream.send(reply)
            else:
                self._stream.send(BodyContinue(Phase.REQUEST, told))
                told = None
        if self._trailers_due:
            self._stream.send(TrailersReply(Phase.REQUEST, told))
        held, self._held = self._held, []
        for held_reply in held:
            self._stream.send(held_reply)

    def _body_replies(self, body: bytes, end_of_stream: bool) -> list[Reply]:
        if self._request_mode is BodyMode.FULL_DUPLEX_STREAMED:
            return [*body_replies(Phase.REQUEST, body, end_of_stream=end_of_stream)]
        return [BodyContinue(Phase.REQUEST)]

    def _reply_in_turn(self, *replies: Reply) -> None:
        """Send replies, or keep them while the one before them is still to come."""
        if self.state is State.WAITING:
            self._held.extend(replies)
        else:
            for reply in replies:
                self._stream.send(reply)

    # The response phase

    def _response_began(self, now: float) -> None:
        self._step(Event.RESPONSE_BEGAN)
        self._withdraw(now)
        self._body.clear()

    def _response_headers_to_set(self) -> tuple[Header, ...]:
        if self._waited_s is None:
            return ()
        return ((QUEUE_WAIT, b"%d" % round(self._waited_s * 1000)),)

    def _response_ended(self, now: float) -> None:
        self._step(Event.RESPONSE_ENDED)
        self._release("complete", now)

    # Ends

    def _answer(self, reply: Reply) -> None:
        self._step(Event.REFUSED)
        self._body.clear()
        self._held.clear()
        self._stream.send(reply)
        self._stream.end()

    def _withdraw(self, now: float) -> None:
        """Leave the queue, if the request stands there: nobody waits for it any more."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._bound_router().withdraw(ticket, now)

    def _release(self, cause: str, now: float) -> None:
        lease, self._lease = self._lease, None
        if lease is None or self._request is None:
            return
        ending = Ending(
            request=self._request,
            status=self._status,
            cause=cause,
            duration_s=now - self._arrived_s,
            response_bytes=self._response_bytes,
        )
        self._bound_router().release(lease, ending, now)

    def _step(self, event: Event) -> None:
        next_state = TRANSITIONS[self.state].get(event)
        if next_state is None:
            raise AssertionError(f"an exchange that is {self.state} cannot take {event}")
        self.state = next_state

    def _bound_router(self) -> Router:
        if self._router is None:
            raise AssertionError("the exchange is not bound to a pool yet")
        return self._router

    def _path(self) -> bytes:
        return self._headers.get(b":path") or b""


def _timeout_s(ticket: Ticket, now: float) -> float:
    """Return how long the proxy must wait at most, in seconds: ext_proc allows up to an hour."""
    if ticket.deadline_s is None:
        return _MAX_TIMEOUT_S
    return min(_MAX_TIMEOUT_S, ticket.deadline_s - now + _TIMEOUT_MARGIN_S)
