"""Pools, objectives and rewrites one by one, as manifests and the API server alike declare them.

What belongs together is decided in :mod:`~epp.discovery.belonging`.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from epp.core.resources import ModelTarget, Objective, PoolSpec, RewriteRule
from epp.discovery.audience import read_audience
from epp.discovery.schema import (
    InferenceModelRewrite,
    InferenceObjective,
    InferencePoolV1,
    InferencePoolV1Alpha2,
    ModelRule,
    PoolRef,
)

__all__ = [
    "API_VERSIONS",
    "EXPERIMENTAL_GROUP",
    "LLM_D_GROUP",
    "POOL_GROUP",
    "DeclaredObjective",
    "DeclaredPool",
    "DeclaredRewrite",
    "declare_objective",
    "declare_pool",
    "declare_rewrite",
]

POOL_GROUP: Final = "inference.networking.k8s.io"
EXPERIMENTAL_GROUP: Final = "inference.networking.x-k8s.io"
LLM_D_GROUP: Final = "llm-d.ai"

API_VERSIONS: Final = {
    "InferencePool": [f"{POOL_GROUP}/v1", f"{EXPERIMENTAL_GROUP}/v1alpha2"],
    "InferenceObjective": [f"{LLM_D_GROUP}/v1alpha2", f"{EXPERIMENTAL_GROUP}/v1alpha2"],
    "InferenceModelRewrite": [f"{LLM_D_GROUP}/v1alpha2", f"{EXPERIMENTAL_GROUP}/v1alpha2"],
}
"""The versions of each kind that are read."""


class DeclaredPool(msgspec.Struct, frozen=True):
    """An InferencePool, the labels of the object, and what is wrong with it that its shape does
    not tell: of each problem the path of the field and what was found and expected."""

    spec: PoolSpec
    labels: Mapping[str, str]
    problems: tuple[tuple[str, str], ...] = ()


class DeclaredObjective(msgspec.Struct, frozen=True):
    """An InferenceObjective, the API group it is of, and the pool that it names."""

    objective: Objective
    group: str
    pool_ref: PoolRef

    @property
    def name(self) -> str:
        """The object's name."""
        return self.objective.name

    @property
    def namespace(self) -> str:
        """The object's namespace."""
        return self.objective.namespace


class DeclaredRewrite(msgspec.Struct, frozen=True, kw_only=True):
    """An InferenceModelRewrite, the API group it is of, the pool that it names, and when it was
    created, None where it does not say."""

    name: str
    namespace: str
    group: str
    pool_ref: PoolRef
    created: datetime | None
    rules: tuple[RewriteRule, ...]


def declare_pool(found: InferencePoolV1 | InferencePoolV1Alpha2) -> DeclaredPool:
    """Return what an InferencePool declares."""
    spec: PoolSpec
    if isinstance(found, InferencePoolV1):
        spec = PoolSpec(
            name=found.metadata.name,
            namespace=found.metadata.namespace,
            group=POOL_GROUP,
            selector=found.spec.selector.match_labels,
            target_ports=tuple(port.number for port in found.spec.target_ports),
            failure_mode=found.spec.endpoint_picker_ref.failure_mode,
        )
    else:
        spec = PoolSpec(
            name=found.metadata.name,
            namespace=found.metadata.namespace,
            group=EXPERIMENTAL_GROUP,
            selector=found.spec.selector,
            target_ports=(found.spec.target_port_number,),
            failure_mode=found.spec.extension_ref.failure_mode,
        )
    audience = read_audience(found.metadata.annotations)
    spec = msgspec.structs.replace(spec, authorities=audience.authorities, models=audience.models)
    problems = (*_repeated_ports(spec.target_ports), *audience.problems)
    return DeclaredPool(spec, found.metadata.labels, problems)


def declare_objective(found: InferenceObjective) -> DeclaredObjective:
    """Return what an InferenceObjective declares."""
    objective = Objective(
        name=found.metadata.name,
        namespace=found.metadata.namespace,
        priority=found.spec.priority,
    )
    return DeclaredObjective(objective, _group(found.api_version), found.spec.pool_ref)


def declare_rewrite(found: InferenceModelRewrite) -> DeclaredRewrite:
    """Return what an InferenceModelRewrite declares."""
    return DeclaredRewrite(
        name=found.metadata.name,
        namespace=found.metadata.namespace,
        group=_group(found.api_version),
        pool_ref=found.spec.pool_ref,
        created=found.metadata.creation_timestamp,
        rules=tuple(map(_rewrite_rule, found.spec.rules)),
    )


def _rewrite_rule(found: ModelRule) -> RewriteRule:
    return RewriteRule(
        models=tuple(match.model.value for match in found.matches),
        targets=tuple(ModelTarget(each.model_rewrite, each.weight) for each in found.targets),
    )


def _repeated_ports(ports: tuple[int, ...]) -> list[tuple[str, str]]:
    return [
        (f"spec.targetPorts[{index}].number", f"found {port} again; expected each port once")
        for index, port in enumerate(ports)
        if port in ports[:index]
    ]


def _group(api_version: str) -> str:
    return api_version.partition("/")[0]
