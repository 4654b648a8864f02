"""Messages in orders that ext_proc does not allow: refused or ignored, never a crash or a leak."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from epp.core.exchange import Exchange, ExchangeLimits, ProxyProtocolError
from epp.core.flow import FlowLimits
from epp.core.replies import BodyMode, ImmediateReply

from .support import Harness, RecordingStream, destination, headers

_Message = Callable[[Exchange, float], None]

_BODIES = st.sampled_from([b"", b"x", b'{"model":"m"}', b"y" * 62_001])
_SUBSETS = st.sampled_from([None, None, frozenset[str](), frozenset({destination(1)})])
_MODES = st.sampled_from(BodyMode)
_SERVED = st.none() | st.integers(min_value=1, max_value=3)


def _protocol(request_mode: BodyMode, response_mode: BodyMode) -> _Message:
    return lambda exchange, now: exchange.protocol(request_mode, response_mode)


def _request_headers(
    pair: tuple[bytes, bytes], subset: frozenset[str] | None, end_of_stream: bool
) -> _Message:
    return lambda exchange, now: exchange.request_headers(headers(pair), subset, end_of_stream, now)


def _request_body(body: bytes, end_of_stream: bool) -> _Message:
    return lambda exchange, now: exchange.request_body(body, end_of_stream, now)


def _response_headers(status: int, served: int | None, end_of_stream: bool) -> _Message:
    served_by = None if served is None else destination(served)
    return lambda exchange, now: exchange.response_headers(status, served_by, end_of_stream, now)


def _response_body(body: bytes, end_of_stream: bool) -> _Message:
    return lambda exchange, now: exchange.response_body(body, end_of_stream, now)


_MESSAGES: st.SearchStrategy[_Message] = st.one_of(
    st.builds(_protocol, _MODES, _MODES),
    st.builds(
        _request_headers,
        st.sampled_from(
            [
                (b"x-llm-d-inference-objective", b"high"),
                (b"upgrade", b"websocket"),
                (b"x-gateway-request-ttl-ms", b"700"),
                (b"content-encoding", b"zstd"),
            ]
        ),
        _SUBSETS,
        st.booleans(),
    ),
    st.builds(_request_body, _BODIES, st.booleans()),
    st.just(Exchange.request_trailers),
    st.builds(
        _response_headers,
        st.sampled_from([0, 200, 503]),
        st.none() | st.integers(1, 3),
        st.booleans(),
    ),
    st.builds(_response_body, _BODIES, st.booleans()),
    st.just(Exchange.response_trailers),
)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(min_value=0, max_value=3), _MESSAGES),
        st.tuples(st.integers(min_value=0, max_value=3), _MESSAGES),
        st.tuples(st.integers(min_value=0, max_value=3), st.just("close")),
        st.tuples(st.sampled_from([0.0, 0.5, 5.0]), st.just("time")),
        st.tuples(st.sets(st.integers(1, 2)), st.just("members")),
    ),
    max_size=30,
)


@settings(max_examples=400)
@given(steps=_STEPS, goes_on_after_an_error=st.booleans(), modes=st.tuples(_MODES, _MODES))
def test_any_order_is_survived_and_leaves_nothing_behind(
    steps: list[tuple[object, object]],
    goes_on_after_an_error: bool,
    modes: tuple[BodyMode, BodyMode],
) -> None:
    harness = Harness(
        [1],
        objectives={"high": 1},
        limits=FlowLimits(max_requests=2, wait_limit_s=2.0, no_endpoint_wait_limit_s=1.0),
        exchange_limits=ExchangeLimits(max_body_bytes=100_000),
    )
    exchanges: dict[int, tuple[Exchange, RecordingStream]] = {}

    def close(number: int) -> None:
        exchange, stream = exchanges.pop(number)
        exchange.closed(harness.now)
        assert stream.has_ended == any(isinstance(one, ImmediateReply) for one in stream.replies)
        assert not exchange._request._pieces
        assert not exchange._request._replies

    for subject, step in steps:
        if step == "time":
            assert isinstance(subject, float)
            harness.clock.advance(subject)
        elif step == "members":
            assert isinstance(subject, set)
            harness.apply(subject)
        else:
            assert isinstance(subject, int)
            if subject not in exchanges:
                exchanges[subject] = harness.exchange()
                exchanges[subject][0].protocol(*modes)
            if step == "close":
                close(subject)
            else:
                assert callable(step)
                try:
                    step(exchanges[subject][0], harness.now)
                except ProxyProtocolError:
                    if not goes_on_after_an_error:
                        close(subject)
    for number in list(exchanges):
        close(number)
    harness.assert_at_rest()
