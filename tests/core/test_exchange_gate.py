"""An exchange at a gate that takes its time, as one in another process does."""

from epp.core.claims import RequestClaims
from epp.core.exchange import Exchange, ExchangeLimits
from epp.core.exchange_states import State
from epp.core.gate import Admission, Ending, Gate, GateWaiter, Route
from epp.core.pool import EngineLoad
from epp.core.replies import (
    BodyContinue,
    BodyMode,
    BodyReply,
    ExtendTimeout,
    HeadersReply,
    ImmediateReply,
    Phase,
)
from epp.core.request import Outcome

from .support import RecordingStream, headers

_HERE = "10.0.0.1:8000"
_THERE = "10.0.0.2:8000"


class _Admission:
    def __init__(self, deadline_s: float | None) -> None:
        self.is_waiting = True
        self.deadline_s = deadline_s


class _SlowGate:
    """Answers when the test does, and keeps what it is told."""

    def __init__(self) -> None:
        self.admission = _Admission(1010.0)
        self.told: list[object] = []
        self.tokens: list[int] = []
        self.loads: list[EngineLoad] = []

    def admit(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> Admission:
        self.told.append(claims.body_bytes)
        return self.admission

    def pass_by(self, claims: RequestClaims, waiter: GateWaiter, now: float) -> Admission | None:
        self.told.append(claims.subset)
        return self.admission

    def withdraw(self, admission: Admission, now: float) -> None:
        assert admission is self.admission
        self.told.append("withdrawn")

    def served_by(self, admission: Admission, destination: str, now: float) -> None:
        assert admission is self.admission
        self.told.append(destination)

    def reported(self, admission: Admission, load: EngineLoad, now: float) -> None:
        assert admission is self.admission
        self.loads.append(load)

    def rewrite_skipped(self, reason: str) -> None:
        raise AssertionError("nothing is rewritten")

    def progress(self, admission: Admission, output_tokens: int, now: float) -> None:
        assert admission is self.admission
        assert not any(isinstance(word, Ending) for word in self.told), "progress after the end"
        self.tokens.append(output_tokens)

    def finish(self, admission: Admission, ending: Ending, now: float) -> None:
        assert admission is self.admission
        self.told.append(ending)

    def refused_early(self, reason: str) -> None:
        self.told.append(reason)


def _open(
    *,
    has_body: bool,
    mode: BodyMode = BodyMode.FULL_DUPLEX_STREAMED,
    response_mode: BodyMode = BodyMode.NONE,
) -> tuple[Exchange, RecordingStream, _SlowGate]:
    """Open an exchange and send its whole request."""
    gate, stream = _SlowGate(), RecordingStream()
    bound: Gate = gate
    exchange = Exchange(stream, lambda headers: bound, ExchangeLimits(max_body_bytes=10))
    exchange.protocol(mode, response_mode)
    exchange.request_headers(headers(), frozenset({_HERE}), not has_body, 1000.0)
    if has_body:
        exchange.request_body(b"{}", True, 1000.0)
    assert exchange.state is State.WAITING
    return exchange, stream, gate


def test_a_dispatch_that_comes_later() -> None:
    exchange, stream, gate = _open(has_body=True)
    assert stream.take() == []
    gate.admission.is_waiting = False
    exchange.dispatched(Route(_HERE), 0.5, 1000.5)
    assert stream.take() == [
        HeadersReply(Phase.REQUEST, _HERE),
        BodyReply(Phase.REQUEST, b"{}", True),
    ]
    exchange.response_headers(200, _THERE, True, 1003.0)
    exchange.closed(1004.0)
    ending = Ending(
        status=200, cause="complete", duration_s=3.0, response_bytes=None, first_byte_s=2.5
    )
    assert gate.told == [2, _THERE, ending]


def test_a_proxy_with_a_clock_is_asked_to_wait_longer() -> None:
    exchange, stream, gate = _open(has_body=True, mode=BodyMode.STREAMED)
    assert stream.take() == [ExtendTimeout(15.0)]
    gate.admission.is_waiting = False
    exchange.dispatched(Route(_HERE), 0.5, 1000.5)
    assert stream.take() == [HeadersReply(Phase.REQUEST, _HERE), BodyContinue(Phase.REQUEST)]


def test_a_pass_that_comes_later_holds_nothing() -> None:
    exchange, stream, gate = _open(has_body=False)
    gate.admission.is_waiting = False
    exchange.passed(_HERE, 1000.5)
    assert stream.take() == [HeadersReply(Phase.REQUEST, _HERE)]
    exchange.response_headers(200, _THERE, True, 1001.0)
    exchange.closed(1001.0)
    assert gate.told == [frozenset({_HERE})]


def test_a_pass_that_comes_at_once_holds_nothing() -> None:
    class EagerGate(_SlowGate):
        def pass_by(
            self, claims: RequestClaims, waiter: GateWaiter, now: float
        ) -> Admission | None:
            self.admission.is_waiting = False
            waiter.passed(_HERE, now)
            return self.admission

    gate, stream = EagerGate(), RecordingStream()
    exchange = Exchange(stream, lambda headers: gate, ExchangeLimits())
    exchange.request_headers(headers(), None, True, 1000.0)
    assert stream.take() == [HeadersReply(Phase.REQUEST, _HERE)]
    exchange.response_headers(200, _THERE, True, 1001.0)
    exchange.closed(1001.0)
    assert gate.told == []


def test_what_the_engine_tells_with_its_response_is_passed_on() -> None:
    report = b'JSON {"named_metrics":{"kv_cache_usage_perc":0.5,"num_requests_waiting":3}}'
    for load_report, told in ((report, [(3.0, 0.5)]), (b"BIN ??", []), (b"", [])):
        exchange, _, gate = _open(has_body=True)
        gate.admission.is_waiting = False
        exchange.dispatched(Route(_HERE), 0.0, 1000.0)
        exchange.response_headers(200, _THERE, True, 1001.0, load_report=load_report)
        assert [(load.waiting, load.kv_ratio) for load in gate.loads] == told
    exchange, _, gate = _open(has_body=False)
    exchange.passed(_HERE, 1000.5)
    exchange.response_headers(200, _THERE, True, 1001.0, load_report=report)
    assert gate.loads == []


def _event(text: bytes) -> bytes:
    return b'data: {"choices":[{"text":"%b"}]}\n\n' % text


def test_the_gate_hears_of_a_long_stream_each_64_events_and_not_after_its_end() -> None:
    duplex = BodyMode.FULL_DUPLEX_STREAMED
    exchange, _, gate = _open(has_body=True, response_mode=duplex)
    gate.admission.is_waiting = False
    exchange.dispatched(Route(_HERE), 0.0, 1000.0)
    exchange.response_headers(200, None, False, 1000.0)
    for _ in range(320):
        exchange.response_body(_event(b"word"), False, 1001.0)
    assert gate.tokens == sorted(gate.tokens)
    assert 4 <= len(gate.tokens) <= 5
    assert 256 <= gate.tokens[-1] <= 320
    told = len(gate.tokens)
    exchange.response_body(_event(b"word") * 100, True, 1002.0)
    exchange.response_body(_event(b"late") * 100, True, 1002.0)
    exchange.closed(1003.0)
    assert len(gate.tokens) == told
    ending = gate.told[-1]
    assert isinstance(ending, Ending)
    assert ending.output_tokens == 420


def test_the_gate_hears_nothing_of_the_response_to_what_it_let_pass() -> None:
    exchange, _, gate = _open(has_body=False, response_mode=BodyMode.STREAMED)
    gate.admission.is_waiting = False
    exchange.passed(_HERE, 1000.5)
    exchange.response_headers(200, None, False, 1001.0)
    exchange.response_body(_event(b"word") * 200, False, 1001.0)
    exchange.closed(1001.0)
    assert gate.tokens == []
    assert gate.told == [frozenset({_HERE})]


def test_a_refusal_that_comes_later_is_the_end() -> None:
    for has_body in (True, False):
        exchange, stream, gate = _open(has_body=has_body)
        gate.admission.is_waiting = False
        exchange.refused(Outcome.REJECTED_NO_ENDPOINTS, 3, 1000.5)
        (reply,) = stream.take()
        assert isinstance(reply, ImmediateReply)
        exchange.closed(1001.0)
        assert len(gate.told) == 1


def test_whoever_leaves_while_the_gate_is_silent_withdraws() -> None:
    for has_body in (True, False):
        exchange, stream, gate = _open(has_body=has_body)
        exchange.closed(1000.1)
        assert gate.told[1:] == ["withdrawn"]
        exchange, stream, gate = _open(has_body=has_body)
        exchange.response_headers(504, _THERE, True, 1000.1)
        exchange.closed(1000.2)
        assert gate.told[1:] == ["withdrawn"]
        assert stream.take() == [HeadersReply(Phase.RESPONSE)]
