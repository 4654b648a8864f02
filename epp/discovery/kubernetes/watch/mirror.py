"""What is known of one collection of the API server: a pure function of what it has said.

The API server tells of a collection in two ways: a list, which is all of it as of one
``resourceVersion``, and events of a watch, each of which tells of one object as of another. The
rules by which a mirror takes them:

* *A list wins.* What it has is known, what it has not is gone, and the version is the list's, even
  where it is lower than what was known: versions go back when a cluster's storage is restored.
* *An event counts if it is newer than the mirror.* The versions of a collection's events increase
  strictly, and all of them are above that of the list that the watch goes on from. So an event
  whose version is not above the mirror's has been taken already, or is out of date. That covers
  deletions as well: an old event cannot bring back what was deleted since, without tombstones.
* *Versions are compared as numbers where both are decimal numbers.* They are specified that way
  from Kubernetes 1.35 on, and have been revisions of etcd ever before. Others are opaque: there,
  only an event of the very version that the mirror has is taken for a repetition, and the order
  within a watch, which the API server guarantees, does the rest.
* *A bookmark* moves the version on and changes nothing else.
"""

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Changes", "Key", "KubernetesObject", "Mirror", "ObjectMeta", "key_of"]


class ObjectMeta(Protocol):
    """The metadata that every object has."""

    @property
    def namespace(self) -> str:
        """The namespace, empty for what has none."""

    @property
    def name(self) -> str:
        """The name, unique in the namespace and the collection."""

    @property
    def resource_version(self) -> str:
        """The version of this object as it is here."""


class KubernetesObject(Protocol):
    """An object of the API, whatever of it is wanted."""

    @property
    def metadata(self) -> ObjectMeta:
        """The object's metadata."""


class Key(NamedTuple):
    """What tells the objects of one collection apart."""

    namespace: str
    name: str


T = TypeVar("T", bound=KubernetesObject)


class Changes(NamedTuple, Generic[T]):
    """What has become of a collection: ``present`` are the objects that are new or changed, as they
    are now; ``gone`` those that are no more, as they were when last seen. An object that was
    deleted and made again while nobody was told is one that has changed (its ``uid`` has)."""

    present: tuple[T, ...] = ()
    gone: tuple[T, ...] = ()


def key_of(metadata: ObjectMeta) -> Key:
    """Return the key of the object that has this metadata."""
    return Key(metadata.namespace, metadata.name)


class Mirror(Generic[T]):
    """The objects of one collection by key, as of :attr:`version`."""

    def __init__(self) -> None:
        self._objects: dict[Key, T] = {}
        self._version = ""
        self._number: int | None = None

    @property
    def version(self) -> str:
        """The ``resourceVersion`` from which a watch goes on; empty if there was no list yet."""
        return self._version

    @property
    def objects(self) -> Mapping[Key, T]:
        """What is known now: a view, not a copy."""
        return MappingProxyType(self._objects)

    def replace(self, items: Iterable[T], version: str, kept: Collection[Key] = ()) -> Changes[T]:
        """Take a list. ``kept`` are keys of objects that exist but could not be read: what was
        known of them stays. An object whose version is the same is the same."""
        before = self._objects
        now = {key: before[key] for key in kept if key in before}
        present: list[T] = []
        for item in items:
            metadata = item.metadata
            key = key_of(metadata)
            known = before.get(key)
            if known is not None and known.metadata.resource_version == metadata.resource_version:
                now[key] = known
            else:
                now[key] = item
                present.append(item)
        gone = tuple(item for key, item in before.items() if key not in now)
        self._objects = now
        self._move_to(version)
        return Changes(tuple(present), gone)

    def put(self, item: T) -> Changes[T] | None:
        """Take an event that tells of an object as it is now; None if it tells nothing new."""
        metadata = item.metadata
        if not self.bookmark(metadata.resource_version):
            return None
        self._objects[key_of(metadata)] = item
        return Changes((item,), ())

    def delete(self, metadata: ObjectMeta) -> Changes[T] | None:
        """Take an event that tells of a deletion; None if it tells nothing new."""
        if not self.bookmark(metadata.resource_version):
            return None
        known = self._objects.pop(key_of(metadata), None)
        return None if known is None else Changes((), (known,))

    def bookmark(self, version: str) -> bool:
        """Take over a version if it is newer than the mirror's, and tell whether it was.

        An event whose object could not be read is a bookmark as well: what was known of it stays.
        """
        if self._number is not None and version.isdecimal():
            if int(version) <= self._number:
                return False
        elif version in ("", self._version):
            return False
        self._move_to(version)
        return True

    def is_ahead_of(self, version: str) -> bool:
        """Tell whether this is a version from before the mirror's, which an API server has only
        where its versions have gone back."""
        return self._number is not None and version.isdecimal() and int(version) < self._number

    def _move_to(self, version: str) -> None:
        self._version = version
        self._number = int(version) if version.isdecimal() else None
