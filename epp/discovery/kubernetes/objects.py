"""Objects of the API server, as far as they matter here: all other fields are skipped in decoding.

The ``spec`` of our own kinds is left as it came. Whether it is any good is decided by
:mod:`~epp.discovery.kubernetes.reading`, one object at a time, so that a bad one harms no other.
"""

from typing import Any

import msgspec

__all__ = [
    "Condition",
    "CustomObject",
    "InferenceModelRewrite",
    "InferenceObjective",
    "InferencePool",
    "Meta",
    "ObjectMeta",
    "ObjectiveStatus",
    "Pod",
    "PodAnnotations",
    "PodCondition",
    "PodMeta",
    "PodStatus",
]


class Meta(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """``metadata`` of any object. ``deletion_timestamp`` is set while the object is going."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}


class ObjectMeta(Meta, rename="camel", frozen=True, kw_only=True):
    """``metadata`` of the objects of which there are few."""

    creation_timestamp: str | None = None
    annotations: dict[str, str] = {}


class PodAnnotations(msgspec.Struct, frozen=True, kw_only=True):
    """Those of a pod's annotations that matter; others can be long, and pods are many."""

    active_ports: str | None = msgspec.field(default=None, name="llm-d.ai/active-ports")
    legacy_active_ports: str | None = msgspec.field(
        default=None, name="inference.networking.k8s.io/active-ports"
    )

    def present(self) -> dict[str, str]:
        """Return those that are there, by name."""
        found = msgspec.to_builtins(self)
        return {name: value for name, value in found.items() if value is not None}


class PodMeta(Meta, rename="camel", frozen=True, kw_only=True):
    """``metadata`` of a pod."""

    annotations: PodAnnotations = PodAnnotations()


class PodCondition(msgspec.Struct, frozen=True, kw_only=True):
    """An item of ``status.conditions`` of a pod; ``status`` is True, False or Unknown."""

    type: str
    status: str = "Unknown"


class PodStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` of a pod. ``pod_ip`` is the primary one of a dual stack."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: tuple[PodCondition, ...] = ()


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A pod, ``v1``."""

    metadata: PodMeta
    status: PodStatus = PodStatus()

    @property
    def is_serving(self) -> bool:
        """Whether it may get requests: ready, with an address, and neither going nor at its
        end."""
        status = self.status
        return (
            self.metadata.deletion_timestamp is None
            and bool(status.pod_ip)
            and status.phase not in ("Succeeded", "Failed")
            and any(each.type == "Ready" and each.status == "True" for each in status.conditions)
        )


class Condition(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """An item of ``status.conditions`` of our own kinds."""

    type: str
    status: str = "Unknown"
    observed_generation: int = 0
    last_transition_time: str = ""
    reason: str = ""
    message: str = ""


class CustomObject(msgspec.Struct, frozen=True, kw_only=True):
    """What our own kinds have in common."""

    metadata: ObjectMeta
    spec: Any = None


class InferencePool(CustomObject, frozen=True, kw_only=True):
    """An InferencePool: ``inference.networking.k8s.io/v1`` or
    ``inference.networking.x-k8s.io/v1alpha2``."""


class ObjectiveStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` of an InferenceObjective."""

    conditions: tuple[Condition, ...] = ()


class InferenceObjective(CustomObject, frozen=True, kw_only=True):
    """An InferenceObjective, ``v1alpha2`` of either group."""

    status: ObjectiveStatus = ObjectiveStatus()


class InferenceModelRewrite(CustomObject, frozen=True, kw_only=True):
    """An InferenceModelRewrite, ``v1alpha2`` of either group."""
