"""Requests that the EPP answers itself: when, with what, and that nothing is left of them."""

from collections.abc import Callable

import msgspec
import pytest

from epp.core.exchange import ExchangeLimits
from epp.core.exchange_states import State
from epp.core.flow import FlowLimits
from epp.core.replies import BodyMode, ImmediateReply
from epp.core.request import REFUSALS, Outcome

from .support import Harness, RecordingStream, destination, headers

_DROPPED_REASON = b"x-llm-d-request-dropped-reason"


def _refusal(stream: RecordingStream) -> ImmediateReply:
    """Return the one reply, with which the stream has ended."""
    (reply,) = stream.take()
    assert isinstance(reply, ImmediateReply)
    assert stream.has_ended
    return reply


def _send(
    harness: Harness,
    *pairs: tuple[bytes, bytes],
    path: bytes = b"/v1/completions",
    subset: frozenset[str] | None = None,
    body: bytes = b"{}",
) -> RecordingStream:
    """Open an exchange and send its whole request."""
    exchange, stream = harness.exchange()
    exchange.request_headers(headers(*pairs, path=path), subset, not body, harness.now)
    if body:
        exchange.request_body(body, True, harness.now)
    return stream


# One way to each refusal: makes the pool, and gives what then happens to a request that has come.


def _rejected_capacity() -> tuple[Harness, Callable[[], None]]:
    harness = Harness(limits=FlowLimits(max_requests=0))
    harness.occupy(1)
    return harness, lambda: None


def _rejected_wait() -> tuple[Harness, Callable[[], None]]:
    """Forty wait, and four a second go."""
    harness = Harness(max_concurrency=20)
    leases = [harness.occupy(1) for _ in range(20)]
    for _ in range(60):
        _send(harness)
    for lease in leases:
        harness.clock.advance(0.25)
        harness.give_back(lease)
    return harness, lambda: None


def _displaced() -> tuple[Harness, Callable[[], None]]:
    harness = Harness(limits=FlowLimits(max_requests=1), objectives={"high": 1})
    harness.occupy(1)

    def displace() -> None:
        _send(harness, (b"x-llm-d-inference-objective", b"high"))

    return harness, displace


def _expired() -> tuple[Harness, Callable[[], None]]:
    harness = Harness(limits=FlowLimits(wait_limit_s=3.0))
    harness.occupy(1)
    return harness, lambda: harness.clock.advance(3.0)


def _rejected_no_endpoints() -> tuple[Harness, Callable[[], None]]:
    return Harness([], limits=FlowLimits(max_requests=0)), lambda: None


def _expired_no_endpoints() -> tuple[Harness, Callable[[], None]]:
    harness = Harness([], limits=FlowLimits(no_endpoint_wait_limit_s=3.0))
    return harness, lambda: harness.clock.advance(3.0)


def _shutting_down() -> tuple[Harness, Callable[[], None]]:
    harness = Harness()
    harness.occupy(1)
    return harness, lambda: harness.router.flow.end_drain(harness.now)


_WAYS = {
    Outcome.REJECTED_CAPACITY: _rejected_capacity,
    Outcome.REJECTED_WAIT: _rejected_wait,
    Outcome.DISPLACED: _displaced,
    Outcome.EXPIRED: _expired,
    Outcome.REJECTED_NO_ENDPOINTS: _rejected_no_endpoints,
    Outcome.EXPIRED_NO_ENDPOINTS: _expired_no_endpoints,
    Outcome.SHUTTING_DOWN: _shutting_down,
}


@pytest.mark.parametrize("outcome", _WAYS, ids=lambda outcome: outcome.value)
@pytest.mark.parametrize(
    ("path", "keys"),
    [(b"/v1/chat/completions", ["error"]), (b"/v1/messages?beta=true", ["error", "type"])],
)
def test_what_the_client_sees(outcome: Outcome, path: bytes, keys: list[str]) -> None:
    harness, then = _WAYS[outcome]()
    stream = _send(harness, (b"x-gateway-request-ttl-ms", b"5000"), path=path)
    then()
    assert harness.recorder.outcomes[outcome] == 1
    reply, refusal = _refusal(stream), REFUSALS[outcome]
    assert reply.status == refusal.status
    fields = dict(reply.headers)
    assert fields[b"content-type"] == b"application/json"
    assert 1 <= int(fields[b"retry-after"]) <= 60
    assert fields[_DROPPED_REASON] == refusal.dropped_reason.encode()
    document = msgspec.json.decode(reply.body)
    assert sorted(document) == keys
    assert document["error"]["message"] == refusal.message


