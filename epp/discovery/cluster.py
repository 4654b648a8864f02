"""Which pools of which cluster are served: what every part of the talk with it needs to know."""

from pathlib import Path
from typing import Final, Literal

import msgspec

__all__ = ["LONGEST_LEASE_S", "ClusterOptions", "LeaderLabelOptions", "PoolKind"]

PoolKind = Literal["InferencePool", "InferencePoolImport"]

LONGEST_LEASE_S: Final = 3600.0
"""What a Lease may claim; one that says more is a mistake that must not last for ever. Nobody may
renew one for longer: others would take it before its holder gives up."""


class LeaderLabelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The label that the leader's pod bears, and which pod of which namespace this process is."""

    key: str
    value: str
    pod: str
    namespace: str


class ClusterOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which pools of which cluster are served, and by which of several EPPs.

    Either ``pool_names`` or ``pool_selector``, a label selector on pools, says which pools of the
    namespace; or there is no pool object, and the pods that ``endpoint_selector`` selects are the
    one pool ``standalone_name``, at ``endpoint_target_ports``. ``pool_group`` is the API group of
    the pools, which also tells their version. With ``pool_kind`` InferencePoolImport the endpoints
    come from ``member_contexts`` of the kubeconfig; with ``act_as_exporting_controller`` imports
    there are kept as pools are exported.

    ``kubeconfig`` None stands for the service account of the pod, or, outside a cluster, for the
    file that kubectl would use; ``context`` None for its current one.

    With ``leader_election`` only the holder of the lease ``lease_name`` is ready. It renews it
    every ``renew_interval_s``; it is another's to take ``lease_duration_s`` after the last renewal
    that others have seen. ``identity`` names this process among those that want it.
    ``leader_label`` None: no pod is labelled.
    """

    pool_names: tuple[str, ...] = ()
    pool_selector: str = ""
    pool_namespace: str = "default"
    pool_group: str = "inference.networking.k8s.io"
    pool_kind: PoolKind = "InferencePool"
    endpoint_selector: str = ""
    endpoint_target_ports: tuple[int, ...] = ()
    standalone_name: str = "epp"
    kubeconfig: Path | None = None
    context: str | None = None
    member_contexts: tuple[str, ...] = ()
    act_as_exporting_controller: bool = False
    leader_election: bool = False
    lease_name: str = ""
    lease_duration_s: float = 8.0
    renew_interval_s: float = 2.0
    identity: str = ""
    leader_label: LeaderLabelOptions | None = None
