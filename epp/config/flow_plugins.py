"""The plugin types of flow control: those of the llm-d router, and ours in the same style."""

import math
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from epp.config.plugin_type import PluginKind, PluginType
from epp.config.quantities import Duration
from epp.core.flow import UsageLimitOptions
from epp.core.flow.saturation import AdaptiveOptions, ConcurrencyOptions, UtilizationOptions
from epp.core.scheduling.definition import NoParameters, Parameters

__all__ = ["FLOW_TYPES"]

_ADAPTIVE, _UTILIZATION = AdaptiveOptions(), UtilizationOptions()

Text: TypeAlias = Annotated[str, Meta(description="text")]
# So that the limits of all endpoints of a pool can be summed in 64 bits.
Limit: TypeAlias = Annotated[
    int, Meta(ge=1, le=10**9, description="a whole number from 1 to 1000000000")
]
Staleness: TypeAlias = Annotated[
    Duration, Meta(description='a duration above 0, such as "500ms" or "5s"')
]
Headroom: TypeAlias = Annotated[float, Meta(ge=0, le=1000, description="a number from 0 to 1000")]
Ceiling: TypeAlias = Annotated[float, Meta(gt=0, le=1, description="a number above 0, up to 1")]
LowCeiling: TypeAlias = Annotated[
    float, Meta(ge=0, lt=1, description="a number of at least 0, below 1")
]
Mode: TypeAlias = Annotated[
    Literal["requests", "tokens", "hybrid"],
    Meta(description='"requests", "tokens" or "hybrid"'),
]
Domain: TypeAlias = Annotated[Literal["rank", "value"], Meta(description='"rank" or "value"')]
Shape: TypeAlias = Annotated[Literal["linear"], Meta(description='"linear"')]


class ConcurrencyParameters(Parameters, frozen=True, kw_only=True):
    """Of ``concurrency-detector``."""

    concurrency_mode: Mode = "requests"
    max_concurrency: Limit = 100
    max_token_concurrency: Limit = 1_000_000
    headroom: Headroom = 0.0
    # Who counts what is in flight: here that is always the pool itself.
    in_flight_load_producer_name: Any = None
    # Ours:
    label: Text = ""
    max_concurrency_by_label: dict[str, Limit] = msgspec.field(default_factory=dict)


class UtilizationParameters(Parameters, frozen=True, kw_only=True):
    """Of ``utilization-detector``."""

    queue_depth_threshold: Limit = 5
    kv_cache_util_threshold: Ceiling = 0.8
    metrics_staleness_threshold: Staleness = Duration(_UTILIZATION.stale_after_s)
    headroom: Headroom = 0.0
    # Ours:
    initial_concurrency: Limit = _UTILIZATION.unknown_requests


class AdaptiveParameters(Parameters, frozen=True, kw_only=True):
    """Of ``adaptive-detector``."""

    initial_concurrency: Limit = _ADAPTIVE.first_requests
    max_concurrency: Limit = _ADAPTIVE.max_requests
    metrics_staleness_threshold: Staleness = Duration(_ADAPTIVE.stale_after_s)


class StaticLimitParameters(Parameters, frozen=True, kw_only=True):
    """Of ``static-usage-limit-policy``."""

    threshold: Ceiling = 1.0


class HoldbackParameters(Parameters, frozen=True, kw_only=True):
    """Of ``priority-holdback-policy``."""

    min_ceiling: LowCeiling
    max_ceiling: Ceiling = 1.0
    domain: Domain = "rank"
    shape: Shape = "linear"


def _concurrency(parameters: ConcurrencyParameters) -> ConcurrencyOptions:
    mode, by_label = parameters.concurrency_mode, parameters.max_concurrency_by_label
    if bool(by_label) != bool(parameters.label):
        raise ValueError("found one of label and maxConcurrencyByLabel; expected both or none")
    if by_label and mode == "tokens":
        raise ValueError('found maxConcurrencyByLabel with concurrencyMode "tokens"; expected one')

    def with_headroom(limit: int) -> int:
        return math.floor(limit * (1.0 + parameters.headroom))

    return ConcurrencyOptions(
        max_requests=None if mode == "tokens" else with_headroom(parameters.max_concurrency),
        max_tokens=None if mode == "requests" else with_headroom(parameters.max_token_concurrency),
        label=parameters.label,
        max_requests_by_label={value: with_headroom(most) for value, most in by_label.items()},
    )


def _utilization(parameters: UtilizationParameters) -> UtilizationOptions:
    return UtilizationOptions(
        max_waiting=parameters.queue_depth_threshold,
        max_kv_ratio=parameters.kv_cache_util_threshold,
        stale_after_s=_stale_after_s(parameters.metrics_staleness_threshold),
        headroom_ratio=parameters.headroom,
        unknown_requests=parameters.initial_concurrency,
    )


def _adaptive(parameters: AdaptiveParameters) -> AdaptiveOptions:
    first, most = parameters.initial_concurrency, parameters.max_concurrency
    if first > most:
        found = f"initialConcurrency {first} and maxConcurrency {most}"
        raise ValueError(f"found {found}; expected the former not above the latter")
    return AdaptiveOptions(
        first_requests=first,
        max_requests=most,
        stale_after_s=_stale_after_s(parameters.metrics_staleness_threshold),
    )


