"""What ``epp serve`` can be told of the cluster that its resources come from."""

from epp.discovery.cluster import ClusterOptions, LeaderLabelOptions, PoolKind

__all__ = ["ClusterOptions", "LeaderLabelOptions", "PoolKind"]
