"""The request phase of an exchange, mode by mode: what is answered when, and with what."""

import pytest
from msgspec.structs import asdict

from epp.core.claim_sources import FromHeader
from epp.core.claims import ClaimsOptions, ClaimsReader
from epp.core.exchange import Exchange, ExchangeLimits, ProxyProtocolError
from epp.core.exchange_states import State
from epp.core.flow import FlowLimits
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
from epp.core.request import FlowKey, Outcome, Request

from .support import Harness, RecordingStream, destination, headers

_REQUEST = Phase.REQUEST
_HERE = destination(1)
_STREAMED_MODES = [BodyMode.NONE, BodyMode.STREAMED, BodyMode.GRPC]
_BUFFERED_MODES = [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL]
_DUPLEX = BodyMode.FULL_DUPLEX_STREAMED


def _open(
    harness: Harness, mode: BodyMode | None = None, response_mode: BodyMode = BodyMode.NONE
) -> tuple[Exchange, RecordingStream]:
    exchange, stream = harness.exchange()
    if mode is not None:
        exchange.protocol(mode, response_mode)
    return exchange, stream


def _headers(
    exchange: Exchange,
    harness: Harness,
    *pairs: tuple[bytes, bytes],
    end_of_stream: bool = False,
    subset: frozenset[str] | None = None,
    path: bytes = b"/v1/completions",
) -> None:
    exchange.request_headers(headers(*pairs, path=path), subset, end_of_stream, harness.now)


def _status(replies: list[Reply]) -> int:
    (reply,) = replies
    assert isinstance(reply, ImmediateReply)
    return reply.status


# Full duplex


@pytest.mark.parametrize("mode", [_DUPLEX, None], ids=["announced", "silent"])
def test_duplex_answers_once_the_whole_body_was_seen(mode: BodyMode | None) -> None:
    harness = Harness()
    exchange, stream = _open(harness, mode)
    _headers(exchange, harness)
    exchange.request_body(b'{"model"', False, harness.now)
    assert (exchange.state, stream.take()) == (State.RECEIVING, [])
    exchange.request_body(b':"m"}', True, harness.now)
    assert exchange.state is State.ROUTED
    assert stream.take() == [
        HeadersReply(_REQUEST, _HERE),
        BodyReply(_REQUEST, b'{"model":"m"}', True),
    ]
    assert harness.router.pool.total_in_flight == 1


def test_duplex_with_trailers_ends_by_them() -> None:
    harness = Harness()
    exchange, stream = _open(harness, _DUPLEX)
    _headers(exchange, harness)
    exchange.request_body(b"a" * 62_001, False, harness.now)
    exchange.request_trailers(harness.now)
    assert stream.take() == [
        HeadersReply(_REQUEST, _HERE),
        BodyReply(_REQUEST, b"a" * 62_000, False),
        BodyReply(_REQUEST, b"a", False),
        TrailersReply(_REQUEST),
    ]


def test_duplex_waits_without_asking_for_more_time() -> None:
    harness = Harness()
    lease = harness.occupy(1)
    exchange, stream = _open(harness, _DUPLEX)
    _headers(exchange, harness)
    exchange.request_body(b"{}", True, harness.now)
    assert (exchange.state, stream.take()) == (State.WAITING, [])
    harness.clock.advance(3.0)
    harness.give_back(lease)
    assert stream.take() == [HeadersReply(_REQUEST, _HERE), BodyReply(_REQUEST, b"{}", True)]


@pytest.mark.parametrize("trailers", [False, True])
def test_duplex_without_a_byte_of_body_does_not_wait(trailers: bool) -> None:
    harness = Harness()
    harness.occupy(1)
    exchange, stream = _open(harness, _DUPLEX)
    _headers(exchange, harness)
    if trailers:
        exchange.request_trailers(harness.now)
        ending: Reply = TrailersReply(_REQUEST)
    else:
        exchange.request_body(b"", True, harness.now)
        ending = BodyReply(_REQUEST, b"", True)
    assert stream.take() == [HeadersReply(_REQUEST, _HERE), ending]
    assert harness.recorder.waits == []


def test_the_last_chunk_may_come_twice() -> None:
    harness = Harness()
    exchange, stream = _open(harness, _DUPLEX)
    _headers(exchange, harness)
    exchange.request_body(b"abc", True, harness.now)
    stream.take()
    exchange.request_body(b"abc", True, harness.now)
    exchange.request_body(b"", True, harness.now)
    assert stream.take() == []


# The other modes


