"""Tokens by which clients name the endpoint that served them, without knowing it."""

import base64
import hashlib
import hmac
from typing import Final

__all__ = ["SessionTokens"]

_TOKEN_BYTES: Final = 16
_LEAST_KEY_BYTES: Final = 16


class SessionTokens:
    """The tokens that go into the response header ``header`` and come back in requests.

    A token is the first 16 bytes of HMAC-SHA256 of the endpoint's name under ``key``, in URL-safe
    base64 without padding: it tells nothing of the endpoint, and without the key nobody can make
    one. Whoever has the same key, as replicas do that share it, makes the same tokens.

    Raises ValueError for a key of less than 16 bytes.
    """

    def __init__(self, header: str, key: bytes) -> None:
        if len(key) < _LEAST_KEY_BYTES:
            raise ValueError(
                f"found a key of {len(key)} bytes; expected at least {_LEAST_KEY_BYTES}"
            )
        self.header = header
        self._key = key

    def token(self, endpoint_name: str) -> str:
        """Return the token of the endpoint with this name."""
        digest = hmac.digest(self._key, endpoint_name.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest[:_TOKEN_BYTES]).rstrip(b"=").decode()
