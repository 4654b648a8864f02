"""The words that all other rooms use: a request, its flow, and how its wait ended.

One table in here says what the client sees for each outcome; nothing else in the project knows a
status code of the flow control.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

__all__ = ["REFUSALS", "WAIT_OUTCOMES", "Cut", "FlowKey", "Outcome", "Refusal", "Request"]


class FlowKey(NamedTuple):
    """All requests of one tenant at one priority are one flow; all flows of one priority a band."""

    priority: int
    fairness_id: str


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the decisions need to know of one inference request.

    ``id`` is the proxy's request id: for logs and traces only, never a key, since clients choose
    it. ``subset`` is the gateway's hint: the only ``ip:port`` that may be picked; None where it
    gave none. ``wait_limit_s`` is the request's own wait budget in seconds, ``slo_ttft_s`` its
    goal for the time to first token, None where it named none. ``prompt_tokens`` is estimated,
    ``max_output_tokens`` what the request allows, None where it does not say.

    ``model`` is what the model server is asked for; where that is not what the client named, its
    name is ``client_model``. ``prefix`` are the chained hashes of the
    prompt's blocks, 8 bytes each: two requests for the same ``model`` with the same ``cache_salt``
    have a prompt in common as far as their hashes are the same. ``headers`` are those that the
    scheduling plugins want, by lower-case name.
    """

    flow: FlowKey
    id: str = ""
    model: str = ""
    client_model: str = ""
    objective: str = ""
    body_bytes: int = 0
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    wait_limit_s: float | None = None
    slo_ttft_s: float | None = None
    subset: frozenset[str] | None = None
    prefix: bytes = b""
    cache_salt: str = ""
    headers: Mapping[str, str] = {}


class Outcome(enum.Enum):
    """How the wait of a request ended: exactly one for each request that entered.

    The last two, with the words of the OpenAI API, are those of requests that entered no queue,
    since it cannot be told which pool they are for.
    """

    DISPATCHED = "dispatched"
    REJECTED_CAPACITY = "rejected-capacity"
    REJECTED_WAIT = "rejected-wait"
    REJECTED_NO_ENDPOINTS = "rejected-no-endpoints"
    DISPLACED = "displaced"
    EXPIRED = "expired"
    EXPIRED_NO_ENDPOINTS = "expired-no-endpoints"
    CANCELLED = "cancelled"
    SHUTTING_DOWN = "shutting-down"
    MODEL_NOT_FOUND = "model_not_found"
    POOL_NOT_FOUND = "pool_not_found"

    __hash__ = object.__hash__  # Enum's own is a function in Python


WAIT_OUTCOMES: Final = tuple(
    outcome
    for outcome in Outcome
    if outcome not in (Outcome.MODEL_NOT_FOUND, Outcome.POOL_NOT_FOUND)
)
"""Those of requests that have entered a queue."""


class Cut(enum.Enum):
    """How the EPP ends a request that it has dispatched, which is the outcome of its wait."""

    EVICTED = "evicted"

    __hash__ = object.__hash__


class Refusal(NamedTuple):
    """What a client is told when its request was not dispatched, or was ended by the EPP.

    ``dropped_reason`` is the value of ``x-llm-d-request-dropped-reason``, with the words of the
    reference implementation, so that clients that know those need not change.
    """

    status: int
    dropped_reason: str
    message: str


_CONTENDED: Final = 429
_NO_CAPACITY: Final = 503
_NOT_FOUND: Final = 404

REFUSALS: Final[Mapping[Outcome | Cut, Refusal]] = MappingProxyType(
    {
        Outcome.REJECTED_CAPACITY: Refusal(
            _CONTENDED, "rejected-saturated", "The queue is full. Please retry later."
        ),
        Outcome.REJECTED_WAIT: Refusal(
            _CONTENDED,
            "rejected-saturated",
            "The request would have waited longer than it may. Please retry later.",
        ),
        Outcome.DISPLACED: Refusal(
            _CONTENDED,
            "rejected-saturated",
            "The queue is full and the request gave way to one of higher priority."
            " Please retry later.",
        ),
        Outcome.EXPIRED: Refusal(
            _CONTENDED,
            "rejected-ttl-expired",
            "The request waited as long as it may without finding a free model server."
            " Please retry later.",
        ),
        Cut.EVICTED: Refusal(
            _CONTENDED,
            "evicted",
            "The request was ended to make room for one of higher priority. Please retry later.",
        ),
        Outcome.REJECTED_NO_ENDPOINTS: Refusal(
            _NO_CAPACITY, "rejected-no-endpoints", "No model server can take this request."
        ),
        Outcome.EXPIRED_NO_ENDPOINTS: Refusal(
            _NO_CAPACITY,
            "rejected-no-endpoints",
            "The request waited as long as it may and no model server appeared.",
        ),
        Outcome.SHUTTING_DOWN: Refusal(
            _NO_CAPACITY, "rejected-shutting-down", "The gateway is shutting down. Please retry."
        ),
        Outcome.MODEL_NOT_FOUND: Refusal(
            _NOT_FOUND,
            "rejected-model-not-found",
            "The model that the request names is not served.",
        ),
        Outcome.POOL_NOT_FOUND: Refusal(
            _NOT_FOUND,
            "rejected-pool-not-found",
            "No pool of model servers is there for this request.",
        ),
    }
)
