"""Where the endpoints of a pool are, by what sessions remember them by."""

from collections.abc import Callable

from epp.core.pool import Pool

__all__ = ["EndpointTable"]


class EndpointTable:
    """The slots of the endpoints, by a key that ``key_of`` makes of an endpoint's name.

    A name outlives address and slot: a pod that comes back under its name is found again.
    """

    def __init__(self, key_of: Callable[[str], str] = str) -> None:
        self._key_of = key_of
        self._slots: dict[str, int] = {}
        self._keys: dict[int, str] = {}
        self._pool: Pool | None = None

    def joined(self, pool: Pool, slot: int) -> None:
        """An endpoint is in this slot now."""
        self.freed(slot)
        self._pool = pool
        key = self._keys[slot] = self._key_of(pool.endpoint(slot).name)
        self._slots[key] = slot

    def freed(self, slot: int) -> None:
        """The endpoint that was in this slot is not there any more."""
        key = self._keys.pop(slot, None)
        if key is not None and self._slots.get(key) == slot:
            del self._slots[key]

    def find(self, key: str) -> int | None:
        """Return the slot of an endpoint of the pool, whether it has room or not; None where it has
        left, or was never there."""
        slot = self._slots.get(key)
        if slot is None or self._pool is None or not self._pool.active[slot]:
            return None
        return slot
