"""What every source of resources hands over, and to whom."""

from typing import Protocol

from epp.core.resources import EndpointChanges, PoolResources

__all__ = ["ResourceListener", "ResourceSource"]


class ResourceListener(Protocol):
    """Who hears what becomes of the pools.

    A pool is named by its :attr:`~epp.core.resources.PoolSpec.key`. None of the methods waits or
    raises.
    """

    def pool_applied(self, resources: PoolResources) -> None:
        """A pool is new, or anything of it has changed: this is all of it."""

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        """Nothing but some endpoints of a pool that is known has changed."""

    def pool_gone(self, key: str) -> None:
        """There is no such pool any more."""

    def rejected(self) -> None:
        """Something that was found is no good, and what was there before it stays."""


class ResourceSource(Protocol):
    """Where resources come from."""

    async def load(self, listener: ResourceListener) -> None:
        """Hand over what there is now. Raises UsageError where that is no good."""

    async def run(self, listener: ResourceListener) -> None:
        """Hand over what becomes of it, until cancelled."""
