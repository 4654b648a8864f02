"""A lease: the one owner of the capacity that a dispatched request uses at an endpoint."""

from typing import TYPE_CHECKING, Any

from epp.core.resources import Endpoint

if TYPE_CHECKING:
    from epp.core.pool.pool import Pool

__all__ = ["Lease"]


class Lease:
    """Capacity for one request at one endpoint, from dispatch until the response has ended.

    Made by :meth:`epp.core.pool.Pool.lease`. ``slot`` is below 0 once it is released. It
    is released exactly once; a second release would free capacity that somebody else holds, so it
    is an error and not silently ignored.

    ``fallbacks`` are the ``ip:port`` that the proxy may turn to by itself; the lease is then moved.
    ``response_headers`` are to be added to those of the response.
    ``notes`` is for those who must remember something of the request, each under a key of its own.
    """

    __slots__ = ("_notes", "_pool", "endpoint", "fallbacks", "response_headers", "slot", "tokens")

    def __init__(self, pool: "Pool", slot: int, endpoint: Endpoint, tokens: int = 0):
        self._pool = pool
        self.slot = slot
        self.endpoint = endpoint
        self.tokens = tokens
        self.fallbacks: tuple[str, ...] = ()
        self.response_headers: tuple[tuple[bytes, bytes], ...] = ()
        self._notes: dict[object, Any] | None = None

    @property
    def notes(self) -> dict[object, Any]:
        """What is remembered of the request."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    @property
    def destination(self) -> str:
        """The endpoint as the proxy is told: its ``ip:port``, then the fallbacks, with commas."""
        endpoint = self.endpoint.destination
        return ",".join((endpoint, *self.fallbacks)) if self.fallbacks else endpoint

    @property
    def is_released(self) -> bool:
        """Whether the capacity has been given back."""
        return self.slot < 0

    def move(self, destination: str) -> bool:
        """Follow the request to the endpoint that really serves it, after the proxy failed over.

        The limit of that endpoint does not stop the move: the request is there already. A
        destination that the pool does not know leaves the lease where it is. Returns whether it
        moved.
        """
        if self.slot < 0 or destination == self.endpoint.destination:
            return False
        moved = self._pool._move(self.slot, destination, self.tokens)
        if moved is None:
            return False
        self.slot, self.endpoint = moved
        return True

    def release(self) -> None:
        """Give the capacity back. Raises AssertionError on a second release."""
        if self.slot < 0:
            raise AssertionError("a lease was released twice")
        self._pool._release(self.slot, self.tokens)
        self.slot = -1
