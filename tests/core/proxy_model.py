"""What a proxy does in an ext_proc conversation and what it takes, written down independently.

A :class:`ProxyModel` plays the proxy's part in one HTTP exchange: it knows which messages may come
next, and it takes each reply the way Envoy would, with an AssertionError for what Envoy would not
take.
"""

import itertools
import random
from collections import deque

import msgspec

from epp.core.exchange import Exchange
from epp.core.exchange_states import State
from epp.core.headers import Headers
from epp.core.replies import (
    BodyContinue,
    BodyMode,
    BodyReply,
    ExtendTimeout,
    HeadersReply,
    ImmediateReply,
    Phase,
    Reply,
    TrailersReply,
)

from .support import RecordingStream

__all__ = ["Half", "HalfPlan", "Message", "ProxyModel"]

DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
BUFFERING = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)
PARTIAL_BYTES = 1_000
_NOISE = random.Random(0).randbytes(1 << 20)


class HalfPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One direction of an HTTP exchange, and how much of it the proxy is configured to send.

    The body comes in chunks of these sizes, made of noise from ``start`` on.
    """

    mode: BodyMode
    sizes: tuple[int, ...] = ()
    start: int = 0
    has_trailers: bool = False
    sends_headers: bool = True
    sends_trailers: bool = True
    repeats_last: bool = False

    @property
    def chunks(self) -> list[bytes]:
        """The body, chunk by chunk."""
        ends = itertools.accumulate(self.sizes, initial=self.start)
        return [_NOISE[start:end] for start, end in itertools.pairwise(ends)]

    def messages(self) -> list["Message"]:
        """Return the messages in their order."""
        trailers, chunks = self.has_trailers, self.chunks
        messages: list[Message] = []
        if self.sends_headers:
            messages.append(Message("headers", b"", not chunks and not trailers))
        if chunks and self.mode in BUFFERING:
            body = b"".join(chunks)
            seen = body if self.mode is BodyMode.BUFFERED else body[:PARTIAL_BYTES]
            messages.append(Message("body", seen, len(seen) == len(body) and not trailers))
        elif self.mode is not BodyMode.NONE:
            messages += [Message("body", chunk, False) for chunk in chunks]
            if chunks and not trailers:
                messages[-1].end_of_stream = True
        # Envoy takes full duplex only together with trailers.
        if trailers and (self.sends_trailers or self.mode is DUPLEX):
            messages.append(Message("trailers", b"", True))
        elif self.repeats_last and self.mode is DUPLEX and messages and chunks:
            messages.append(Message("body", chunks[-1], True, is_repeated=True))
        return messages


class Message(msgspec.Struct):
    """One message of the proxy."""

    kind: str
    body: bytes
    end_of_stream: bool
    is_repeated: bool = False


class Half:
    """One direction of the conversation: what was sent, and which replies are still due."""

    def __init__(self, phase: Phase, plan: HalfPlan) -> None:
        self.phase = phase
        self.plan = plan
        self.to_send = deque(plan.messages())
        self.sent: list[Message] = []
        self.destinations: list[str] = []
        self._due: deque[Message] = deque()
        self._unreturned = b""
        self._owes_end = False
        self._is_duplex = plan.mode is DUPLEX

    @property
    def is_settled(self) -> bool:
        """Whether every reply that is due has come."""
        return not self._due and not self._unreturned and not self._owes_end

    @property
    def may_send(self) -> bool:
        """Streaming modes do not wait for replies, the others do."""
        is_streaming = self._is_duplex or self.plan.mode is BodyMode.STREAMED
        return bool(self.to_send) and (is_streaming or self.is_settled)

    def next_message(self) -> Message:
        """Return the next message, which is now on its way."""
        message = self.to_send.popleft()
        self.sent.append(message)
        if message.is_repeated:
            return message
        if message.kind != "body" or not self._is_duplex:
            self._due.append(message)
        else:
            self._unreturned += message.body
            self._owes_end |= message.end_of_stream
        return message

    def take(self, reply: Reply) -> None:
        """Take a reply of this phase."""
        if isinstance(reply, BodyReply):
            self._take_body(reply)
            return
        assert not isinstance(reply, ImmediateReply | ExtendTimeout)
        kinds = {HeadersReply: "headers", BodyContinue: "body", TrailersReply: "trailers"}
        assert self._due, f"{reply} answers nothing"
        assert self._due.popleft().kind == kinds[type(reply)], f"{reply} is out of order"
        if self._is_duplex and isinstance(reply, TrailersReply):
            assert not self._unreturned, "trailers overtook the body"
        if reply.destination is not None:
            assert self.phase is Phase.REQUEST
            self.destinations.append(reply.destination)

    def _take_body(self, reply: BodyReply) -> None:
        assert self._is_duplex, "only full duplex has bodies in replies"
        assert not self._due or self._due[0].kind == "trailers", "the body overtook the headers"
        assert len(reply.body) <= 62_000
        assert self._unreturned.startswith(reply.body), "other bytes than came in"
        self._unreturned = self._unreturned[len(reply.body) :]
        assert reply.body or reply.end_of_stream or 0 in self.plan.sizes
        if reply.end_of_stream:
            assert self._owes_end, "an end that did not come in, or came back before"
            assert not self._unreturned, "an end before the last bytes"
            self._owes_end = False


class ProxyModel:
    """The proxy's side of one exchange."""

    def __init__(
        self,
        exchange: Exchange,
        stream: RecordingStream,
        request: HalfPlan,
        response: HalfPlan,
        *,
        headers: Headers,
        subset: frozenset[str] | None = None,
        is_upgrade: bool = False,
    ) -> None:
        self.exchange = exchange
        self.stream = stream
        self.request = Half(Phase.REQUEST, request)
        self.response = Half(Phase.RESPONSE, response)
        self.headers = headers
        self.subset = subset
        self.is_upgrade = is_upgrade
        self.immediate: ImmediateReply | None = None
        self.is_cut_short = False
        self.is_closed = False
        self._extensions = 0
        exchange.protocol(request.mode, response.mode)

    # What may come next

    @property
    def may_send_request(self) -> bool:
        return self.request.may_send and not self.is_cut_short and not self.is_closed

    @property
    def may_send_response(self) -> bool:
        if self.is_closed or not self.response.may_send:
            return False
        return bool(self.response.sent) or self.is_upstream_reached

    @property
    def is_upstream_reached(self) -> bool:
        """Whether the proxy has let the request go on: the model server can answer."""
        if self.immediate is not None or self.is_cut_short:
            return False
        if self.request.plan.mode in BUFFERING:
            return not self.request.to_send and self.request.is_settled
        first = self.request.sent[:1]
        if not first:
            return not self.request.to_send
        if first[0].kind == "headers":
            return not any(message.kind == "headers" for message in self.request._due)
        return self.exchange.state not in (State.RECEIVING, State.WAITING)

    # What the proxy does

    def send_request(self, now: float) -> None:
        """Send the next message of the request."""
        message = self.request.next_message()
        if message.kind == "headers":
            self.exchange.request_headers(self.headers, self.subset, message.end_of_stream, now)
        elif message.kind == "body":
            self.exchange.request_body(message.body, message.end_of_stream, now)
        else:
            self.exchange.request_trailers(now)

    def send_response(self, now: float, status: int = 200, served_by: str | None = None) -> None:
        """Send the next message of the response."""
        if not self.response.sent and not self.is_upstream_reached:
            self.is_cut_short = True  # the proxy's own answer: it forgets the request
        message = self.response.next_message()
        if message.kind == "headers":
            self.exchange.response_headers(status, served_by, message.end_of_stream, now)
        elif message.kind == "body":
            self.exchange.response_body(message.body, message.end_of_stream, now)
        else:
            self.exchange.response_trailers(now)

    def answer_by_itself(self, now: float) -> None:
        """The proxy answers the client itself, say since a route's timeout has passed."""
        if self.response.to_send and not self.response.sent and not self.is_closed:
            self.send_response(now, 504)

    def close(self, now: float) -> None:
        """The stream is over."""
        self.is_closed = True
        self.exchange.closed(now)

    # What the proxy takes

    def take_replies(self) -> None:
        """Take what came since the last time."""
        for reply in self.stream.take():
            assert self.immediate is None, f"{reply} after an immediate reply"
            assert not self.is_closed, f"{reply} into a closed stream"
            if isinstance(reply, ImmediateReply):
                self._take_immediate(reply)
            elif isinstance(reply, ExtendTimeout):
                self._take_extension(reply)
            elif reply.phase is Phase.REQUEST:
                assert not self.is_cut_short, f"{reply} to a request that is forgotten"
                self.request.take(reply)
            else:
                self.response.take(reply)
        assert self.stream.has_ended == (self.immediate is not None)

    def _take_immediate(self, reply: ImmediateReply) -> None:
        assert not self.response.sent, "too late for an immediate reply"
        assert reply.status in (413, 429, 503)
        assert (b"content-type", b"application/json") in reply.headers
        msgspec.json.decode(reply.body)
        self.immediate = reply

    def _take_extension(self, reply: ExtendTimeout) -> None:
        assert self.request._due, "an extension of nothing"
        assert self.request.plan.mode is not DUPLEX
        assert 0 < reply.timeout_s <= 3600
        self._extensions += 1
        assert self._extensions == 1, "Envoy takes one extension"

    # Where the exchange must stand

    def check(self) -> None:
        """Take what has come and see that nothing more is due."""
        self.take_replies()
        state = self.exchange.state
        assert (state is State.CLOSED) == self.is_closed
        if self.is_closed:
            return
        assert (state is State.ANSWERED) == (self.immediate is not None)
        if self.immediate is None:
            assert self.response.is_settled, "the response never waits"
            self._check_request(state)

    def _check_request(self, state: State) -> None:
        request = self.request
        if state is State.RECEIVING:
            assert request.to_send or request.plan.mode in BUFFERING
            assert not request.destinations
            seen = request.sent
            assert not seen or not seen[-1].end_of_stream, "the request has come to its end"
        elif state is State.WAITING:
            assert not request.destinations
            assert not request.is_settled
        elif not self.is_cut_short:
            assert request.is_settled, f"replies are due in {state}"
            assert len(request.destinations) <= 1
            if self._can_be_told_where:
                assert len(request.destinations) == (state is not State.NEW)

    @property
    def _can_be_told_where(self) -> bool:
        """Whether a reply that can name the destination has been due."""
        sent, mode = self.request.sent, self.request.plan.mode
        if not sent:
            return False
        if sent[0].kind == "headers" and mode in BUFFERING:
            return sent[0].end_of_stream or self.is_upgrade or len(sent) > 1
        return sent[0].kind != "body" or mode is not DUPLEX
