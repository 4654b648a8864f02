"""The plugin types of the llm-d router that this version does not have, for a plain word on it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ABSENT"]

_NO_HINT: Final = (
    "agent-identity",
    "always-disagg-multimodal-decider",
    "always-disagg-pd-decider",
    "burst-prefix-cache-producer",
    "data-parallel-profile-handler",
    "dcgm-data-source",
    "dcgm-extractor",
    "destination-endpoint-served-verifier",
    "disagg-headers-handler",
    "disagg-profile-handler",
    "disaggregatedset-rollout-screener",
    "endpoint-notification-source",
    "header-based-testing-filter",
    "k8s-notification-source",
    "latency-scorer",
    "latency-slo-admitter",
    "mm-embeddings-cache-producer",
    "mm-embeddings-cache-scorer",
    "models-data-extractor",
    "models-data-source",
    "multicluster-approx-prefix-cache-producer",
    "multicluster-file-discovery",
    "multicluster-kv-cache-utilization-scorer",
    "multicluster-metrics-data-source",
    "multicluster-metrics-extractor",
    "multicluster-prefix-cache-scorer",
    "multicluster-queue-scorer",
    "multicluster-session-affinity-filter",
    "p2p-source-producer",
    "pd-profile-handler",
    "predicted-latency-producer",
    "prefill-header-handler",
    "prefix-based-pd-decider",
    "request-attribute-reporter",
    "slo-headroom-tier-filter",
    "topology-affinity-filter",
    "topology-affinity-scorer",
    "topology-extractor",
    "vertexai-parser",
    "vllmgrpc-parser",
)

ABSENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(_NO_HINT, ""),
        "file-discovery": "epp serve --manifests DIR does its work",
        "precise-prefix-cache-producer": "approx-prefix-cache-producer needs no events of engines",
        "precise-prefix-cache-scorer": "prefix-cache-scorer does its work",
        "priority-then-time-eviction-order-policy": "enableEviction needs none",
        "probabilistic-admitter": "flow control does its work",
        "program-aware-fairness": "weighted-fair-fairness-policy does its work",
        "sheddable-eviction-filter": "enableEviction needs none",
        "tokenizer": "that is what token-producer was called",
    }
)
"""By type, what can be said on it besides."""
