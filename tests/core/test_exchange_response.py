"""The response phase of an exchange, and its ends: what is given back, and what is told of it."""

import pytest

from epp.core.exchange import Exchange, ProxyProtocolError
from epp.core.exchange_states import State
from epp.core.replies import (
    BodyContinue,
    BodyMode,
    BodyReply,
    HeadersReply,
    Phase,
    TrailersReply,
)
from epp.core.request import Outcome

from .support import Harness, RecordingStream, destination, headers

_RESPONSE = Phase.RESPONSE
_DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
_WAITED_0 = ((b"x-queue-wait-ms", b"0"),)


def _send(
    harness: Harness, response_mode: BodyMode = BodyMode.NONE, body: bytes = b"{}"
) -> tuple[Exchange, RecordingStream]:
    """Open an exchange and send its whole request."""
    exchange, stream = harness.exchange()
    exchange.protocol(_DUPLEX, response_mode)
    exchange.request_headers(headers(), None, not body, harness.now)
    if body:
        exchange.request_body(body, True, harness.now)
    return exchange, stream


def _routed(
    harness: Harness, response_mode: BodyMode = BodyMode.NONE, body: bytes = b"{}"
) -> tuple[Exchange, RecordingStream]:
    exchange, stream = _send(harness, response_mode, body)
    assert exchange.state is State.ROUTED
    stream.take()
    return exchange, stream


def test_a_response_tells_how_long_its_request_waited() -> None:
    harness = Harness()
    lease = harness.occupy(1)
    exchange, stream = _send(harness)
    harness.clock.advance(1.2346)
    harness.give_back(lease)
    stream.take()
    exchange.response_headers(200, None, False, harness.now)
    assert stream.take() == [HeadersReply(_RESPONSE, None, ((b"x-queue-wait-ms", b"1235"),))]


def test_a_response_to_what_did_not_queue_tells_nothing() -> None:
    exchange, stream = _routed(harness := Harness(), body=b"")
    exchange.response_headers(200, None, True, harness.now)
    assert stream.take() == [HeadersReply(_RESPONSE)]
    assert exchange.state is State.COMPLETE


def test_duplex_gives_every_byte_back() -> None:
    exchange, stream = _routed(harness := Harness(), _DUPLEX)
    exchange.response_headers(200, None, False, harness.now)
    exchange.response_body(b"a" * 62_001, False, harness.now)
    exchange.response_body(b"b", True, harness.now)
    exchange.response_body(b"b", True, harness.now)
    assert stream.take() == [
        HeadersReply(_RESPONSE, None, _WAITED_0),
        BodyReply(_RESPONSE, b"a" * 62_000, False),
        BodyReply(_RESPONSE, b"a", False),
        BodyReply(_RESPONSE, b"b", True),
    ]
    (ending,) = harness.recorder.endings
    assert (ending.status, ending.cause, ending.response_bytes) == (200, "complete", 62_002)
    harness.assert_at_rest()


@pytest.mark.parametrize("mode", [_DUPLEX, BodyMode.STREAMED, BodyMode.BUFFERED])
def test_an_ending_tells_first_byte_and_usage_where_the_body_passes(mode: BodyMode) -> None:
    exchange, _ = _routed(harness := Harness(), mode)
    harness.clock.advance(1.0)
    exchange.response_headers(200, None, False, harness.now)
    harness.clock.advance(1.0)
    exchange.response_body(b'{"choices":[],"usage":{"prompt_tok', False, harness.now)
    harness.clock.advance(1.0)
    exchange.response_body(b'ens":7,"completion_tokens":90}}', True, harness.now)
    (ending,) = harness.recorder.endings
    assert (ending.first_byte_s, ending.duration_s) == (2.0, 3.0)
    assert (ending.prompt_tokens, ending.output_tokens) == (7, 90)


@pytest.mark.parametrize("has_body", [True, False])
def test_where_no_body_is_seen_the_headers_are_the_first_byte(has_body: bool) -> None:
    exchange, _ = _routed(harness := Harness(), BodyMode.NONE if has_body else _DUPLEX)
    harness.clock.advance(1.0)
    exchange.response_headers(200, None, not has_body, harness.now)
    harness.clock.advance(1.0)
    exchange.closed(harness.now)
    (ending,) = harness.recorder.endings
    assert ending.first_byte_s == 1.0
    assert (ending.prompt_tokens, ending.output_tokens) == (None, None)


