"""What a client sees: one row for each way in which a request is refused, in both dialects."""

import msgspec
import pytest

from epp.core.answers import error_reply, refusal_reply
from epp.core.request import REFUSALS, Cut, Outcome

_SEEN = {
    Outcome.REJECTED_CAPACITY: (429, "rejected-saturated"),
    Outcome.REJECTED_WAIT: (429, "rejected-saturated"),
    Outcome.DISPLACED: (429, "rejected-saturated"),
    Outcome.EXPIRED: (429, "rejected-ttl-expired"),
    Outcome.REJECTED_NO_ENDPOINTS: (503, "rejected-no-endpoints"),
    Outcome.EXPIRED_NO_ENDPOINTS: (503, "rejected-no-endpoints"),
    Outcome.SHUTTING_DOWN: (503, "rejected-shutting-down"),
    Outcome.MODEL_NOT_FOUND: (404, "rejected-model-not-found"),
    Outcome.POOL_NOT_FOUND: (404, "rejected-pool-not-found"),
}
_OPENAI_TYPES = {
    404: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
_ANTHROPIC_TYPES = {404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error"}

_OPENAI_PATHS = [
    b"/v1/chat/completions",
    b"/v1/completions?stream=1",
    b"/v1/chat/completions?next=/v1/messages",
    b"",
    b"\xff\xfe",
]
_ANTHROPIC_PATHS = [
    b"/v1/messages",
    b"/v1/messages?beta=true",
    b"/anthropic/v1/messages/count_tokens",
]


def test_every_outcome_but_two_is_a_refusal() -> None:
    assert set(REFUSALS) == {*_SEEN, *Cut}
    assert set(Outcome) - set(REFUSALS) == {Outcome.DISPATCHED, Outcome.CANCELLED}


@pytest.mark.parametrize("outcome", _SEEN, ids=lambda outcome: outcome.value)
@pytest.mark.parametrize("path", _OPENAI_PATHS + _ANTHROPIC_PATHS)
def test_status_and_headers(outcome: Outcome, path: bytes) -> None:
    reply = refusal_reply(outcome, 17, path)
    status, dropped_reason = _SEEN[outcome]
    assert reply.status == status
    advice = () if status == 404 else ((b"retry-after", b"17"),)
    assert reply.headers == (
        (b"content-type", b"application/json"),
        *advice,
        (b"x-llm-d-request-dropped-reason", dropped_reason.encode()),
    )


@pytest.mark.parametrize("outcome", _SEEN, ids=lambda outcome: outcome.value)
@pytest.mark.parametrize("path", _OPENAI_PATHS)
def test_openai_error_body(outcome: Outcome, path: bytes) -> None:
    reply = refusal_reply(outcome, 1, path)
    message = REFUSALS[outcome].message
    assert message.endswith(".")
    assert msgspec.json.decode(reply.body) == {
        "error": {
            "message": message,
            "type": _OPENAI_TYPES[reply.status],
            "code": outcome.value,
            "param": None,
        }
    }


@pytest.mark.parametrize("outcome", _SEEN, ids=lambda outcome: outcome.value)
@pytest.mark.parametrize("path", _ANTHROPIC_PATHS)
def test_anthropic_error_body(outcome: Outcome, path: bytes) -> None:
    reply = refusal_reply(outcome, 1, path)
    assert msgspec.json.decode(reply.body) == {
        "type": "error",
        "error": {"type": _ANTHROPIC_TYPES[reply.status], "message": REFUSALS[outcome].message},
    }


@pytest.mark.parametrize(
    ("status", "path", "kind"),
    [
        (400, b"/v1/completions", "invalid_request_error"),
        (413, b"/v1/completions", "invalid_request_error"),
        (400, b"/v1/messages", "invalid_request_error"),
        (413, b"/v1/messages", "request_too_large"),
    ],
)
def test_errors_of_the_client(status: int, path: bytes, kind: str) -> None:
    reply = error_reply(status, "code", "What is wrong.", path)
    assert reply.status == status
    assert reply.headers == ((b"content-type", b"application/json"),)
    assert msgspec.json.decode(reply.body)["error"]["type"] == kind
