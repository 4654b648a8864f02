"""An exchange whose request is ended for one that matters more."""

import msgspec
import pytest

from epp.core.exchange import Exchange
from epp.core.exchange_states import State
from epp.core.flow import FlowOptions
from epp.core.replies import BodyMode, HeadersReply, ImmediateReply

from .support import Harness, RecordingStream, headers

_MODES = [BodyMode.NONE, BodyMode.BUFFERED, BodyMode.STREAMED, BodyMode.FULL_DUPLEX_STREAMED]
_OBJECTIVE = b"x-llm-d-inference-objective"


def _evicting() -> Harness:
    objectives = {"batch": -10, "urgent": 10}
    return Harness(objectives=objectives, options=FlowOptions(eviction=True))


def _send(
    harness: Harness, objective: bytes, response_mode: BodyMode = BodyMode.NONE
) -> tuple[Exchange, RecordingStream]:
    exchange, stream = harness.exchange()
    exchange.protocol(BodyMode.FULL_DUPLEX_STREAMED, response_mode)
    exchange.request_headers(headers((_OBJECTIVE, objective)), None, False, harness.now)
    exchange.request_body(b"{}", True, harness.now)
    return exchange, stream


def _reply(stream: RecordingStream) -> ImmediateReply:
    """Return the one reply; the stream is left open, for the proxy to close."""
    (reply,) = stream.take()
    assert isinstance(reply, ImmediateReply)
    assert not stream.has_ended
    return reply


def test_its_client_is_told_and_the_place_is_free_when_the_proxy_has_let_go() -> None:
    harness = _evicting()
    batch, stream = _send(harness, b"batch")
    stream.take()
    urgent, other = _send(harness, b"urgent")
    reply = _reply(stream)
    assert reply.status == 429
    fields = dict(reply.headers)
    assert fields[b"x-llm-d-request-dropped-reason"] == b"evicted"
    assert int(fields[b"retry-after"]) >= 1
    assert msgspec.json.decode(reply.body)["error"]["code"] == "evicted"
    assert batch.state is State.ANSWERED
    assert urgent.state is State.WAITING
    harness.clock.advance(0.25)
    batch.closed(harness.now)
    (ending,) = harness.recorder.endings
    assert (ending.cause, ending.status, ending.duration_s) == ("evicted", 0, 0.25)
    assert isinstance(other.take()[0], HeadersReply)
    urgent.closed(harness.now)
    harness.assert_at_rest()


@pytest.mark.parametrize("mode", _MODES)
def test_a_response_that_has_begun_goes_on_no_more(mode: BodyMode) -> None:
    harness = _evicting()
    batch, stream = _send(harness, b"batch", mode)
    batch.response_headers(200, None, False, harness.now)
    stream.take()
    urgent, _ = _send(harness, b"urgent")
    assert _reply(stream).status == 429
    batch.response_body(b"more", False, harness.now)
    batch.response_body(b"", True, harness.now)
    batch.response_trailers(harness.now)
    assert not stream.take()
    batch.closed(harness.now)
    assert harness.recorder.endings[0].cause == "evicted"
    assert harness.recorder.endings[0].status == 200
    urgent.closed(harness.now)
    harness.assert_at_rest()


def test_a_response_that_comes_too_late_is_not_looked_at() -> None:
    harness = _evicting()
    batch, stream = _send(harness, b"batch")
    urgent, _ = _send(harness, b"urgent")
    stream.take()
    batch.response_headers(200, None, False, harness.now)
    assert not stream.take()
    batch.closed(harness.now)
    urgent.closed(harness.now)
    harness.assert_at_rest()


@pytest.mark.parametrize("is_complete", [True, False])
def test_it_is_told_once_and_not_after_its_end(is_complete: bool) -> None:
    """As a core that has just started may do, which does not know what the one before has said."""
    harness = _evicting()
    batch, stream = _send(harness, b"batch")
    if is_complete:
        batch.response_headers(200, None, True, harness.now)
    else:
        batch.evicted(1, harness.now)
    stream.take()
    batch.evicted(1, harness.now)
    assert not stream.take()
    batch.closed(harness.now)
    assert harness.recorder.endings[0].cause == ("complete" if is_complete else "evicted")
    harness.assert_at_rest()


def test_the_rest_of_a_request_body_is_dropped() -> None:
    harness = _evicting()
    exchange, stream = harness.exchange()
    exchange.protocol(BodyMode.STREAMED, BodyMode.NONE)
    exchange.request_headers(headers((_OBJECTIVE, b"batch")), None, False, harness.now)
    urgent, _ = _send(harness, b"urgent")
    stream.take()
    exchange.request_body(b"more", True, harness.now)
    exchange.request_trailers(harness.now)
    assert not stream.take()
    exchange.closed(harness.now)
    urgent.closed(harness.now)
    harness.assert_at_rest()
