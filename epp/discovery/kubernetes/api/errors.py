"""What can go wrong between us and an API server, each as one line."""

from typing import Final

import msgspec

__all__ = [
    "AnswerTooLarge",
    "ApiError",
    "ApiUnreachable",
    "ClusterError",
    "StreamBroken",
    "StreamSilent",
    "error_of",
    "one_line",
]

_MAX_MESSAGE_CHARACTERS: Final = 500


class ClusterError(Exception):
    """The API server has not done what it was asked. The message is one line."""


class ApiUnreachable(ClusterError):
    """No answer, or only a part of it: no connection, a broken one, or nothing in time."""


class StreamBroken(ApiUnreachable):
    """A stream broke after it had begun."""


class StreamSilent(ApiUnreachable):
    """Nothing came on a stream for too long: there may be nobody at the other end any more."""


class AnswerTooLarge(ClusterError):
    """An answer, or a line of one, has more bytes than anything that could be meant."""


class ApiError(ClusterError):
    """The API server answered with an error: an HTTP ``status``, the ``reason`` and ``message`` of
    the Status object that it sent (else of the HTTP answer), and ``retry_after_s``, how long it
    wants to be left alone, where it said so. ``request`` is the method and the path."""

    def __init__(
        self,
        request: str,
        status: int,
        reason: str = "",
        message: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{request}: {status} {reason}: {message or '(no message)'}")
        self.request = request
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float | None = None


class _Status(msgspec.Struct):
    """An object of the kind ``Status``: how an API server tells of an error."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _Details | None = None


_decode = msgspec.json.Decoder(_Status).decode


def error_of(
    request: str,
    body: bytes | msgspec.Raw,
    *,
    status: int = 0,
    phrase: str = "",
    retry_after: str | None = None,
) -> ApiError:
    """Return the error that an answer tells of.

    ``body`` is a Status object, or whatever else stood in the way of one says; ``status``,
    ``phrase`` and ``retry_after`` (the header) are of the HTTP answer, if it was one.
    """
    try:
        told = _decode(body)
    except msgspec.DecodeError:
        told = _Status(message=bytes(body).decode(errors="replace"))
    retry_after_s = told.details.retry_after_seconds if told.details is not None else None
    if retry_after is not None and retry_after.isdecimal():
        retry_after_s = float(retry_after)
    return ApiError(
        request,
        status or told.code,
        told.reason or phrase,
        one_line(told.message),
        retry_after_s,
    )


def one_line(text: object) -> str:
    """Return a text from elsewhere as one line of bounded length."""
    line = " ".join(str(text).split())
    if len(line) <= _MAX_MESSAGE_CHARACTERS:
        return line
    return line[: _MAX_MESSAGE_CHARACTERS - 1] + "…"
