"""The shape of an EndpointPickerConfig.

None stands for "not given" where that differs from every value. Fields and defaults are explained
in docs/configuration.md. Source of those that are not ours: the llm-d router's
``EndpointPickerConfig``, ``llm-d.ai/v1alpha1``.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from epp.config.quantities import Duration, Quantity
from epp.core.claims import ClaimsOptions
from epp.core.flow import CostOptions, FlowOptions

__all__ = [
    "API_VERSIONS",
    "KIND",
    "BandSection",
    "CostSection",
    "DataSection",
    "FairnessSection",
    "FlowSection",
    "IdSource",
    "PickerDocument",
    "PluginEntry",
    "PluginRef",
    "PriorityBandSection",
    "ProfileItemSection",
    "ProfileSection",
    "RequestHandlerSection",
    "SourceSection",
    "TrustSection",
]

KIND = "EndpointPickerConfig"
API_VERSIONS = ("llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1")
"""The present one first."""

_MAX_WEIGHT = 1_000_000
_FLOW, _COST, _CLAIMS = FlowOptions(), CostOptions(), ClaimsOptions()

Text: TypeAlias = Annotated[str, Meta(min_length=1, description="text")]
Reference: TypeAlias = Annotated[str, Meta(min_length=1, description="the name of a plugin")]
QuantityText: TypeAlias = Annotated[
    Quantity, Meta(description='a quantity of at least 0, such as 100, "5k" or "1Gi"')
]
DurationText: TypeAlias = Annotated[
    Duration, Meta(description='a duration of at least 0, such as "500ms", "30s" or "1h30m"')
]
Priority: TypeAlias = Annotated[
    int,
    Meta(ge=-(2**31), le=2**31 - 1, description="a whole number from -2147483648 to 2147483647"),
]
Flag: TypeAlias = Annotated[bool, Meta(description="true or false")]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
Weight: TypeAlias = Annotated[
    float, Meta(ge=1e-6, le=_MAX_WEIGHT, description=f"a number from 0.000001 to {_MAX_WEIGHT}")
]
CostWeight: TypeAlias = Annotated[
    float, Meta(ge=0, le=_MAX_WEIGHT, description=f"a number from 0 to {_MAX_WEIGHT}")
]
Rate: TypeAlias = Annotated[float, Meta(ge=1e-9, le=1e9, description="a number from 1e-9 to 1e9")]
Count: TypeAlias = Annotated[
    int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")
]
Unit: TypeAlias = Annotated[
    Literal["tokens", "slotTime"], Meta(description='"tokens" or "slotTime"')
]


SourceType: TypeAlias = Annotated[
    Literal["defaultHeaders", "header", "jwtClaim", "model"],
    Meta(description='"defaultHeaders", "header", "jwtClaim" or "model"'),
]


class _Section(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    pass


class PluginEntry(_Section, frozen=True, kw_only=True):
    """An item of ``plugins``. What ``parameters`` may be, its type says."""

    type: Text
    name: Text | None = None
    parameters: Any = None


class PluginRef(_Section, frozen=True, kw_only=True):
    """Which plugin is meant."""

    plugin_ref: Reference


class ProfileItemSection(_Section, frozen=True, kw_only=True):
    """An item of ``plugins`` of a profile: a filter, a scorer with its weight, or the picker."""

    plugin_ref: Reference
    weight: Weight | None = None


class ProfileSection(_Section, frozen=True, kw_only=True):
    """An item of ``schedulingProfiles``."""

    name: Text
    plugins: tuple[ProfileItemSection, ...] = ()


class SourceSection(_Section, frozen=True, kw_only=True):
    """An item of ``sources``: what is fetched of every endpoint, and what is read out of it."""

    plugin_ref: Reference
    extractors: tuple[PluginRef, ...] = ()


class DataSection(_Section, frozen=True, kw_only=True):
    """``dataLayer``. Of its fields all but the first two stand for what this version has not."""

    inject_defaults: Flag = True
    sources: tuple[SourceSection, ...] = ()
    discovery: PluginRef | None = None
    peer_discovery: PluginRef | None = None
    cross_replica_syncer_plugin_ref: Reference | None = None
    cross_replica_sync_interval: DurationText | None = None


class RequestHandlerSection(_Section, frozen=True, kw_only=True):
    """``requestHandler``."""

    parsers: tuple[PluginRef, ...] = ()


class BandSection(_Section, frozen=True, kw_only=True):
    """Bounds and policies of bands that have no entry of their own."""

    max_requests: QuantityText | None = None
    max_bytes: QuantityText | None = None
    fairness_policy_ref: Reference | None = None
    ordering_policy_ref: Reference | None = None
    # Ours:
    min_share: Share = 0.0
    max_wait: DurationText | None = None
    request_ttl: DurationText | None = msgspec.field(default=None, name="requestTTL")


class PriorityBandSection(BandSection, frozen=True, kw_only=True):
    """An item of ``priorityBands``."""

    priority: Priority


class IdSource(_Section, frozen=True, kw_only=True):
    """An item of ``idSources``: a place where the fairness id of a request may stand.

    Which of the fields go with which type, :mod:`epp.config.trust_section` knows.
    """

    type: SourceType
    header: Text | None = None
    claim: Text | None = None
    remove: Flag | None = None


class FairnessSection(_Section, frozen=True, kw_only=True):
    """Ours: shares of flows, how many are told apart, and by what."""

    id_sources: tuple[IdSource, ...] | None = None
    weights: dict[str, Weight] = {}
    max_flows: Count = _FLOW.max_flows
    shared_flows: Count = _FLOW.shared_flows


class CostSection(_Section, frozen=True, kw_only=True):
    """Ours: what a request costs its flow."""

    unit: Unit = "tokens"
    prompt_weight: CostWeight = _COST.prompt_weight
    output_weight: CostWeight = _COST.output_weight
    default_output_tokens: Count = _COST.default_output_tokens
    prefill_tokens_per_second: Rate = _COST.prefill_tokens_per_s
    seconds_per_output_token: Rate = _COST.s_per_output_token


class TrustSection(_Section, frozen=True, kw_only=True):
    """Ours: which headers are heeded that a client could have sent."""

    objective: Flag = _CLAIMS.trust_objective
    fairness_id: Flag = _CLAIMS.trust_fairness_id
    request_ttl: Flag = msgspec.field(default=_CLAIMS.trust_wait_limit, name="requestTTL")
    slo: Flag = _CLAIMS.trust_slo


class FlowSection(_Section, frozen=True, kw_only=True):
    """``flowControl``."""

    max_requests: QuantityText | None = None
    max_bytes: QuantityText | None = None
    default_request_ttl: DurationText | None = msgspec.field(default=None, name="defaultRequestTTL")
    no_endpoint_request_ttl: DurationText | None = msgspec.field(
        default=None, name="noEndpointRequestTTL"
    )
    default_priority_band: BandSection = BandSection()
    default_negative_priority_band: BandSection | None = None
    priority_bands: tuple[PriorityBandSection, ...] = ()
    usage_limit_policy_plugin_ref: Reference | None = None
    saturation_detector: PluginRef | None = None
    enable_eviction: Flag = False
    # Ours:
    fairness: FairnessSection = FairnessSection()
    cost: CostSection = CostSection()
    reject_hopeless: Flag = _FLOW.limits.reject_hopeless
    max_retry_after: DurationText = Duration(_FLOW.limits.max_retry_after_s)


class PickerDocument(_Section, frozen=True, kw_only=True):
    """The whole document."""

    api_version: Text = API_VERSIONS[0]
    kind: Text = KIND
    feature_gates: tuple[Text, ...] = ()
    plugins: tuple[PluginEntry, ...] = ()
    scheduling_profiles: tuple[ProfileSection, ...] = ()
    data_layer: DataSection = DataSection()
    request_handler: RequestHandlerSection = RequestHandlerSection()
    flow_control: FlowSection = FlowSection()
    # Deprecated there in favour of flowControl.saturationDetector and requestHandler.parsers:
    saturation_detector: PluginRef | None = None
    parser: PluginRef | None = None
    # Ours:
    trust: TrustSection = TrustSection()
