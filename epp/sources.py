"""Where the resources come from, as the options say."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from epp.config import ServeOptions
from epp.discovery.files import FileSource
from epp.discovery.source import ResourceListener, ResourceSource
from epp.observability.metrics import Metrics

if TYPE_CHECKING:
    from epp.cluster import Cluster

__all__ = ["make_source"]


def make_source(
    options: ServeOptions, metrics: Metrics, on_standing: Callable[[], None]
) -> "tuple[ResourceSource, Cluster | None]":
    """Return the source of the options, and the cluster where it is one.

    ``on_standing`` is called when this has become the leader of the EPPs, or is so no more. Raises
    UsageError.
    """
    if options.cluster is None:
        return _Manifests(options, metrics), None
    from epp.cluster import Cluster  # what it needs takes half a second to import

    cluster = Cluster(options.cluster, metrics, on_standing)
    return cluster, cluster


class _Manifests:
    """Files (:class:`epp.discovery.source.ResourceSource`)."""

    def __init__(self, options: ServeOptions, metrics: Metrics) -> None:
        self._files = FileSource(
            options.manifests,
            pool_names=options.pool_names,
            pool_selector=options.pool_selector,
            pool_namespace=options.pool_namespace,
            on_lookup_failure=lambda name: metrics.name_unresolved(),
        )

    async def load(self, listener: ResourceListener) -> None:
        """Read them now; raises ManifestError."""
        for resources in await self._files.load():
            listener.pool_applied(resources)

    async def run(self, listener: ResourceListener) -> None:
        """Watch them."""
        await self._files.run(listener)
