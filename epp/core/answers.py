"""What the EPP itself answers a client: JSON error bodies in the dialect of the path."""

from typing import Final

import msgspec

from epp.core.headers import DROPPED_REASON
from epp.core.replies import Header, ImmediateReply
from epp.core.request import REFUSALS, Cut, Outcome

__all__ = ["error_reply", "refusal_reply"]

_NOT_FOUND: Final = 404
_OPENAI_TYPES: Final = {
    400: "invalid_request_error",
    404: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_JSON: Final[Header] = (b"content-type", b"application/json")


def refusal_reply(outcome: Outcome | Cut, retry_after_s: int, path: bytes) -> ImmediateReply:
    """Return the answer for a request that was not dispatched, or that the EPP ends.

    What was not found is not there for a client that tries again either: then ``retry_after_s`` is
    not told.
    """
    refusal = REFUSALS[outcome]
    advice: tuple[Header, ...] = ()
    if refusal.status != _NOT_FOUND:
        advice = ((b"retry-after", b"%d" % retry_after_s),)
    return error_reply(
        refusal.status,
        outcome.value,
        refusal.message,
        path,
        *advice,
        (DROPPED_REASON, refusal.dropped_reason.encode()),
    )


def error_reply(
    status: int, code: str, message: str, path: bytes, *headers: Header
) -> ImmediateReply:
    """Return an error answer: OpenAI's error object, or Anthropic's on its paths."""
    document: dict[str, object]
    if path.partition(b"?")[0].endswith((b"/messages", b"/messages/count_tokens")):
        kind = _ANTHROPIC_TYPES[status]
        document = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        kind = _OPENAI_TYPES[status]
        document = {"error": {"message": message, "type": kind, "code": code, "param": None}}
    return ImmediateReply(status, (_JSON, *headers), msgspec.json.encode(document))
