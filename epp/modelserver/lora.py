"""The adapter slots of an engine: which LoRA adapters are loaded, and which of them are in use."""

from collections import OrderedDict

__all__ = ["LoraSlots"]


class LoraSlots:
    """``max_loras`` slots; an adapter stays loaded until another one needs its idle slot.

    ``None`` stands for the base model, which needs no slot.
    """

    def __init__(self, max_loras: int) -> None:
        self.max_loras = max_loras
        # The running sequences of each loaded adapter; least recently taken first.
        self._users: OrderedDict[str, int] = OrderedDict()

    def has_room_for(self, adapter: str | None) -> bool:
        """Whether a sequence of this adapter could run now."""
        return (
            adapter is None
            or adapter in self._users
            or len(self._users) < self.max_loras
            or 0 in self._users.values()
        )

    def take(self, adapter: str | None) -> bool:
        """Give a sequence its adapter, for which there must be room; say if it had to be loaded."""
        if adapter is None:
            return False
        loaded = adapter in self._users
        if not loaded and len(self._users) >= self.max_loras:
            idle = next(name for name, users in self._users.items() if not users)
            del self._users[idle]
        self._users[adapter] = self._users.get(adapter, 0) + 1
        self._users.move_to_end(adapter)
        return not loaded

    def give_back(self, adapter: str | None) -> None:
        """End the use that one :meth:`take` began."""
        if adapter is not None:
            self._users[adapter] -= 1

    def in_use(self) -> list[str]:
        """Return the adapters of running sequences, sorted by name."""
        return sorted(name for name, users in self._users.items() if users)
