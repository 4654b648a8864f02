"""Leases of ``coordination.k8s.io/v1``, to and from what an election knows of them."""

import math
from datetime import datetime
from typing import Any

import msgspec

from epp.discovery.kubernetes.election.election import LeaseRecord
from epp.discovery.kubernetes.objects import Meta
from epp.discovery.kubernetes.text import micro_time

__all__ = ["Lease", "LeaseMeta", "LeaseSpec", "lease_of", "lease_path", "record_of"]


class LeaseMeta(Meta, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """``metadata`` of a Lease: what a write must repeat in order not to remove it."""

    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    owner_references: list[Any] = msgspec.field(default_factory=list)
    finalizers: list[str] = msgspec.field(default_factory=list)


class LeaseSpec(msgspec.Struct, rename="camel", frozen=True, kw_only=True, omit_defaults=True):
    """``spec`` of a Lease. Times are RFC 3339 with microseconds."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """A Lease."""

    metadata: LeaseMeta
    spec: LeaseSpec = LeaseSpec()
    api_version: str = "coordination.k8s.io/v1"
    kind: str = "Lease"


def lease_path(namespace: str, name: str = "") -> str:
    """Return the path of a Lease, or of all of the namespace."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    return f"{path}/{name}" if name else path


def record_of(lease: Lease) -> LeaseRecord:
    """Return what a Lease says."""
    spec = lease.spec
    return LeaseRecord(
        holder=spec.holder_identity or "",
        duration_s=float(max(0, spec.lease_duration_seconds or 0)),
        acquired=spec.acquire_time or "",
        renewed=spec.renew_time or "",
        transitions=spec.lease_transitions or 0,
        version=lease.metadata.resource_version,
    )


def lease_of(record: LeaseRecord, metadata: LeaseMeta, now: datetime) -> Lease:
    """Return the Lease to write. ``metadata`` is what it had, but for the version; ``now`` is the
    time of the write, with a time zone."""
    written_at = micro_time(now)
    return Lease(
        metadata=msgspec.structs.replace(metadata, resource_version=record.version),
        spec=LeaseSpec(
            holder_identity=record.holder,
            # Whole seconds, and never fewer: others must not take it before the holder gives up.
            lease_duration_seconds=max(1, math.ceil(record.duration_s)),
            acquire_time=record.acquired or written_at,
            renew_time=record.renewed or written_at,
            lease_transitions=record.transitions,
        ),
    )
