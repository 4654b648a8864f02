"""Endpoints that claim destinations → the endpoints of a pool, one for each destination."""

from operator import attrgetter

from epp.core.resources import Endpoint, EndpointChanges
from epp.discovery.schema import MAX_ENDPOINTS

__all__ = ["Destinations"]

_by_name = attrgetter("name")


class Destinations:
    """Who claims each destination of one pool, and what of it was told.

    Of several that claim one, as when an address has passed on to a new pod and the end of the old
    one is not known yet, the one whose name comes first counts. Of more than 10,000 endpoints those
    count whose names come first. What is done costs by what has changed.
    """

    def __init__(self) -> None:
        self._claims: dict[str, list[Endpoint]] = {}
        self._shared: dict[str, None] = {}
        self._excluded: frozenset[str] = frozenset()
        self._changed: dict[str, None] = {}
        self._told: dict[str, Endpoint] = {}
        self._has_new_claims = False

    @property
    def count(self) -> int:
        """How many endpoints were told of."""
        return len(self._told)

    @property
    def claimed(self) -> int:
        """How many destinations are claimed, told of or not."""
        return len(self._claims)

    @property
    def excluded(self) -> int:
        """How many endpoints are left out, because there are too many."""
        return len(self._excluded)

    @property
    def shared(self) -> tuple[str, ...]:
        """The destinations that more than one endpoint claims."""
        return tuple(sorted(self._shared))

    @property
    def has_changes(self) -> bool:
        """Whether endpoints are to be told of, as far as is known yet."""
        return bool(self._changed)

    def claim(self, endpoint: Endpoint) -> None:
        """There is this endpoint."""
        destination = endpoint.destination
        claims = self._claims.setdefault(destination, [])
        claims.append(endpoint)
        if len(claims) > 1:
            self._shared[destination] = None
        self._changed[destination] = None
        self._has_new_claims = True

    def release(self, endpoint: Endpoint) -> None:
        """There is this endpoint, which has claimed its destination, no more."""
        destination = endpoint.destination
        claims = self._claims[destination]
        claims.remove(endpoint)
        if not claims:
            del self._claims[destination]
        elif len(claims) == 1:
            del self._shared[destination]
        self._changed[destination] = None
        self._has_new_claims = True

    def changes(self, limit: int) -> EndpointChanges:
        """Look at up to so many destinations and return what of them was not told yet."""
        self._exclude()
        present: list[Endpoint] = []
        gone: list[str] = []
        for _ in range(min(limit, len(self._changed))):
            destination, _ = self._changed.popitem()
            endpoint = self._winner(destination)
            if endpoint is None:
                if self._told.pop(destination, None) is not None:
                    gone.append(destination)
            elif endpoint != self._told.get(destination):
                self._told[destination] = endpoint
                present.append(endpoint)
        return EndpointChanges(present=tuple(present), gone=tuple(gone))

    def all(self) -> tuple[Endpoint, ...]:
        """Return all endpoints in the order of their names, as far as :meth:`changes` has told of
        them."""
        return tuple(sorted(self._told.values(), key=_by_name))

    def _winner(self, destination: str) -> Endpoint | None:
        claims = self._claims.get(destination)
        if claims is None or destination in self._excluded:
            return None
        return claims[0] if len(claims) == 1 else min(claims, key=_by_name)

    def _exclude(self) -> None:
        """Leave out what is too much. Only then this costs by all that there is."""
        is_crowded = len(self._claims) > MAX_ENDPOINTS
        if not self._has_new_claims or not (is_crowded or self._excluded):
            return
        self._has_new_claims = False
        names = {place: min(map(_by_name, claims)) for place, claims in self._claims.items()}
        excluded = frozenset(sorted(names, key=names.__getitem__)[MAX_ENDPOINTS:])
        self._changed.update(dict.fromkeys(excluded ^ self._excluded))
        self._excluded = excluded
