"""How an endpoint is remembered: the client keeps a token of it, or it is kept here by the
session's id."""

from abc import ABC, abstractmethod
from typing import Final

from epp.core.gate import Ending
from epp.core.pool import Lease, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.session.bindings import Bindings
from epp.core.scheduling.session.endpoints import EndpointTable
from epp.core.scheduling.session.ids import SessionIdSource
from epp.core.scheduling.session.tokens import SessionTokens

__all__ = ["ByIdOfSession", "ByToken", "Strategy"]

_COULD_NOT_SERVE: Final = (502, 503, 504)


class Strategy(Observer, ABC):
    """Knows which endpoint a request's session is bound to."""

    @abstractmethod
    def bound_slot(self, candidates: Candidates) -> int | None:
        """Return the slot of that endpoint, whether it is a candidate or not; None where the
        session is bound to none of the pool."""


class ByToken(Strategy):
    """Each response carries the token of the endpoint that was picked, each request the one that
    its client was given last.

    A token that is not of an endpoint of the pool, forged or outlived, binds to nothing. What the
    client is to be given stands in ``lease.response_headers``.
    """

    def __init__(self, tokens: SessionTokens) -> None:
        self.wanted_headers = (tokens.header,)
        self._tokens = tokens
        self._header = tokens.header.encode()
        self._endpoints = EndpointTable(tokens.token)

    def bound_slot(self, candidates: Candidates) -> int | None:
        """Return the slot of the endpoint whose token the request carries."""
        token = candidates.request.headers.get(self._tokens.header, "")
        return self._endpoints.find(token)

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """The client is to be given the token of this endpoint, once."""
        if all(name != self._header for name, _ in lease.response_headers):
            token = self._tokens.token(lease.endpoint.name).encode()
            lease.response_headers = (*lease.response_headers, (self._header, token))

    def joined(self, pool: Pool, slot: int) -> None:
        """Its token is good from now on."""
        self._endpoints.joined(pool, slot)

    def freed(self, slot: int) -> None:
        """Its token is good no more."""
        self._endpoints.freed(slot)


class ByIdOfSession(Strategy):
    """Sessions have ids, and are bound to the endpoint that their first request went to.

    A session is bound anew only when the endpoint that it is bound to has left the pool, has failed
    over to another for one of its requests, or could not serve one. One that is merely full, or is
    outvoted by other plugins, stays the one that it is bound to: most of its cache is still there.
    """

    def __init__(self, source: SessionIdSource, bindings: Bindings) -> None:
        self.wanted_headers = source.wanted_headers
        self._session_id = source.session_id
        self._bindings = bindings
        self._endpoints = EndpointTable()

    def bound_slot(self, candidates: Candidates) -> int | None:
        """Return the slot of the endpoint that the request's session is bound to."""
        session = self._session_id(candidates.request)
        bound = self._bindings.get(session, candidates.now) if session else None
        return None if bound is None else self._endpoints.find(bound)

    def succeed(self, former: Observer) -> None:
        """Sessions stay bound over a change of the configuration."""
        if isinstance(former, ByIdOfSession):
            self._bindings.take_over(former._bindings)

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """The session is bound to this endpoint, or is still bound to its own."""
        session = self._session_id(request)
        if session:
            lease.notes[self] = lease.endpoint.name
            bound = self._bindings.get(session, now)
            is_there = bound is not None and self._endpoints.find(bound) is not None
            stays = bound if bound and is_there else lease.endpoint.name
            self._bindings.bind(session, stays, now)

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """If its own endpoint has failed over to this one, the session follows."""
        session = self._session_id(request)
        if session and self._bindings.get(session, now) in (None, lease.notes.get(self)):
            lease.notes[self] = lease.endpoint.name
            self._bindings.bind(session, lease.endpoint.name, now)

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """An endpoint that could not serve is not to be tried again and again."""
        session = self._session_id(request) if ending.status in _COULD_NOT_SERVE else ""
        if session and self._bindings.get(session, now) == lease.endpoint.name:
            self._bindings.forget(session)

    def joined(self, pool: Pool, slot: int) -> None:
        """Sessions that are bound to it go there."""
        self._endpoints.joined(pool, slot)

    def freed(self, slot: int) -> None:
        """Sessions that are bound to it go elsewhere."""
        self._endpoints.freed(slot)