def _stale_after_s(threshold: Duration) -> float:
    if not threshold:
        raise ValueError("found a metricsStalenessThreshold of 0; expected a duration above 0")
    return float(threshold)


def _holdback(parameters: HoldbackParameters) -> UsageLimitOptions:
    low, high = parameters.min_ceiling, parameters.max_ceiling
    if low >= high:
        raise ValueError(f"found minCeiling {low} and maxCeiling {high}; expected the latter above")
    return UsageLimitOptions(
        policy="priority-holdback", ceiling=high, min_ceiling=low, domain=parameters.domain
    )


def _policy(kind: PluginKind, type_: str, name: str, summary: str) -> PluginType:
    """Return a type without parameters, of which only the name is made."""
    return PluginType(
        type=type_, kind=kind, summary=summary, parameters=NoParameters, make=lambda _: name
    )


_DETECTORS: Final = (
    PluginType(
        type="adaptive-detector",
        kind="saturation detector",
        summary="Finds the limit of each endpoint by itself. Ours, and the default.",
        parameters=AdaptiveParameters,
        make=_adaptive,
        explains={
            "initialConcurrency": "Requests that an endpoint takes before anything is known of it.",
            "maxConcurrency": "Most requests that it ever takes.",
            "metricsStalenessThreshold": "How old the engine's last report may be; after that the"
            " detector goes by what comes back.",
        },
    ),
    PluginType(
        type="concurrency-detector",
        kind="saturation detector",
        summary="Holds fixed limits.",
        parameters=ConcurrencyParameters,
        make=_concurrency,
        explains={
            "concurrencyMode": "What is limited; with hybrid both, whichever is reached first.",
            "maxConcurrency": "Requests in flight at an endpoint.",
            "maxTokenConcurrency": "Tokens of prompts in flight at an endpoint.",
            "headroom": "How far an endpoint may go beyond its limits: 0.2 is 20 %.",
            "inFlightLoadProducerName": "Accepted and not needed: what is in flight, the pool"
            " itself counts.",
            "label": "Ours, together with the next: the endpoint's label that tells how much it"
            " takes.",
            "maxConcurrencyByLabel": "Ours: the maxConcurrency of endpoints whose label has this"
            " value.",
        },
    ),
    PluginType(
        type="utilization-detector",
        kind="saturation detector",
        summary="Holds thresholds for the engine's own queue and its KV cache.",
        parameters=UtilizationParameters,
        make=_utilization,
        explains={
            "queueDepthThreshold": "Requests in the engine's own queue.",
            "kvCacheUtilThreshold": "Use of its KV cache.",
            "metricsStalenessThreshold": "How old the engine's last report may be.",
            "headroom": "How far an endpoint may go beyond both thresholds: 0.2 is 20 %.",
            "initialConcurrency": "Ours: requests that an endpoint takes before its first report.",
        },
    ),
)

_USAGE_LIMITS: Final = (
    PluginType(
        type="static-usage-limit-policy",
        kind="usage-limit policy",
        summary="Has the same ceiling for all bands.",
        parameters=StaticLimitParameters,
        make=lambda parameters: UsageLimitOptions(ceiling=parameters.threshold),
        explains={"threshold": "The share of the pool's limits that may be filled."},
    ),
    PluginType(
        type="priority-holdback-policy",
        kind="usage-limit policy",
        summary="Has lower ceilings for lower bands, over those that have traffic.",
        parameters=HoldbackParameters,
        make=_holdback,
        explains={
            "minCeiling": "The ceiling of the lowest band.",
            "maxCeiling": "That of the highest; above minCeiling.",
            "domain": "Whether the bands between are spread by their order or by their priorities.",
            "shape": "Nothing else.",
        },
    ),
    PluginType(
        type="soft-reflective-ceiling-policy",
        kind="usage-limit policy",
        summary="Lets lower bands through less often the fuller the pool is.",
        parameters=NoParameters,
        make=lambda _: UsageLimitOptions(policy="soft-reflective-ceiling"),
    ),
)

FLOW_TYPES: Final = (
    *_DETECTORS,
    *_USAGE_LIMITS,
    _policy("fairness policy", "weighted-fair-fairness-policy", "weighted-fair",
        "Gives equal service by weight, in what requests cost. Ours, and the default."),
    _policy("fairness policy", "round-robin-fairness-policy", "round-robin",
        "Takes one request of each flow in turn."),
    _policy("fairness policy", "global-strict-fairness-policy", "global-strict",
        "Takes the first request of the band, whosever it is."),
    _policy("ordering policy", "fcfs-ordering-policy", "fcfs",
        "First come, first served: the default."),
    _policy("ordering policy", "edf-ordering-policy", "edf",
        "Takes the earliest end of the longest wait first."),
    _policy("ordering policy", "slo-deadline-ordering-policy", "slo-deadline",
        "Takes the earliest arrival plus goal for the first token first; those without a goal"
        " last."),
)  # fmt: skip