def test_the_first_byte_is_counted_from_the_dispatch() -> None:
    harness = Harness()
    lease = harness.occupy(1)
    exchange, _ = _send(harness)
    harness.clock.advance(5.0)
    harness.give_back(lease)
    harness.clock.advance(1.0)
    exchange.response_headers(200, None, True, harness.now)
    (ending,) = harness.recorder.endings
    assert (ending.first_byte_s, ending.duration_s) == (1.0, 6.0)


def test_a_stream_that_is_cut_tells_what_had_come() -> None:
    exchange, _ = _routed(harness := Harness(), _DUPLEX)
    exchange.response_headers(200, None, False, harness.now)
    for _ in range(40):
        exchange.response_body(b'data: {"choices":[{"text":"word"}]}\n\n', False, harness.now)
    exchange.closed(harness.now)
    (ending,) = harness.recorder.endings
    assert (ending.cause, ending.prompt_tokens, ending.output_tokens) == ("aborted", None, 40)
    harness.assert_at_rest()


@pytest.mark.parametrize(
    "mode", [BodyMode.STREAMED, BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL, BodyMode.GRPC]
)
def test_other_modes_are_told_to_go_on(mode: BodyMode) -> None:
    exchange, stream = _routed(harness := Harness(), mode)
    exchange.response_headers(200, None, False, harness.now)
    exchange.response_body(b"a", False, harness.now)
    exchange.response_trailers(harness.now)
    assert stream.take()[1:] == [BodyContinue(_RESPONSE), TrailersReply(_RESPONSE)]
    assert exchange.state is State.COMPLETE
    assert harness.recorder.endings[0].response_bytes == 1


def test_a_response_without_headers() -> None:
    exchange, stream = _routed(harness := Harness(), _DUPLEX)
    exchange.response_body(b"a", True, harness.now)
    assert stream.take() == [BodyReply(_RESPONSE, b"a", True)]
    assert harness.recorder.endings[0].status == 0


def test_a_response_of_trailers_alone() -> None:
    exchange, stream = _routed(harness := Harness())
    exchange.response_trailers(harness.now)
    assert (stream.take(), exchange.state) == ([TrailersReply(_RESPONSE)], State.COMPLETE)


def test_trailers_after_the_end_are_answered_but_end_nothing() -> None:
    exchange, stream = _routed(harness := Harness(), _DUPLEX)
    exchange.response_headers(200, None, True, harness.now)
    exchange.response_trailers(harness.now)
    assert stream.take()[1:] == [TrailersReply(_RESPONSE)]
    exchange.response_headers(200, None, True, harness.now)
    assert stream.take() == []


def test_headers_that_come_twice_are_the_proxys_mistake() -> None:
    exchange, _ = _routed(harness := Harness())
    exchange.response_headers(200, None, False, harness.now)
    with pytest.raises(ProxyProtocolError, match="response headers came twice"):
        exchange.response_headers(200, None, False, harness.now)


def test_an_early_response_does_not_stop_the_request() -> None:
    harness = Harness()
    exchange, stream = harness.exchange()
    exchange.protocol(BodyMode.STREAMED, BodyMode.STREAMED)
    exchange.request_headers(headers(), None, False, harness.now)
    exchange.response_headers(200, None, False, harness.now)
    exchange.response_body(b"done", True, harness.now)
    stream.take()
    exchange.request_body(b"late", True, harness.now)
    assert stream.take() == [BodyContinue(Phase.REQUEST)]


# Who really served


@pytest.mark.parametrize("served", [1, 2])
def test_the_lease_is_where_the_request_was_served(served: int) -> None:
    harness = Harness([1, 2])
    other = harness.occupy(3 - served)
    exchange, _ = _routed(harness)
    harness.give_back(other)
    exchange.response_headers(200, destination(3 - served), False, harness.now)
    assert [(member.destination, count) for member, count, _ in harness.router.pool if count] == [
        (destination(3 - served), 1)
    ]
    exchange.closed(harness.now)
    harness.assert_at_rest()


