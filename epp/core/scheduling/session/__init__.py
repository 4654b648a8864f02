"""Session affinity: the requests of one session go to the endpoint that has served it before."""

from epp.core.scheduling.session.affinity import (
    SESSION_AFFINITY_FILTER,
    SESSION_AFFINITY_SCORER,
    SessionAffinityFilter,
    SessionAffinityScorer,
)
from epp.core.scheduling.session.ids import SESSION_ID_PRODUCER, SessionIdProducer
from epp.core.scheduling.session.tokens import SessionTokens

__all__ = [
    "SESSION_AFFINITY_FILTER",
    "SESSION_AFFINITY_SCORER",
    "SESSION_ID_PRODUCER",
    "SessionAffinityFilter",
    "SessionAffinityScorer",
    "SessionIdProducer",
    "SessionTokens",
]
