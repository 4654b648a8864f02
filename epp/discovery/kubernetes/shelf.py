"""All objects of one of our own kinds: as they came, and what they declare."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec

from epp.discovery.kubernetes.objects import CustomObject
from epp.discovery.kubernetes.reading import BadObject
from epp.discovery.kubernetes.watch.mirror import Changes

__all__ = ["Difference", "Shelf"]

_Object = TypeVar("_Object", bound=CustomObject)
_Declared = TypeVar("_Declared")


class Difference(msgspec.Struct, Generic[_Declared], frozen=True):
    """What an object declared before and what it declares now, None for nothing."""

    name: str
    before: _Declared | None
    after: _Declared | None


class Shelf(Generic[_Object, _Declared]):
    """The objects of a ``kind`` and API ``group`` in one namespace, by name.

    ``read`` returns what an object of the group declares or raises BadObject. Then what it declared
    before stays, and the reason is kept as long as the object is no good. An object that is being
    deleted is as good as gone.
    """

    def __init__(self, kind: str, group: str, read: Callable[[_Object, str], _Declared]) -> None:
        self._kind = kind
        self._group = group
        self._read = read
        self._objects: dict[str, _Object] = {}
        self._declared: dict[str, _Declared] = {}
        self._problems: dict[str, str] = {}
        self._rejections: list[str] = []

    @property
    def objects(self) -> Mapping[str, _Object]:
        """All objects, good or not, as they are now."""
        return MappingProxyType(self._objects)

    @property
    def declared(self) -> Mapping[str, _Declared]:
        """What the objects declare: of one that is no good, what it declared when it was."""
        return MappingProxyType(self._declared)

    @property
    def problems(self) -> Mapping[str, str]:
        """Why objects are no good: a line for each of them."""
        return MappingProxyType(self._problems)

    def take(self, changes: Changes[_Object]) -> Iterator[Difference[_Declared]]:
        """Take over what has become of the objects; yields every difference that it makes. It must
        be read to its end."""
        for gone in changes.gone:
            yield from self._remove(gone.metadata.name)
        for found in changes.present:
            if found.metadata.deletion_timestamp is None:
                yield from self._put(found)
            else:
                yield from self._remove(found.metadata.name)

    def take_rejections(self) -> list[str]:
        """Return a line for each object that was found to be no good since the last call; one that
        is so for the same reason as before is not told of again."""
        rejections, self._rejections = self._rejections, []
        return rejections

    def _put(self, found: _Object) -> Iterator[Difference[_Declared]]:
        name = found.metadata.name
        self._objects[name] = found
        try:
            after = self._read(found, self._group)
        except BadObject as error:
            reason = str(error)
            if self._problems.get(name) != reason:
                title = f"{self._kind}.{self._group} {found.metadata.namespace}/{name}"
                self._rejections.append(f"{title}: {reason}")
            self._problems[name] = reason
            return
        self._problems.pop(name, None)
        before = self._declared.get(name)
        if before != after:
            self._declared[name] = after
            yield Difference(name, before, after)

    def _remove(self, name: str) -> Iterator[Difference[_Declared]]:
        self._objects.pop(name, None)
        self._problems.pop(name, None)
        before = self._declared.pop(name, None)
        if before is not None:
            yield Difference(name, before, None)
