"""What bounds one exchange, and the error of a proxy that is out of bounds."""

from typing import Final

import msgspec

__all__ = ["ExchangeLimits", "ProxyProtocolError", "proxy_timeout_s"]

_TIMEOUT_MARGIN_S: Final = 5.0
_MAX_TIMEOUT_S: Final = 3600.0


class ProxyProtocolError(Exception):
    """The proxy sent what ext_proc does not allow at this point; its stream is to be ended."""


class ExchangeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one exchange: the largest request body, and the largest one that is looked into."""

    max_body_bytes: int = 64 << 20
    max_inspected_bytes: int = 32 << 20


def proxy_timeout_s(deadline_s: float | None, now: float) -> float:
    """Return how long the proxy must wait, in seconds, for an answer that comes by a deadline at
    the latest, or whenever: ext_proc allows up to an hour."""
    if deadline_s is None:
        return _MAX_TIMEOUT_S
    return min(_MAX_TIMEOUT_S, deadline_s - now + _TIMEOUT_MARGIN_S)
