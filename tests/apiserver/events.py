"""The two versions of an event, which are stored as one."""

from .kinds import Kind
from .store import Object

__all__ = ["served", "stored"]

_STORED_NAMES = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_SERVED_NAMES = {new: old for old, new in _STORED_NAMES.items()}


def stored(kind: Kind, item: Object) -> Object:
    """Return an object of this kind as it is stored: events as those of the core group."""
    if kind.kind != "Event" or not kind.group:
        return item
    renamed = {_STORED_NAMES.get(name, name): value for name, value in item.items()}
    return {**renamed, "apiVersion": "v1"}


def served(kind: Kind, item: Object) -> Object:
    """Return a stored object as this kind shows it."""
    if kind.kind != "Event" or not kind.group:
        return item
    renamed = {_SERVED_NAMES.get(name, name): value for name, value in item.items()}
    return {**renamed, "apiVersion": kind.api_version}
