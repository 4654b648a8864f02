"""Objects for tests, as short as they can be; everything can be changed by the caller."""

from collections.abc import Mapping, Sequence
from typing import Any

from .kinds import EXPERIMENTAL, GATEWAY
from .store import Object

__all__ = [
    "lease",
    "model_rewrite",
    "objective",
    "pod",
    "pool",
    "pool_import",
    "pool_v1alpha2",
    "renamed",
]


def _metadata(
    name: str,
    namespace: str,
    labels: Mapping[str, str] | None,
    annotations: Mapping[str, str] | None,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if labels is not None:
        metadata["labels"] = dict(labels)
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    return metadata


def pod(
    name: str,
    address: str | None = "127.0.0.1",
    *,
    namespace: str = "default",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    ready: bool = True,
    phase: str = "Running",
    node: str = "node-1",
) -> Object:
    """Return a pod on a node; its label ``app`` is ``model`` unless told otherwise."""
    labels = {"app": "model"} if labels is None else labels
    since = "2026-01-01T00:00:00Z"
    conditions = [
        {"type": kind, "status": str(ready), "lastProbeTime": None, "lastTransitionTime": since}
        for kind in ("ContainersReady", "Ready")
    ]
    conditions.insert(0, {"type": "PodScheduled", "status": "True", "lastTransitionTime": since})
    status: dict[str, Any] = {"phase": phase, "conditions": conditions}
    if address is not None:
        status |= {"podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(name, namespace, labels, annotations),
        "spec": {"nodeName": node, "containers": [{"name": "server", "image": "model"}]},
        "status": status,
    }


def pool(
    name: str = "pool",
    ports: Sequence[int] = (8000,),
    *,
    namespace: str = "default",
    selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    failure_mode: str = "FailClose",
) -> Object:
    """Return an InferencePool v1 that selects ``app: model``."""
    return {
        "apiVersion": f"{GATEWAY}/v1",
        "kind": "InferencePool",
        "metadata": _metadata(name, namespace, labels, annotations),
        "spec": {
            "selector": {"matchLabels": dict(selector or {"app": "model"})},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {
                "name": "epp",
                "port": {"number": 9002},
                "failureMode": failure_mode,
            },
        },
    }


def pool_v1alpha2(
    name: str = "pool",
    port: int = 8000,
    *,
    namespace: str = "default",
    selector: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    failure_mode: str = "FailClose",
) -> Object:
    """Return an InferencePool v1alpha2 that selects ``app: model``."""
    return {
        "apiVersion": f"{EXPERIMENTAL}/v1alpha2",
        "kind": "InferencePool",
        "metadata": _metadata(name, namespace, labels, annotations),
        "spec": {
            "selector": dict(selector or {"app": "model"}),
            "targetPortNumber": port,
            "extensionRef": {"name": "epp", "portNumber": 9002, "failureMode": failure_mode},
        },
    }


def objective(
    name: str,
    priority: int = 0,
    *,
    pool: str = "pool",
    namespace: str = "default",
    group: str = EXPERIMENTAL,
    pool_group: str = GATEWAY,
) -> Object:
    """Return an InferenceObjective."""
    return {
        "apiVersion": f"{group}/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": _metadata(name, namespace, None, None),
        "spec": {
            "priority": priority,
            "poolRef": {"group": pool_group, "kind": "InferencePool", "name": pool},
        },
    }


def model_rewrite(
    name: str,
    rules: Sequence[Mapping[str, Any]],
    *,
    pool: str = "pool",
    namespace: str = "default",
    group: str = EXPERIMENTAL,
    pool_group: str = GATEWAY,
) -> Object:
    """Return an InferenceModelRewrite with these rules."""
    return {
        "apiVersion": f"{group}/v1alpha2",
        "kind": "InferenceModelRewrite",
        "metadata": _metadata(name, namespace, None, None),
        "spec": {
            "poolRef": {"group": pool_group, "kind": "InferencePool", "name": pool},
            "rules": [dict(rule) for rule in rules],
        },
    }


def pool_import(
    name: str = "pool",
    clusters: Sequence[str] = (),
    *,
    namespace: str = "default",
    controller: str = "example.com/exporter",
) -> Object:
    """Return an InferencePoolImport whose status names the exporting clusters."""
    return {
        "apiVersion": f"{EXPERIMENTAL}/v1alpha1",
        "kind": "InferencePoolImport",
        "metadata": _metadata(name, namespace, None, None),
        "status": {
            "controllers": [
                {
                    "name": controller,
                    "exportingClusters": [{"name": cluster} for cluster in clusters],
                    "parents": [],
                }
            ]
        },
    }


def lease(
    name: str,
    holder: str,
    renew_time: str,
    *,
    namespace: str = "default",
    duration_s: int = 8,
    transitions: int = 0,
) -> Object:
    """Return a Lease; the time is one with six digits after the point."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": _metadata(name, namespace, None, None),
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": duration_s,
            "acquireTime": renew_time,
            "renewTime": renew_time,
            "leaseTransitions": transitions,
        },
    }


def renamed(item: Object, name: str) -> Object:
    """Return a copy under another name."""
    return {**item, "metadata": {**item["metadata"], "name": name}}
