"""What an incoming request says of itself, before anything is made of it."""

import math

import msgspec

from epp.core.headers import FAIRNESS_ID, OBJECTIVE, WAIT_LIMIT, Headers
from epp.core.parsing import inspect_body

__all__ = ["RequestClaims", "read_claims"]


class RequestClaims(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The claims of headers, gateway's hint and body; empty or None where there is none.

    ``wait_limit_s`` is in seconds; ``subset`` holds the ``ip:port`` that may be picked. Array-like,
    since claims travel from worker processes to the core.
    """

    id: str = ""
    objective: str = ""
    fairness_id: str = ""
    wait_limit_s: float | None = None
    subset: frozenset[str] | None = None
    model: str = ""
    body_bytes: int = 0


def read_claims(
    headers: Headers, body: bytes, subset: frozenset[str] | None, *, max_inspected_bytes: int
) -> RequestClaims:
    """Read the claims; what is missing or malformed is left at its default."""
    facts = inspect_body(
        body,
        headers.get(b"content-encoding") or b"",
        max_inspected_bytes=max_inspected_bytes,
    )
    return RequestClaims(
        id=_text(headers.get(b"x-request-id")),
        objective=_text(headers.first_of(OBJECTIVE)),
        fairness_id=_text(headers.first_of(FAIRNESS_ID)),
        wait_limit_s=_wait_limit_s(headers.get(WAIT_LIMIT)),
        subset=subset,
        model=facts.model,
        body_bytes=len(body),
    )


def _wait_limit_s(milliseconds: bytes | None) -> float | None:
    if not milliseconds:
        return None
    try:
        limit_s = float(milliseconds) / 1000.0
    except ValueError:
        return None
    return limit_s if limit_s > 0 and math.isfinite(limit_s) else None


def _text(value: bytes | None) -> str:
    """Decode a value for use as a name; what is no UTF-8 becomes a replacement character."""
    return value.decode("utf-8", "replace") if value else ""
