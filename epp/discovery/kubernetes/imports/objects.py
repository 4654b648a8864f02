"""Objects of the API that tell of pools of other clusters."""

from typing import Any, Final

import msgspec

from epp.core.resources import PoolSpec
from epp.discovery.audience import read_audience
from epp.discovery.declared import EXPERIMENTAL_GROUP, DeclaredPool
from epp.discovery.kubernetes.objects import CustomObject, InferencePool
from epp.discovery.kubernetes.reading import BadObject

__all__ = [
    "EXPORT_ANNOTATION",
    "EXPORT_TO_ALL",
    "IMPORT_API_VERSION",
    "IMPORT_KIND",
    "ExportingCluster",
    "ImportController",
    "ImportStatus",
    "InferencePoolImport",
    "MemberPool",
    "exporting_clusters",
    "read_import",
]

IMPORT_KIND: Final = "InferencePoolImport"
IMPORT_API_VERSION: Final = f"{EXPERIMENTAL_GROUP}/v1alpha1"

EXPORT_ANNOTATION: Final = "inference.networking.x-k8s.io/export"
"""The annotation of an InferencePool that is to be exported."""

EXPORT_TO_ALL: Final = "ClusterSet"
"""Its only value: to all clusters that are members."""


class ExportingCluster(msgspec.Struct, frozen=True):
    """A cluster that exports a pool."""

    name: str


class ImportController(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """What one controller has to say of an import; ``name`` is a domain, a slash and a path.

    ``exporting_clusters`` is what the controller that keeps the import says. ``conditions`` are as
    they came.
    """

    name: str
    exporting_clusters: tuple[ExportingCluster, ...] = ()
    conditions: tuple[Any, ...] = ()


class ImportStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``status`` of an InferencePoolImport."""

    controllers: tuple[ImportController, ...] = ()


class InferencePoolImport(CustomObject, frozen=True, kw_only=True):
    """An InferencePoolImport, ``inference.networking.x-k8s.io/v1alpha1``: it has no spec."""

    status: ImportStatus = ImportStatus()


class MemberPool(InferencePool, frozen=True, kw_only=True):
    """An InferencePool with its ``status``, which is left as it came."""

    status: Any = None

    @property
    def export(self) -> str | None:
        """What the export annotation says; None where there is none, or the pool is going."""
        if self.metadata.deletion_timestamp is not None:
            return None
        return self.metadata.annotations.get(EXPORT_ANNOTATION)


def exporting_clusters(found: InferencePoolImport) -> tuple[str, ...]:
    """Return the clusters that back an import, in the order of their names, whichever controllers
    name them."""
    listed = (each.exporting_clusters for each in found.status.controllers)
    return tuple(sorted({cluster.name for clusters in listed for cluster in clusters}))


def read_import(found: InferencePoolImport, group: str) -> DeclaredPool:
    """Return which pool an InferencePoolImport declares. Raises BadObject."""
    metadata = found.metadata
    audience = read_audience(metadata.annotations)
    if audience.problems:
        raise BadObject("; ".join(f"{path}: {text}" for path, text in audience.problems))
    spec = PoolSpec(
        name=metadata.name,
        namespace=metadata.namespace,
        group=group,
        kind=IMPORT_KIND,
        authorities=audience.authorities,
        models=audience.models,
    )
    return DeclaredPool(spec, metadata.labels)