def test_who_waits_too_long_is_told_at_the_very_deadline() -> None:
    harness = Harness()
    harness.occupy(1)
    stream = _send(harness, (b"x-gateway-request-ttl-ms", b"250"))
    harness.clock.advance(0.2499)
    assert stream.replies == []
    harness.clock.advance(0.0001)
    assert dict(_refusal(stream).headers)[_DROPPED_REASON] == b"rejected-ttl-expired"


def test_get_without_an_endpoint() -> None:
    harness = Harness([])
    assert _refusal(_send(harness, body=b"")).status == 503
    assert harness.recorder.early == ["rejected-no-endpoints"]


@pytest.mark.parametrize("body", [b"", b"{}"])
@pytest.mark.parametrize("subset", [frozenset[str](), frozenset({destination(9)})])
def test_a_hint_that_names_nobody(subset: frozenset[str], body: bytes) -> None:
    reply = _refusal(_send(Harness(), subset=subset, body=body))
    assert reply.status == 503
    assert dict(reply.headers)[_DROPPED_REASON] == b"rejected-no-endpoints"


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_a_drain_refuses_newcomers(body: bytes) -> None:
    harness = Harness()
    harness.router.begin_drain()
    reply = _refusal(_send(harness, body=body))
    assert reply.status == 503
    assert dict(reply.headers)[_DROPPED_REASON] == b"rejected-shutting-down"


@pytest.mark.parametrize("sizes", [(100,), (101,), (60, 40), (60, 41), (200, 1)])
def test_a_body_that_is_too_large(sizes: tuple[int, ...]) -> None:
    harness = Harness(exchange_limits=ExchangeLimits(max_body_bytes=100))
    exchange, stream = harness.exchange()
    exchange.request_headers(headers(path=b"/v1/messages"), None, False, harness.now)
    for number, size in enumerate(sizes, 1):
        exchange.request_body(b"x" * size, number == len(sizes), harness.now)
    if sum(sizes) <= 100:
        assert exchange.state is State.ROUTED
    else:
        reply = _refusal(stream)
        assert reply.status == 413
        assert msgspec.json.decode(reply.body)["error"]["type"] == "request_too_large"
        assert harness.recorder.early == ["too-large"]
        assert not exchange._request._pieces
    exchange.closed(harness.now)
    harness.assert_at_rest()


@pytest.mark.parametrize("mode", BodyMode)
def test_an_upgrade_that_sends_too_much_while_it_waits(mode: BodyMode) -> None:
    harness = Harness(exchange_limits=ExchangeLimits(max_body_bytes=100))
    lease = harness.occupy(1)
    exchange, stream = harness.exchange()
    exchange.protocol(mode, BodyMode.NONE)
    exchange.request_headers(headers((b"upgrade", b"websocket")), None, False, harness.now)
    for _ in range(10):
        exchange.request_body(b"x" * 10, False, harness.now)
    assert exchange.state is State.WAITING
    stream.take()
    exchange.request_body(b"x", False, harness.now)
    assert _refusal(stream).status == 413
    assert harness.recorder.outcomes == {Outcome.CANCELLED: 1}
    assert not exchange._request._replies
    exchange.closed(harness.now)
    lease.release()
    harness.assert_at_rest()


def test_after_its_answer_an_exchange_ignores_what_still_comes() -> None:
    harness = Harness([])
    exchange, stream = harness.exchange()
    exchange.request_headers(headers(), None, True, harness.now)
    _refusal(stream)
    exchange.request_headers(headers(), None, False, harness.now)
    exchange.request_body(b"x", True, harness.now)
    exchange.request_trailers(harness.now)
    exchange.response_headers(503, None, False, harness.now)
    exchange.response_body(b"x", True, harness.now)
    exchange.response_trailers(harness.now)
    assert (stream.take(), exchange.state) == ([], State.ANSWERED)
