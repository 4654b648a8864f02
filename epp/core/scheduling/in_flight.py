"""``inflight-load-producer``: how much the EPP has in flight at each endpoint.

The pool counts requests and prompt tokens in flight itself, exactly, for all that hold a lease. So
there is nothing left to keep here but what is guessed of the answers, and nothing that could leak
or go out of date: a count ends with its lease.
"""

import math
from typing import Annotated, Final

import msgspec
import numpy as np

from epp.core.gate import Ending
from epp.core.pool import Column, Lease
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates, Producer
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.prefix_cache import PrefixHits

__all__ = ["IN_FLIGHT_PRODUCER", "InFlightLoad", "InFlightProducer", "OutputEstimate"]

_DEFAULT_RATIO: Final = 1.5
_PREFIX_PRODUCER: Final = "approx-prefix-cache-producer"


class InFlightLoad(msgspec.Struct, frozen=True):
    """What is in flight at each endpoint: arrays have shape ``(slots,)`` and are not to be changed.

    ``tokens`` are those of the requests that have not ended, ``uncached_tokens`` what the request
    that is to be placed would add where it is not cached.
    """

    tokens: Column
    uncached_tokens: Column


class OutputEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers are taken to be: ``ratio`` times the prompt, ``max_tokens`` at most."""

    ratio: float = _DEFAULT_RATIO
    max_tokens: int | None = None

    def tokens(self, request: Request) -> int:
        """Return the estimate for one request, no more than it allows."""
        tokens = math.floor(request.prompt_tokens * self.ratio + 0.5)
        for limit in (request.max_output_tokens, self.max_tokens):
            if limit is not None:
                tokens = min(tokens, limit)
        return tokens


class InFlightProducer(Observer):
    """Tells the tokens in flight: prompts, and estimated answers where there is an ``estimate``.

    The tokens that a request adds are ``(blocks - cached blocks) * block size`` and what is left of
    the prompt behind its last full block. Source: the llm-d router's ``inflight-load-producer``.
    There, a prompt without estimate counts until its answer has begun; here it counts until the
    answer has ended, as it also does there with an estimate, since until then it holds its place in
    the engine's memory.
    """

    def __init__(
        self, prefixes: Producer[PrefixHits], estimate: OutputEstimate | None = None
    ) -> None:
        self._prefixes = prefixes
        self._estimate = estimate
        self._output_tokens: Column = np.zeros(0)
        self._note = object()  # the key of what is noted of a lease, also for a successor

    def produce(self, candidates: Candidates) -> InFlightLoad:
        """Return what is in flight."""
        pool, prompt_tokens = candidates.pool, float(candidates.request.prompt_tokens)
        hits = candidates.produced(self._prefixes)
        whole_tokens = float(hits.total_blocks * hits.block_tokens)
        uncached_tokens = max(whole_tokens, prompt_tokens) - hits.tokens
        tokens = pool.in_flight_tokens
        if self._estimate is not None:
            self._reserve(len(pool.active))
            tokens = tokens + self._output_tokens[: len(tokens)]
        return InFlightLoad(tokens, uncached_tokens)

    # epp.core.scheduling.Observer

    def succeed(self, former: Observer) -> None:
        """Go on with what is expected of the requests that run."""
        if isinstance(former, InFlightProducer):
            self._output_tokens, self._note = former._output_tokens, former._note

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """An answer is expected."""
        if self._estimate is not None:
            tokens = lease.notes[self._note] = self._estimate.tokens(request)
            self._reserve(lease.slot + 1)
            self._output_tokens[lease.slot] += tokens

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """It is expected of another endpoint."""
        if self._note in lease.notes:
            self._output_tokens[from_slot] -= lease.notes[self._note]
            self._reserve(lease.slot + 1)
            self._output_tokens[lease.slot] += lease.notes[self._note]

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """It is there, or will never be: what was added is taken away."""
        if self._note in lease.notes:
            self._output_tokens[lease.slot] -= lease.notes[self._note]

    def _reserve(self, slots: int) -> None:
        missing = slots - len(self._output_tokens)
        if missing > 0:
            self._output_tokens = np.concatenate([self._output_tokens, np.zeros(missing)])


class InFlightParameters(Parameters, frozen=True, kw_only=True):
    """Of ``inflight-load-producer``."""

    add_estimated_output_tokens: Annotated[bool, msgspec.Meta(description="true or false")] = False
    output_ratio: Annotated[
        float, msgspec.Meta(ge=0, le=10**6, description="a number from 0 to 10^6")
    ] = _DEFAULT_RATIO
    max_estimated_output_tokens: (
        Annotated[int, msgspec.Meta(ge=0, description="a whole number of at least 0")] | None
    ) = None
    prefix_match_info_producer_name: Annotated[str, msgspec.Meta(description="text")] = ""
    sync_cross_replica_state: Annotated[bool, msgspec.Meta(description="true or false")] = True


def _make(parameters: InFlightParameters, context: PluginContext) -> InFlightProducer:
    estimate = OutputEstimate(
        ratio=parameters.output_ratio, max_tokens=parameters.max_estimated_output_tokens
    )
    return InFlightProducer(
        context.plugin(parameters.prefix_match_info_producer_name, default_type=_PREFIX_PRODUCER),
        estimate if parameters.add_estimated_output_tokens else None,
    )


IN_FLIGHT_PRODUCER = PluginDefinition(
    type="inflight-load-producer",
    summary="Tells how many tokens are in flight at each endpoint.",
    make=_make,
    parameters=InFlightParameters,
    explains={
        "addEstimatedOutputTokens": "Whether the answers that are expected count, besides the"
        " prompts. Either way a request counts until it has ended.",
        "outputRatio": "How many tokens of answer are expected for each of the prompt.",
        "maxEstimatedOutputTokens": "How many are expected at most. No more than the request allows"
        " ever are.",
        "prefixMatchInfoProducerName": "The producer that knows the prefix caches, by default"
        f" {_PREFIX_PRODUCER}.",
        "syncCrossReplicaState": "Has no effect: a replica counts what it has dispatched itself.",
    },
)
