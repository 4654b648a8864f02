"""Which endpoint sessions are bound to."""

import hashlib
from collections import OrderedDict
from typing import Final

__all__ = ["Bindings"]

_KEY_BYTES: Final = 16


class Bindings:
    """The names of endpoints by session.

    A binding lasts for ``ttl_s`` seconds after it was last used. Of more than ``most`` the one goes
    first that was not used for longest. Ids are chosen by clients, so their hashes are kept in
    their stead, which have a fixed length.
    """

    def __init__(self, *, ttl_s: float = 300.0, most: int = 100_000) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._bound: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many are kept; some of them may be over."""
        return len(self._bound)

    def get(self, session: str, now: float) -> str | None:
        """Return the endpoint that a session is bound to; None where it is to none."""
        found = self._bound.get(_key(session))
        return None if found is None or found[1] <= now else found[0]

    def bind(self, session: str, endpoint_name: str, now: float) -> None:
        """Bind a session to an endpoint from now on."""
        key = _key(session)
        self._bound[key] = (endpoint_name, now + self._ttl_s)
        self._bound.move_to_end(key)
        while self._bound and (len(self._bound) > self._most or self._first_end_s() <= now):
            self._bound.popitem(last=False)

    def take_over(self, others: "Bindings") -> None:
        """Continue with the bindings of others, which keep none."""
        self._bound, others._bound = others._bound, OrderedDict()

    def forget(self, session: str) -> None:
        """Bind a session to none."""
        self._bound.pop(_key(session), None)

    def _first_end_s(self) -> float:
        return next(iter(self._bound.values()))[1]


def _key(session: str) -> bytes:
    return hashlib.blake2b(session.encode(), digest_size=_KEY_BYTES).digest()
