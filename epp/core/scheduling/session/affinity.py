"""``session-affinity-scorer`` and ``session-affinity-filter``: where the session was before."""

from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from epp.core.gate import Ending
from epp.core.pool import Column, Lease, Mask, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.header_names import header_name
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.session.bindings import Bindings
from epp.core.scheduling.session.ids import (
    FirstOf,
    FromHeader,
    SessionIdProducer,
    SessionIdSource,
)
from epp.core.scheduling.session.strategies import ByIdOfSession, ByToken, Strategy
from epp.core.scheduling.session.tokens import SessionTokens

__all__ = [
    "SESSION_AFFINITY_FILTER",
    "SESSION_AFFINITY_SCORER",
    "SessionAffinityFilter",
    "SessionAffinityParameters",
    "SessionAffinityScorer",
]


class _SessionAffinity(Observer):
    """Passes on what it hears to its strategy."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.wanted_headers = strategy.wanted_headers

    def succeed(self, former: Observer) -> None:
        """See Strategy."""
        if isinstance(former, _SessionAffinity):
            self._strategy.succeed(former._strategy)

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """See Strategy."""
        self._strategy.placed(request, lease, now)

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """See Strategy."""
        self._strategy.moved(request, lease, from_slot, now)

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """See Strategy."""
        self._strategy.ended(request, lease, ending, now)

    def joined(self, pool: Pool, slot: int) -> None:
        """See Strategy."""
        self._strategy.joined(pool, slot)

    def freed(self, slot: int) -> None:
        """See Strategy."""
        self._strategy.freed(slot)

    def _is_bound(self, candidates: Candidates) -> Mask:
        """Return a mask of shape ``(n,)`` with the endpoint that the session is bound to, if that
        is a candidate."""
        slot = self._strategy.bound_slot(candidates)
        if slot is None:
            return np.zeros(len(candidates), dtype=np.bool_)
        is_bound: Mask = candidates.slots == slot
        return is_bound


class SessionAffinityScorer(_SessionAffinity):
    """``score = 1`` for the endpoint that the session is bound to, 0 for all others."""

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        return self._is_bound(candidates).astype(np.float64)


class SessionAffinityFilter(_SessionAffinity):
    """Keeps only the endpoint that the session is bound to, all where that is not there or has no
    room: nobody waits for an endpoint while another is free."""

    def filter(self, candidates: Candidates) -> Mask:
        """Return the mask of those kept."""
        is_bound = self._is_bound(candidates)
        return is_bound if is_bound.any() else np.ones_like(is_bound)


# Parameters

_TOKEN_HEADER: Final = "x-session-token"
_ID_HEADER: Final = "x-session-id"
_ID_ATTRIBUTE: Final = "SessionIDDataKey"
_TTL_S: Final = 300.0
_Text = Annotated[str, msgspec.Meta(description="text")]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9, description="a number of at least 0")]


class EncodedEndpointHeaderParameters(Parameters, frozen=True, kw_only=True):
    """Of the strategy ``encoded_endpoint_header``; ``key_file`` is not in the llm-d router's."""

    header: _Text = _TOKEN_HEADER
    key_file: _Text = ""


class SessionIdSourceParameters(Parameters, frozen=True, kw_only=True):
    """A source of session ids: a header, or what a ``session-id-producer`` tells."""

    header: _Text = ""
    attribute: _Text = ""
    producer: _Text = ""


class SessionIdStrategyParameters(Parameters, frozen=True, kw_only=True):
    """Of the strategy ``session_id``; ``max_sessions`` is not in the llm-d router's."""

    sources: tuple[SessionIdSourceParameters, ...] = ()
    eviction_ttl_seconds: _Seconds = _TTL_S
    # Bindings end exactly with their time here, so nothing need be swept.
    eviction_sweep_seconds: _Seconds = 10.0
    max_sessions: Annotated[
        int, msgspec.Meta(ge=1, le=10**7, description="a whole number from 1 to 10000000")
    ] = 100_000


class SessionAffinityParameters(Parameters, frozen=True, kw_only=True):
    """Of both plugins."""

    strategy: Annotated[
        Literal["encoded_endpoint_header", "session_id"],
        msgspec.Meta(description='"encoded_endpoint_header" or "session_id"'),
    ] = "encoded_endpoint_header"
    encoded_endpoint_header_config: EncodedEndpointHeaderParameters = (
        EncodedEndpointHeaderParameters()
    )
    session_id_config: SessionIdStrategyParameters = SessionIdStrategyParameters()
    # Of several profiles that run for a request; here that is one.
    profile_name: _Text = ""


def _strategy(parameters: SessionAffinityParameters, context: PluginContext) -> Strategy:
    if parameters.strategy == "session_id":
        config = parameters.session_id_config
        sources = config.sources or (SessionIdSourceParameters(header=_ID_HEADER),)
        made = tuple(_source(each, index, context) for index, each in enumerate(sources))
        ttl_s = config.eviction_ttl_seconds or _TTL_S
        return ByIdOfSession(FirstOf(made), Bindings(ttl_s=ttl_s, most=config.max_sessions))
    token = parameters.encoded_endpoint_header_config
    where = "encodedEndpointHeaderConfig.header"
    header = header_name(token.header, where, default=_TOKEN_HEADER)
    return ByToken(SessionTokens(header, context.secret(token.key_file)))


def _source(
    parameters: SessionIdSourceParameters, index: int, context: PluginContext
) -> SessionIdSource:
    where = f"sessionIdConfig.sources[{index}]"
    header = header_name(parameters.header, f"{where}.header", default="")
    attribute = parameters.attribute.strip()
    if bool(header) == bool(attribute):
        raise ValueError(
            f"found {'both' if header else 'neither'} of header and attribute in {where};"
            " expected one"
        )
    if header:
        return FromHeader(header)
    if attribute != _ID_ATTRIBUTE:
        raise ValueError(f'found {where}.attribute "{attribute}"; expected "{_ID_ATTRIBUTE}"')
    producer = context.plugin(parameters.producer, default_type="session-id-producer")
    if not isinstance(producer, SessionIdProducer):
        raise ValueError(
            f'found {where}.producer "{parameters.producer}"; expected the name of a'
            " session-id-producer"
        )
    return producer


_EXPLAINS: Final = {
    "strategy": "encoded_endpoint_header: clients are given a signed token of the endpoint in a"
    " response header and send it with their next request. session_id: clients name their session,"
    " and it is kept here which endpoint serves it.",
    "encodedEndpointHeaderConfig": "Of that strategy: header, and keyFile, a file with the key that"
    " signs tokens, for replicas to share; without one each process has its own.",
    "sessionIdConfig": "Of that strategy: sources of the id, in order, each with a header or"
    f' attribute "{_ID_ATTRIBUTE}" of a producer; evictionTtlSeconds, how long a session is'
    " remembered that is not used; maxSessions, how many are. evictionSweepSeconds has no effect.",
    "profileName": "Has no effect: a request has one profile.",
}

SESSION_AFFINITY_SCORER = PluginDefinition(
    type="session-affinity-scorer",
    summary="Prefers the endpoint that has served the request's session before.",
    make=lambda parameters, context: SessionAffinityScorer(_strategy(parameters, context)),
    parameters=SessionAffinityParameters,
    explains=_EXPLAINS,
)

SESSION_AFFINITY_FILTER = PluginDefinition(
    type="session-affinity-filter",
    summary="Keeps the endpoint that has served the request's session before, if it has room.",
    make=lambda parameters, context: SessionAffinityFilter(_strategy(parameters, context)),
    parameters=SessionAffinityParameters,
    explains=_EXPLAINS,
)
