"""``prefix-cache-affinity-filter``: who has the prompt in its cache, as long as that is not too
busy."""

from typing import Annotated, Literal

import msgspec
import numpy as np

from epp.core.pool import Mask
from epp.core.scheduling.candidates import Candidates, Producer
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.in_flight import InFlightLoad
from epp.core.scheduling.prefix_cache import PrefixHits

__all__ = [
    "PREFIX_CACHE_AFFINITY_FILTER",
    "PrefixCacheAffinityFilter",
    "PrefixCacheAffinityOptions",
]


class PrefixCacheAffinityOptions(msgspec.Struct, frozen=True, kw_only=True):
    """When an endpoint is stuck to.

    ``threshold_ratio`` is the share of a prompt that it must have, 0 or less to stick to none;
    ``exploration`` the probability that it is not stuck to after all. ``max_penalty_ms`` is how
    much longer the first token may take there, 0 for as long as it likes, if an engine computes
    ``tokens_per_s`` tokens of prompt in a second.
    """

    threshold_ratio: float = 0.8
    exploration: float = 0.0
    max_penalty_ms: float = 18_000.0
    tokens_per_s: float = 15_928.0


class PrefixCacheAffinityFilter:
    """Keeps the endpoints that have most of the prompt, all where none has or waiting for them
    costs too much.

    The time to the first token is taken to be ``tokens in flight / tokens_per_s``. Source: the
    llm-d router's ``prefix-cache-affinity-filter``. What is in flight there no longer counts a
    prompt whose response has begun, here it does (:mod:`epp.core.scheduling.in_flight`), so this
    filter turns to others a little sooner where responses are long.
    """

    def __init__(
        self,
        prefixes: Producer[PrefixHits],
        in_flight: Producer[InFlightLoad],
        options: PrefixCacheAffinityOptions | None = None,
    ) -> None:
        self._prefixes = prefixes
        self._in_flight = in_flight
        self._options = options or PrefixCacheAffinityOptions()

    def filter(self, candidates: Candidates) -> Mask:
        """Return the mask of those kept."""
        options = self._options
        everyone: Mask = np.ones(len(candidates), dtype=np.bool_)
        if len(candidates) <= 1 or options.threshold_ratio <= 0:
            return everyone
        if options.exploration and candidates.rng.random() < options.exploration:
            return everyone
        hits = candidates.produced(self._prefixes)
        sticky: Mask = hits.ratio[candidates.slots] >= options.threshold_ratio
        if not sticky.any() or sticky.all():
            return everyone
        return everyone if self._costs_too_much(candidates, sticky) else sticky

    def _costs_too_much(self, candidates: Candidates, sticky: Mask) -> bool:
        options = self._options
        if not options.max_penalty_ms:
            return False
        tokens = candidates.produced(self._in_flight).tokens[candidates.slots]
        first_token_ms = tokens / options.tokens_per_s * 1000.0
        penalty_ms = first_token_ms[sticky].min() - first_token_ms[~sticky].min()
        return bool(penalty_ms > options.max_penalty_ms)


_DEFAULTS = PrefixCacheAffinityOptions()
_Text = Annotated[str, msgspec.Meta(description="text")]
_Number = Annotated[float, msgspec.Meta(ge=0, description="a number of at least 0")]


class PrefixCacheAffinityParameters(Parameters, frozen=True, kw_only=True):
    """Of ``prefix-cache-affinity-filter``."""

    affinity_threshold: Annotated[
        float, msgspec.Meta(le=1, description="a number of at most 1")
    ] = _DEFAULTS.threshold_ratio
    exploration_probability: Annotated[
        float, msgspec.Meta(ge=0, le=1, description="a number from 0 to 1")
    ] = _DEFAULTS.exploration
    max_ttft_penalty_ms: _Number = msgspec.field(
        default=_DEFAULTS.max_penalty_ms, name="maxTTFTPenaltyMs"
    )
    ttft_source: Annotated[
        Literal["prefillThroughput", "latencyPredictor"],
        msgspec.Meta(description='"prefillThroughput"'),
    ] = "prefillThroughput"
    peak_prefill_throughput: _Number = _DEFAULTS.tokens_per_s
    prefix_match_info_producer_name: _Text = ""
    latency_prediction_info_producer_name: _Text = ""
    in_flight_load_producer_name: _Text = ""


def _make(
    parameters: PrefixCacheAffinityParameters, context: PluginContext
) -> PrefixCacheAffinityFilter:
    if parameters.ttft_source != "prefillThroughput":
        raise ValueError(
            f'found ttftSource "{parameters.ttft_source}", and there is no latency predictor here;'
            ' expected "prefillThroughput"'
        )
    if parameters.max_ttft_penalty_ms and not parameters.peak_prefill_throughput:
        raise ValueError(
            "found peakPrefillThroughput 0 with a maxTTFTPenaltyMs; expected a number above 0"
        )
    return PrefixCacheAffinityFilter(
        context.plugin(
            parameters.prefix_match_info_producer_name, default_type="approx-prefix-cache-producer"
        ),
        context.plugin(
            parameters.in_flight_load_producer_name, default_type="inflight-load-producer"
        ),
        PrefixCacheAffinityOptions(
            threshold_ratio=parameters.affinity_threshold,
            exploration=parameters.exploration_probability,
            max_penalty_ms=parameters.max_ttft_penalty_ms,
            tokens_per_s=parameters.peak_prefill_throughput,
        ),
    )


PREFIX_CACHE_AFFINITY_FILTER = PluginDefinition(
    type="prefix-cache-affinity-filter",
    summary="Keeps the endpoints that have most of the prompt in their cache, unless they are much"
    " busier than the others.",
    make=_make,
    parameters=PrefixCacheAffinityParameters,
    explains={
        "affinityThreshold": "The share of the prompt that an endpoint must have, 0 to keep all.",
        "explorationProbability": "How often all are kept nevertheless, so that others get to have"
        " the prompt too.",
        "maxTTFTPenaltyMs": "How much longer the first token may take where the prompt is, in"
        " milliseconds; 0 for any time.",
        "ttftSource": "How that time is estimated: prefillThroughput is the only way.",
        "peakPrefillThroughput": "How many tokens of prompt an engine computes in a second.",
        "prefixMatchInfoProducerName": "The producer that knows the prefix caches.",
        "latencyPredictionInfoProducerName": "Has no effect: there is no latency predictor.",
        "inFlightLoadProducerName": "The producer that knows what is in flight.",
    },
)