@pytest.mark.parametrize("served_by", [None, "192.0.2.1:80", "nonsense", ""])
def test_a_stranger_who_served_moves_nothing(served_by: str | None) -> None:
    exchange, _ = _routed(harness := Harness([1, 2]))
    before = [count for _, count, _ in harness.router.pool]
    exchange.response_headers(200, served_by, False, harness.now)
    assert [count for _, count, _ in harness.router.pool] == before


def test_a_fail_over_lets_the_next_go_where_room_was_made() -> None:
    harness = Harness([1, 2])
    lease = harness.occupy(2)
    exchange, _ = _routed(harness)
    _, waiting = _send(harness)
    assert waiting.replies == []
    exchange.response_headers(200, destination(2), False, harness.now)
    assert waiting.take()[0] == HeadersReply(Phase.REQUEST, destination(1))
    lease.release()


# Ends


@pytest.mark.parametrize("mode", BodyMode)
def test_a_stream_that_closes_in_the_response_frees_its_place(mode: BodyMode) -> None:
    exchange, _ = _routed(harness := Harness(), mode)
    harness.clock.advance(0.5)
    exchange.response_headers(200, None, False, harness.now)
    _, waiting = _send(harness)
    harness.clock.advance(1.5)
    exchange.closed(harness.now)
    (ending,) = harness.recorder.endings
    assert ending.cause == ("complete" if mode is BodyMode.NONE else "aborted")
    assert ending.duration_s == 2.0
    assert ending.response_bytes is None
    assert len(waiting.take()) == 2


def test_a_stream_that_closes_before_the_response_was_aborted() -> None:
    exchange, _ = _routed(harness := Harness())
    exchange.closed(harness.now)
    assert [(one.status, one.cause) for one in harness.recorder.endings] == [(0, "aborted")]
    harness.assert_at_rest()


def test_a_stream_that_closes_while_its_request_waits_leaves_the_queue() -> None:
    harness = Harness()
    lease = harness.occupy(1)
    exchange, stream = _send(harness)
    exchange.closed(harness.now)
    assert stream.take() == []
    assert harness.recorder.outcomes == {Outcome.CANCELLED: 1}
    lease.release()
    harness.assert_at_rest()


def test_a_stream_that_closes_early_leaves_nothing() -> None:
    harness = Harness()
    for part in (None, b"half"):
        exchange, stream = harness.exchange()
        if part is not None:
            exchange.request_headers(headers(), None, False, harness.now)
            exchange.request_body(part, False, harness.now)
        exchange.closed(harness.now)
        assert (exchange.state, stream.take(), exchange._request._pieces) == (State.CLOSED, [], [])
    harness.assert_at_rest()
    assert harness.recorder.waits == []


def test_a_stream_closes_once() -> None:
    exchange, _ = _routed(harness := Harness())
    exchange.closed(harness.now)
    with pytest.raises(AssertionError, match="cannot take"):
        exchange.closed(harness.now)


def test_the_proxys_own_answer_ends_the_wait() -> None:
    harness = Harness()
    lease = harness.occupy(1)
    exchange, stream = _send(harness)
    exchange.response_headers(504, None, False, harness.now)
    assert stream.take() == [HeadersReply(_RESPONSE)]
    assert harness.recorder.outcomes == {Outcome.CANCELLED: 1}
    harness.give_back(lease)
    assert stream.take() == []
    exchange.closed(harness.now)
    harness.assert_at_rest()


def test_the_proxys_own_answer_before_the_body_has_come() -> None:
    harness = Harness()
    exchange, stream = harness.exchange()
    exchange.request_headers(headers(), None, False, harness.now)
    exchange.request_body(b"half", False, harness.now)
    exchange.response_headers(408, None, True, harness.now)
    assert stream.take() == [HeadersReply(_RESPONSE)]
    assert (exchange.state, exchange._request._pieces) == (State.COMPLETE, [])


def test_a_response_without_a_request() -> None:
    harness = Harness()
    exchange, stream = harness.exchange()
    exchange.protocol(BodyMode.NONE, BodyMode.NONE)
    exchange.response_headers(200, destination(1), False, harness.now)
    assert stream.take() == [HeadersReply(_RESPONSE)]
    exchange.closed(harness.now)
    assert harness.recorder.endings == []
