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

A body that was seen whole can go on with another model's name (``exchange_rewrite``).
"""

from collections.abc import Callable
from typing import Final

from epp.core import exchange_states as states
from epp.core.answers import error_reply, refusal_reply
from epp.core.claims import ClaimsOptions, ClaimsReader
from epp.core.exchange_limits import ExchangeLimits, ProxyProtocolError, proxy_timeout_s
from epp.core.exchange_request import HeldRequest
from epp.core.exchange_response import send_body, send_trailers, why_not_restored
from epp.core.exchange_rewrite import RewrittenBody, rewritten_body
from epp.core.exchange_states import TRANSITIONS, Event
from epp.core.gate import Admission, AskGate, Gate, Route
from epp.core.headers import Headers
from epp.core.parsing.orca import read_load_report
from epp.core.replies import (
    BodyMode,
    ExtendTimeout,
    Header,
    HeadersReply,
    Phase,
    ProxyStream,
    Reply,
    TrailersReply,
)
from epp.core.request import Cut, Outcome
from epp.core.response import Response

__all__ = ["Exchange", "ExchangeLimits", "ProxyProtocolError"]

# Reading a member off its enumeration takes longer than most steps here, on Python 3.11.
_REQUEST: Final = Phase.REQUEST
_RESPONSE: Final = Phase.RESPONSE
_NO_BODY: Final = BodyMode.NONE
_FULL_DUPLEX: Final = BodyMode.FULL_DUPLEX_STREAMED
_BUFFERED: Final = BodyMode.BUFFERED
_BUFFERING: Final = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)

_DEFAULT_CLAIMS: Final = ClaimsReader(ClaimsOptions())


class Exchange:
    """One HTTP request. Methods are named after ext_proc's messages; ``now`` is in monotonic
    seconds.

    ``bind`` chooses the gate when the headers arrive; ``claims`` reads what the
    request says of itself. Every method that takes a message may raise
    :class:`ProxyProtocolError`. :meth:`closed` must be called once when the stream is over, however
    it ended; nothing may be called after it.
    """

    __slots__ = ("_admission", "_arrived_s", "_bind", "_claims", "_gate", "_headers", "_limits",
                 "_pool", "_request", "_response", "_response_mode", "_stream", "_subset",
                 "state")  # fmt: skip

    def __init__(
        self,
        stream: ProxyStream,
        bind: Callable[[Headers], Gate],
        limits: ExchangeLimits,
        claims: ClaimsReader = _DEFAULT_CLAIMS,
    ) -> None:
        self.state = states.NEW
        self._stream = stream
        self._bind = bind
        self._limits = limits
        self._claims = claims
        self._gate: Gate | None = None
        self._headers = Headers([])
        self._subset: frozenset[str] | None = None
        self._pool = ""
        self._request = HeldRequest(claims.removed_headers)
        self._response_mode = _FULL_DUPLEX
        self._arrived_s = 0.0
        self._admission: Admission | None = None
        self._response: Response | None = None

    # What the proxy says

    def protocol(self, request_mode: BodyMode, response_mode: BodyMode) -> None:
        """The body modes that the proxy announces with its first message; full duplex if it is
        silent."""
        self._request.mode = request_mode
        self._response_mode = response_mode

    def request_headers(
        self,
        headers: Headers,
        subset: frozenset[str] | None,
        end_of_stream: bool,
        now: float,
        pool: str = "",
    ) -> None:
        """The request's headers; ``subset`` is the gateway's hint, ``pool`` the pool it names; None
        and empty where it gave none."""
        if self.state is states.ANSWERED:
            return
        if self.state is not states.NEW:
            raise ProxyProtocolError("request headers came twice or too late")
        request = self._request
        request.headers_due = True
        self._headers, self._subset, self._pool = headers, subset, pool
        self._begin(now)
        if headers.get(b"upgrade") is not None:
            self._admit(now)
        elif end_of_stream:
            request.is_whole = True
            self._pass(now)
        elif request.mode is _FULL_DUPLEX:
            self._step(states.BODY_AWAITED)
        elif request.mode in _BUFFERING:
            self._step(states.BODY_AWAITED)
            request.send_headers(self._stream)
        else:
            self._admit(now)

    def request_body(self, body: bytes, end_of_stream: bool, now: float) -> None:
        """A piece of the request's body, or all of it, as the mode has it."""
        request = self._request
        if request.is_whole or self.state is states.ANSWERED:
            return  # large bodies can bring the last piece twice
        if self.state is states.NEW:  # the proxy is configured to skip the headers
            self._begin(now)
            self._step(states.BODY_AWAITED)
        request.is_whole = end_of_stream
        if self.state in (states.RECEIVING, states.WAITING):
            request.body_bytes += len(body)
            if request.body_bytes > self._limits.max_body_bytes:
                self._refuse_too_large(now)
                return
        if self.state is not states.RECEIVING:
            self._reply_in_turn(*request.replies(body, end_of_stream))
            return
        request.keep(body)
        if end_of_stream or request.mode is not _FULL_DUPLEX:
            request.is_whole = end_of_stream or request.mode in _BUFFERING
            self._judge(now)

    def request_trailers(self, now: float) -> None:
        """The request's trailers, which also end a body that has not ended by itself."""
        if self.state is states.NEW:  # the proxy is configured to skip headers and body
            self._begin(now)
            self._step(states.BODY_AWAITED)
        if self.state is states.RECEIVING:
            self._request.is_whole = self._request.trailers_due = True
            self._judge(now)
        elif self.state is not states.ANSWERED:
            self._reply_in_turn(TrailersReply(_REQUEST))

    def response_headers(
        self,
        status: int,
        served_by: str | None,
        end_of_stream: bool,
        now: float,
        *,
        content_encoding: bytes = b"",
        load_report: bytes = b"",
    ) -> None:
        """The response's headers: the model server's, or the proxy's own where it failed before.

        ``served_by`` is the ``ip:port`` that really served, where the proxy tells it;
        ``load_report`` is the value of ``endpoint-load-metrics``.
        """
        if self.state in states.OVER:
            return
        if self.state is states.RESPONDING:
            raise ProxyProtocolError("response headers came twice")
        self._response_began(now)
        if served_by is not None and self._admission is not None:
            self._bound_gate().served_by(self._admission, served_by, now)
        if load_report:
            self._report(load_report, now)
        added: tuple[Header, ...] = ()
        removed: tuple[bytes, ...] = ()
        response = self._response
        if response is not None:
            body_follows = not end_of_stream and self._response_mode is not _NO_BODY
            added = response.headers(status, served_by, body_follows, now)
            if response.restorer is not None and not end_of_stream:
                removed = self._begin_restoring(response, content_encoding)
        self._stream.send(HeadersReply(_RESPONSE, None, added, removed))
        if end_of_stream:
            self._response_ended(now)

    def response_body(self, body: bytes, end_of_stream: bool, now: float) -> None:
        """A piece of the response's body, which goes on unchanged but for the model's name."""
        if self.state in states.OVER:
            return
        if self.state is not states.RESPONDING:
            self._response_began(now)
        response = self._response
        restorer = None if response is None else response.restorer
        send_body(self._stream, self._response_mode, body, end_of_stream, restorer)
        tokens = None if response is None else response.body(body, now)
        if end_of_stream:
            self._response_ended(now)
        elif tokens is not None and self._admission is not None:
            self._bound_gate().progress(self._admission, tokens, now)

    def response_trailers(self, now: float) -> None:
        """The response's trailers, with which it ends."""
        if self.state is states.ANSWERED:
            return
        if self.state not in (states.RESPONDING, states.COMPLETE):
            self._response_began(now)
        restorer = None if self._response is None else self._response.restorer
        send_trailers(self._stream, self._response_mode, restorer)
        if self.state is states.RESPONDING:
            self._response_ended(now)

    def closed(self, now: float) -> None:
        """The proxy's stream is over: in good order, reset, or lost. Whatever is held is given
        back."""
        was_seen_to_its_end = self.state is states.COMPLETE or (
            self.state is states.RESPONDING and self._response_mode is _NO_BODY
        )
        cut = "evicted" if self.state is states.ANSWERED else "aborted"
        self._step(states.STREAM_CLOSED)
        self._leave("complete" if was_seen_to_its_end else cut, now)
        # The stream knows its exchange: without this cycle, both go at once and not with the next
        # garbage collection.
        del self._stream
        self._request.drop()

    # What the gate says (epp.core.gate.GateWaiter)

    def dispatched(self, route: Route, waited_s: float, now: float) -> None:
        """The request has its endpoint, and holds capacity there."""
        self._step(states.DISPATCHED)
        self._response = response = Response(route, waited_s, now)
        rewritten = self._rewritten(route.model, response) if route.model else None
        self._request.send_on(self._stream, route.destination, rewritten)

    def passed(self, destination: str, now: float) -> None:
        """The request is no inference and goes."""
        self._step(states.PASSED)
        self._admission = None
        self._request.send_on(self._stream, destination)

    def refused(self, outcome: Outcome, retry_after_s: int, now: float) -> None:
        """The request does not go; its client is told why and when to come back."""
        self._admission = None
        self._answer(refusal_reply(outcome, retry_after_s, self._path()))

    def evicted(self, retry_after_s: int, now: float) -> None:
        """The request is to end: the proxy answers its client, or cuts the answer that has begun.

        Either way it lets go of the model server, then closes the stream. Only that says that the
        capacity is free, so the stream is left to it.
        """
        if self.state in states.OVER:
            return
        self._step(states.EVICTED)
        self._request.drop()
        self._stream.send(refusal_reply(Cut.EVICTED, retry_after_s, self._path()))

    # The request phase

    def _begin(self, now: float) -> None:
        self._arrived_s = now
        self._gate = self._bind(self._headers)

    def _judge(self, now: float) -> None:
        """The body was seen as far as it will be: a request with one is inference, else not."""
        if self._request.body_bytes or not self._request.is_whole:
            self._admit(now)
        else:
            self._pass(now)

    def _admit(self, now: float) -> None:
        """Offer the request to the flow control: all that was to be seen of it has been seen."""
        self._ask(self._bound_gate().admit, now)
        if self.state is states.WAITING and self._request.mode is not _FULL_DUPLEX:
            # Only in full duplex does the proxy wait without a clock of its own.
            deadline_s = None if self._admission is None else self._admission.deadline_s
            self._stream.send(ExtendTimeout(proxy_timeout_s(deadline_s, now)))

    def _pass(self, now: float) -> None:
        """Send a request on that is no inference, having no body: no wait, no lease."""
        self._ask(self._bound_gate().pass_by, now)

    def _ask(self, ask: AskGate, now: float) -> None:
        """Stand at the gate, unless it has refused the request or let it pass already."""
        request, limit = self._request, self._limits.max_inspected_bytes
        claims = self._claims.read(
            self._headers, request.body(), self._subset, max_inspected_bytes=limit, pool=self._pool
        )
        self._step(states.ADMITTED)
        admission = ask(claims, self, now)
        if self.state is states.WAITING or self._response is not None:
            self._admission = admission

    def _refuse_too_large(self, now: float) -> None:
        self._bound_gate().refused_early("too-large")
        limit = self._limits.max_body_bytes
        message = f"The request body is larger than this gateway takes ({limit} bytes)."
        self._answer(error_reply(413, "request_too_large", message, self._path()))
        self._leave("aborted", now)  # an upgraded connection sends on while it waits

    def _rewritten(self, model: str, response: Response) -> RewrittenBody | None:
        """Return the request with this model, and have the response name the client's."""
        rewritten = rewritten_body(
            self._request.body(),
            self._headers,
            model,
            max_inspected_bytes=self._limits.max_inspected_bytes,
            response_seen=self._response_mode is not _NO_BODY,
        )
        if rewritten is None:
            self._bound_gate().rewrite_skipped("request-not-read")
        else:
            response.restorer = rewritten.restorer
        return rewritten

    def _reply_in_turn(self, *replies: Reply) -> None:
        """Send replies, or keep them while the one before them is still to come."""
        if self.state is states.WAITING:
            self._request.follow(replies)
        else:
            for reply in replies:
                self._stream.send(reply)

    # The response phase

    def _response_began(self, now: float) -> None:
        was_waiting = self.state is states.WAITING
        self._step(states.RESPONSE_BEGAN)
        if was_waiting:
            self._leave("aborted", now)
        self._request.drop()

    def _report(self, load_report: bytes, now: float) -> None:
        """Pass on what the engine tells of its load with the response."""
        load = None if self._admission is None else read_load_report(load_report)
        if load is not None and self._admission is not None:
            self._bound_gate().reported(self._admission, load, now)

    def _begin_restoring(self, response: Response, content_encoding: bytes) -> tuple[bytes, ...]:
        """Return the headers that must go since the body will change; give up where it cannot."""
        reason = why_not_restored(self._response_mode, content_encoding)
        if reason is None:
            return () if self._response_mode is _BUFFERED else (b"content-length",)
        response.restorer = None
        self._bound_gate().rewrite_skipped(reason)
        return ()

    def _response_ended(self, now: float) -> None:
        self._step(states.RESPONSE_ENDED)
        self._leave("complete", now)

    # Ends

    def _answer(self, reply: Reply) -> None:
        self._step(states.REFUSED)
        self._request.drop()
        self._stream.send(reply)
        self._stream.end()

    def _leave(self, cause: str, now: float) -> None:
        """Give back what the request holds at the gate: its place in the queue, or its capacity."""
        admission, self._admission = self._admission, None
        response, self._response = self._response, None
        if admission is None:
            return
        if response is None:
            self._bound_gate().withdraw(admission, now)
        else:
            self._bound_gate().finish(admission, response.ending(cause, now - self._arrived_s), now)

    def _step(self, event: Event) -> None:
        next_state = TRANSITIONS[self.state].get(event)
        if next_state is None:
            raise AssertionError(f"an exchange that is {self.state} cannot take {event}")
        self.state = next_state

    def _bound_gate(self) -> Gate:
        if self._gate is None:
            raise AssertionError("the exchange is not bound to a gate yet")
        return self._gate

    def _path(self) -> bytes:
        return self._headers.get(b":path") or b""