@pytest.mark.parametrize("mode", _BUFFERED_MODES)
@pytest.mark.parametrize("end_of_stream", [True, False])
def test_buffered_names_the_destination_with_the_body(mode: BodyMode, end_of_stream: bool) -> None:
    harness = Harness()
    exchange, stream = _open(harness, mode)
    _headers(exchange, harness)
    assert stream.take() == [HeadersReply(_REQUEST)]
    exchange.request_body(b"{}", end_of_stream, harness.now)
    assert stream.take() == [BodyContinue(_REQUEST, _HERE)]
    if not end_of_stream:
        exchange.request_trailers(harness.now)
        assert stream.take() == [TrailersReply(_REQUEST)]


def test_buffered_without_a_body_names_the_destination_with_the_trailers() -> None:
    harness = Harness()
    exchange, stream = _open(harness, BodyMode.BUFFERED)
    _headers(exchange, harness)
    exchange.request_trailers(harness.now)
    assert stream.take() == [HeadersReply(_REQUEST), TrailersReply(_REQUEST, _HERE)]


@pytest.mark.parametrize("mode", _STREAMED_MODES)
def test_streamed_and_none_are_judged_by_the_headers(mode: BodyMode) -> None:
    harness = Harness(objectives={"high": 7})
    exchange, stream = _open(harness, mode)
    _headers(exchange, harness, (b"x-llm-d-inference-objective", b"high"))
    assert stream.take() == [HeadersReply(_REQUEST, _HERE)]
    ((request, outcome, _),) = harness.recorder.waits
    assert (request.flow.priority, request.body_bytes, outcome) == (7, 0, Outcome.DISPATCHED)
    exchange.request_body(b"a", False, harness.now)
    exchange.request_body(b"b", True, harness.now)
    assert stream.take() == [BodyContinue(_REQUEST), BodyContinue(_REQUEST)]


def test_replies_wait_behind_the_one_that_waits() -> None:
    harness = Harness(limits=FlowLimits(wait_limit_s=30.0))
    lease = harness.occupy(1)
    exchange, stream = _open(harness, BodyMode.STREAMED)
    _headers(exchange, harness)
    exchange.request_body(b"a", False, harness.now)
    exchange.request_trailers(harness.now)
    assert stream.take() == [ExtendTimeout(35.0)]
    harness.give_back(lease)
    assert stream.take() == [
        HeadersReply(_REQUEST, _HERE),
        BodyContinue(_REQUEST),
        TrailersReply(_REQUEST),
    ]


@pytest.mark.parametrize(
    ("wait_limit_s", "header", "timeout_s"),
    [(60.0, b"", 65.0), (60.0, b"2000", 7.0), (None, b"", 3600.0), (7200.0, b"", 3600.0)],
)
@pytest.mark.parametrize("mode", [*_STREAMED_MODES, *_BUFFERED_MODES])
def test_a_proxy_with_a_clock_is_asked_to_wait_longer(
    mode: BodyMode, wait_limit_s: float | None, header: bytes, timeout_s: float
) -> None:
    harness = Harness(limits=FlowLimits(wait_limit_s=wait_limit_s))
    harness.occupy(1)
    exchange, stream = _open(harness, mode)
    _headers(exchange, harness, (b"x-gateway-request-ttl-ms", header))
    if mode in _BUFFERED_MODES:
        assert stream.take() == [HeadersReply(_REQUEST)]
        exchange.request_body(b"{}", True, harness.now)
    assert stream.take() == [ExtendTimeout(timeout_s)]


# Parts that the proxy skips


def test_streamed_without_headers_answers_every_chunk() -> None:
    harness = Harness()
    lease = harness.occupy(1)
    exchange, stream = _open(harness, BodyMode.STREAMED)
    exchange.request_body(b"", False, harness.now)
    exchange.request_body(b"b", False, harness.now)
    exchange.request_body(b"c", True, harness.now)
    assert exchange.state is State.WAITING
    harness.give_back(lease)
    assert stream.take()[1:] == [
        BodyContinue(_REQUEST, _HERE),
        BodyContinue(_REQUEST),
        BodyContinue(_REQUEST),
    ]


def test_duplex_without_headers_gives_the_body_back() -> None:
    harness = Harness()
    exchange, stream = _open(harness, _DUPLEX)
    exchange.request_body(b"a", False, harness.now)
    exchange.request_body(b"b", True, harness.now)
    assert stream.take() == [BodyReply(_REQUEST, b"ab", True)]


def test_trailers_alone() -> None:
    harness = Harness()
    exchange, stream = _open(harness, BodyMode.NONE)
    exchange.request_trailers(harness.now)
    assert stream.take() == [TrailersReply(_REQUEST, _HERE)]


# Requests without a body, and upgrades


