"""``token-load-scorer`` and ``active-request-scorer``: the less the EPP itself has in flight at an
endpoint, the better."""

from typing import Annotated, Final

import msgspec
import numpy as np

from epp.core.pool import Column
from epp.core.scheduling.candidates import Candidates, Producer
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.in_flight import InFlightLoad

__all__ = [
    "ACTIVE_REQUEST_SCORER",
    "TOKEN_LOAD_SCORER",
    "ActiveRequestScorer",
    "TokenLoadScorer",
]

_PRODUCER: Final = "inflight-load-producer"
_DEFAULT_THRESHOLD_TOKENS: Final = 4 * 1024 * 1024
_Text = Annotated[str, msgspec.Meta(description="text")]


class TokenLoadScorer:
    """``score = 1 - min(tokens, threshold) / threshold``, where the tokens are those in flight and
    what this request would add.

    Source: the llm-d router's ``token-load-scorer``. What counts as in flight is the producer's
    business: see :class:`epp.core.scheduling.in_flight.InFlightProducer`.
    """

    def __init__(
        self, producer: Producer[InFlightLoad], threshold_tokens: int = _DEFAULT_THRESHOLD_TOKENS
    ) -> None:
        self._producer = producer
        self._threshold_tokens = float(threshold_tokens)

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        load = candidates.produced(self._producer)
        tokens = (load.tokens + load.uncached_tokens)[candidates.slots]
        scores: Column = 1.0 - np.minimum(tokens, self._threshold_tokens) / self._threshold_tokens
        return scores


class ActiveRequestScorer:
    """``score = 1`` for endpoints with at most ``idle_requests`` in flight, for the others
    ``max_busy_score * (most - in flight) / most``, where ``most`` is the most of all candidates: so
    the busiest of them scores 0. Source: the llm-d router's ``active-request-scorer``."""

    def __init__(self, idle_requests: int = 0, max_busy_score: float = 1.0) -> None:
        self._idle_requests = idle_requests
        self._max_busy_score = max_busy_score

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        requests = candidates.in_flight
        most = float(requests.max())
        if most <= self._idle_requests:
            return np.ones(len(requests))
        scores = (most - requests) * (self._max_busy_score / most)
        scores[requests <= self._idle_requests] = 1.0
        return scores


class TokenLoadParameters(Parameters, frozen=True, kw_only=True):
    """Of ``token-load-scorer``."""

    queue_threshold_tokens: Annotated[
        int, msgspec.Meta(le=10**15, description="a whole number up to 10^15")
    ] = _DEFAULT_THRESHOLD_TOKENS
    in_flight_load_producer_name: _Text = ""


class ActiveRequestParameters(Parameters, frozen=True, kw_only=True):
    """Of ``active-request-scorer``."""

    idle_threshold: Annotated[
        int, msgspec.Meta(ge=0, description="a whole number of at least 0")
    ] = 0
    max_busy_score: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="a number from 0 to 1")
    ] = 1.0
    in_flight_load_producer_name: _Text = ""
    request_timeout: _Text = ""


def _make_token_load(parameters: TokenLoadParameters, context: PluginContext) -> TokenLoadScorer:
    producer = context.plugin(parameters.in_flight_load_producer_name, default_type=_PRODUCER)
    threshold_tokens = parameters.queue_threshold_tokens
    return TokenLoadScorer(
        producer, threshold_tokens if threshold_tokens > 0 else _DEFAULT_THRESHOLD_TOKENS
    )


def _make_active_request(
    parameters: ActiveRequestParameters, context: PluginContext
) -> ActiveRequestScorer:
    return ActiveRequestScorer(parameters.idle_threshold, parameters.max_busy_score)


TOKEN_LOAD_SCORER = PluginDefinition(
    type="token-load-scorer",
    summary="Prefers endpoints with few tokens in flight, this request's own counted.",
    make=_make_token_load,
    parameters=TokenLoadParameters,
    explains={
        "queueThresholdTokens": "The tokens from which on an endpoint scores 0; 0 or less stands"
        f" for {_DEFAULT_THRESHOLD_TOKENS}.",
        "inFlightLoadProducerName": f"The producer that counts the tokens, by default {_PRODUCER}.",
    },
)

ACTIVE_REQUEST_SCORER = PluginDefinition(
    type="active-request-scorer",
    summary="Prefers endpoints with few requests in flight.",
    make=_make_active_request,
    parameters=ActiveRequestParameters,
    explains={
        "idleThreshold": "Up to how many requests an endpoint counts as idle, and scores 1.",
        "maxBusyScore": "What an endpoint that is not idle scores at most.",
        "inFlightLoadProducerName": "Has no effect: the pool counts the requests in flight.",
        "requestTimeout": "Deprecated, has no effect: a request counts until it has ended.",
    },
)
