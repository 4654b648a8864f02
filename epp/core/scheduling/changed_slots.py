"""Which endpoints of a pool somebody has to look at again."""

from epp.core.pool import Pool

__all__ = ["ChangedSlots"]


class ChangedSlots:
    """For one who keeps something of each endpoint: those that he has not seen as they are now."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._version = -1

    def take(self, pool: Pool) -> list[int]:
        """Return the slots of the endpoints that have joined or changed since the last call; of all
        where that was for another pool."""
        if pool is not self._pool:
            self._pool, self._version = pool, -1
        if pool.version == self._version:
            return []
        slots = pool.changed_since(self._version)
        self._version = pool.version
        return slots