@pytest.mark.parametrize("mode", BodyMode)
def test_get_goes_at_once_and_takes_no_capacity(mode: BodyMode) -> None:
    harness = Harness()
    harness.occupy(1)
    exchange, stream = _open(harness, mode)
    _headers(exchange, harness, end_of_stream=True, path=b"/v1/models")
    assert stream.take() == [HeadersReply(_REQUEST, _HERE)]
    assert harness.router.pool.total_in_flight == 1
    assert harness.recorder.waits == []
    exchange.closed(harness.now)
    assert harness.recorder.endings == []


@pytest.mark.parametrize("mode", BodyMode)
def test_an_upgrade_is_judged_by_its_headers(mode: BodyMode) -> None:
    harness = Harness()
    exchange, stream = _open(harness, mode)
    _headers(exchange, harness, (b"upgrade", b"websocket"))
    assert stream.take() == [HeadersReply(_REQUEST, _HERE)]
    assert harness.router.pool.total_in_flight == 1
    exchange.request_body(b"frame", False, harness.now)
    expected = BodyReply(_REQUEST, b"frame", False) if mode is _DUPLEX else BodyContinue(_REQUEST)
    assert stream.take() == [expected]


@pytest.mark.parametrize("end_of_stream", [True, False])
def test_a_hint_is_followed(end_of_stream: bool) -> None:
    exchange, stream = _open(harness := Harness([1, 2, 3]))
    subset = frozenset({destination(3)})
    _headers(exchange, harness, subset=subset, end_of_stream=end_of_stream)
    if not end_of_stream:
        exchange.request_body(b"{}", True, harness.now)
    assert stream.take()[0] == HeadersReply(_REQUEST, destination(3))


@pytest.mark.parametrize("end_of_stream", [True, False])
def test_a_hint_is_not_followed_where_none_shall_be(end_of_stream: bool) -> None:
    harness, stream = Harness([1]), RecordingStream()
    claims = ClaimsReader(ClaimsOptions(heeds_subset=False))
    exchange = Exchange(stream, lambda _: harness.router, harness.exchange_limits, claims)
    _headers(exchange, harness, subset=frozenset(), end_of_stream=end_of_stream)
    if not end_of_stream:
        exchange.request_body(b"{}", True, harness.now)
    assert stream.take()[0] == HeadersReply(_REQUEST, _HERE)


# What is made of a request


def test_the_request_is_what_headers_and_body_say() -> None:
    harness = Harness(objectives={"high": 9})
    exchange, _ = _open(harness)
    _headers(
        exchange,
        harness,
        (b"x-request-id", b"r-1"),
        (b"x-llm-d-inference-objective", b"high"),
        (b"x-llm-d-inference-fairness-id", b"tenant"),
        (b"x-llm-d-slo-ttft-ms", b"500"),
    )
    exchange.request_body(b'{"mod', False, harness.now)
    exchange.request_body(b'el":"llama","max_tokens":80}', True, harness.now)
    [(request, outcome, waited_s)] = harness.recorder.waits
    assert (outcome, waited_s) == (Outcome.DISPATCHED, 0.0)
    assert asdict(request) == asdict(
        Request(
            flow=FlowKey(9, "tenant"),
            id="r-1",
            model="llama",
            objective="high",
            body_bytes=33,
            prompt_tokens=8,
            max_output_tokens=80,
            slo_ttft_s=0.5,
        )
    )


def test_the_claims_are_read_as_told_and_their_headers_removed_if_so() -> None:
    source = FromHeader(name="X-Tenant", remove=True)
    claims = ClaimsReader(ClaimsOptions(fairness_id=(source,)))
    for mode in (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.BUFFERED):
        harness, stream = Harness(), RecordingStream()
        exchange = Exchange(stream, lambda _, h=harness: h.router, ExchangeLimits(), claims)
        exchange.protocol(mode, BodyMode.NONE)
        exchange.request_headers(headers((b"x-tenant", b"acme")), None, False, harness.now)
        exchange.request_body(b"{}", True, harness.now)
        reply = stream.take()[0]
        assert isinstance(reply, HeadersReply)
        assert reply.remove_headers == (b"x-tenant",)
        assert harness.recorder.waits[0][0].flow == FlowKey(0, "acme")


def test_the_pool_is_chosen_by_the_headers() -> None:
    harness, seen = Harness(), list[Headers]()
    stream = RecordingStream()

    def bind(found: Headers) -> object:
        seen.append(found)
        return harness.router

    exchange = Exchange(stream, bind, ExchangeLimits())  # type: ignore[arg-type]
    given = headers((b"a", b"b"))
    exchange.request_headers(given, None, True, harness.now)
    assert seen == [given]


def test_headers_that_come_twice_are_the_proxys_mistake() -> None:
    exchange, _ = _open(harness := Harness())
    _headers(exchange, harness)
    with pytest.raises(ProxyProtocolError, match="request headers came twice"):
        _headers(exchange, harness)
