"""What there is, in which version, and what became of it: no I/O, no clock.

Objects are never changed in place: what was handed out stays as it was.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

__all__ = ["Change", "Object", "Store", "at_version", "key_of"]

Object = dict[str, Any]
Key = tuple[str, str]


class Change(msgspec.Struct, frozen=True):
    """What became of one object: no ``old``, and it is new; no ``new``, and it is gone.

    ``lines`` keeps what was written of it to watches, so that many of them cost no more than one.
    """

    version: int
    old: Object | None
    new: Object | None
    lines: dict[tuple[str, str], bytes] = {}


def key_of(item: Mapping[str, Any]) -> Key:
    """Return namespace and name of an object."""
    metadata = item["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Store:
    """All objects by storage name of their kind, with one version that grows with every change.

    ``history_limit`` is how many changes of a kind are remembered, for watches that begin in the
    past and for lists that go on; what is older is expired.
    """

    def __init__(self, *, history_limit: int = 20_000, first_version: int = 1000) -> None:
        self.version = first_version
        self._history_limit = history_limit
        self._objects: dict[str, dict[Key, Object]] = {}
        self._history: dict[str, list[Change]] = {}
        self._compacted: dict[str, int] = {}
        self._compacted_all = 0
        self._listeners: list[Callable[[str], None]] = []

    def listen(self, listener: Callable[[str], None]) -> None:
        """Call this with the storage name after each change."""
        self._listeners.append(listener)

    def get(self, storage: str, namespace: str, name: str) -> Object | None:
        return self._objects.get(storage, {}).get((namespace, name))

    def items(self, storage: str, namespace: str = "") -> list[Object]:
        """Return the objects, of one namespace or of all, by namespace and name."""
        return self._sorted(self._objects.get(storage, {}), namespace)

    def items_at(self, storage: str, namespace: str, version: int) -> list[Object]:
        """Return the objects as they were at a version that is remembered."""
        state = dict(self._objects.get(storage, {}))
        for change in reversed(self.since(storage, version)):
            key = key_of(change.old or change.new or {})
            if change.old is None:
                del state[key]
            else:
                state[key] = change.old
        return self._sorted(state, namespace)

    def put(self, storage: str, item: Object) -> Object:
        """Store an object, new or changed, under the next version."""
        self.version += 1
        item = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        objects = self._objects.setdefault(storage, {})
        old = objects.get(key_of(item))
        objects[key_of(item)] = item
        self._remember(storage, Change(self.version, old, item, {}))
        return item

    def remove(self, storage: str, namespace: str, name: str) -> Object:
        """Take an object away; it is returned as its deletion tells of it."""
        self.version += 1
        old = self._objects[storage].pop((namespace, name))
        self._remember(storage, Change(self.version, old, None, {}))
        return at_version(old, self.version)

    def clear(self, storage: str) -> None:
        """Forget a kind altogether, as when its definition is deleted."""
        self._objects.pop(storage, None)
        self._history.pop(storage, None)
        self._compacted[storage] = self.version

    def compact(self) -> None:
        """Forget the past: every version but the present one is expired."""
        self._history.clear()
        self._compacted_all = self.version

    def oldest(self, storage: str) -> int:
        """Return the oldest version that a watch can begin at."""
        return max(self._compacted.get(storage, 0), self._compacted_all)

    def since(self, storage: str, version: int) -> list[Change]:
        """Return the changes after a version, which must not be expired."""
        history = self._history.get(storage, [])
        return history[bisect_right(history, version, key=lambda change: change.version) :]

    def newest(self, storage: str) -> Change:
        """Return the last change of a kind."""
        return self._history[storage][-1]

    def _remember(self, storage: str, change: Change) -> None:
        history = self._history.setdefault(storage, [])
        history.append(change)
        if len(history) > 2 * self._history_limit:  # seldom, since it moves all that stays
            del history[: len(history) - self._history_limit]
        if len(history) > self._history_limit:
            self._compacted[storage] = history[-self._history_limit - 1].version
        for listener in self._listeners:
            listener(storage)

    @staticmethod
    def _sorted(objects: Mapping[Key, Object], namespace: str) -> list[Object]:
        keys: Iterable[Key] = objects
        if namespace:
            keys = [key for key in objects if key[0] == namespace]
        return [objects[key] for key in sorted(keys)]


def at_version(item: Object, version: int) -> Object:
    """Return the object under another version."""
    return {**item, "metadata": {**item["metadata"], "resourceVersion": str(version)}}
