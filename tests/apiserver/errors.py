"""Refusals as the API server words them: a Status object with code, reason and details."""

from typing import Any

from .kinds import Kind

__all__ = [
    "Refusal",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "invalid",
    "not_found",
    "unauthorized",
]

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Refusal(Exception):
    """An answer of 400 or above. ``continuation`` is a token for a list to go on with."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str | None = None,
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
        continuation: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = _REASONS.get(code, "") if reason is None else reason
        self.details = dict(details or {})
        self.retry_after_s = retry_after_s
        self.continuation = continuation
        if retry_after_s is not None:
            self.details["retryAfterSeconds"] = retry_after_s

    def status(self) -> dict[str, Any]:
        """Return the Status object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self.continuation} if self.continuation else {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        return {**status, "code": self.code}


def _details(kind: Kind, name: str) -> dict[str, Any]:
    named = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in named.items() if value}


def bad_request(message: str) -> Refusal:
    return Refusal(400, message)


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized")


def not_found(kind: Kind, name: str) -> Refusal:
    return Refusal(404, f'{kind.qualified} "{name}" not found', details=_details(kind, name))


def already_exists(kind: Kind, name: str) -> Refusal:
    message = f'{kind.qualified} "{name}" already exists'
    return Refusal(409, message, reason="AlreadyExists", details=_details(kind, name))


def conflict(kind: Kind, name: str, why: str | None = None) -> Refusal:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and "
        "try again"
    )
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return Refusal(409, message, details=_details(kind, name))


def invalid(kind: Kind | str, name: str, field: str, problem: str, cause: str = "") -> Refusal:
    """Return a refusal of an object's content, ``problem`` being like ``Required value``."""
    if isinstance(kind, str):
        group, what = "meta.k8s.io", kind
    else:
        group, what = kind.group, kind.kind
    causes = [{"reason": cause or "FieldValueInvalid", "message": problem, "field": field}]
    details = {"name": name, "group": group, "kind": what, "causes": causes}
    subject = f"{what}.{group}" if group else what
    message = f'{subject} "{name}" is invalid: {field}: {problem}'
    return Refusal(422, message, details={key: value for key, value in details.items() if value})


def expired(version: int, oldest: int) -> Refusal:
    return Refusal(410, f"too old resource version: {version} ({oldest})")
