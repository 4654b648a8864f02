"""One watch: which events of the store its client gets, as lines of JSON."""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from .errors import Refusal, expired, invalid
from .events import served
from .lists import too_large, version_of
from .requests import Asked, Recorded
from .selectors import everything, field_selector, label_selector
from .store import Change, Object, Store, at_version

__all__ = ["Watch"]

_INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_MAX_PENDING = 100_000
_encode = msgspec.json.Encoder().encode


class Watch:
    """What a client watches.

    ``pending`` are the changes it has not been told of; ``wake`` is set when there is something to
    do; ``ending`` says how it is to end, once it is.
    """

    def __init__(
        self,
        store: Store,
        asked: Asked,
        query: Mapping[str, str],
        recorded: Recorded,
        *,
        chance: random.Random,
        whole_s: tuple[float, float],
    ) -> None:
        self.asked = asked
        self.recorded = recorded
        self.wake = asyncio.Event()
        self.pending: deque[Change] = deque()
        self.ending: str = ""
        self.bookmark_due = False
        self.with_bookmarks = query.get("allowWatchBookmarks", "").lower() in ("1", "true")
        timeout_s = int(query.get("timeoutSeconds") or 0)
        self.timeout_s = timeout_s or chance.uniform(*whole_s)
        self._store = store
        self._labels = label_selector(query.get("labelSelector", ""))
        self._fields = field_selector(asked.kind, query.get("fieldSelector", ""))
        self._initial_items = False
        self._initial_end = query.get("sendInitialEvents", "").lower() in ("1", "true")
        self._from_version = self._check(query)

    def begin(self) -> list[bytes]:
        """Return the lines with which it begins."""
        store, kind = self._store, self.asked.kind
        if self._initial_items:
            items = store.items(kind.storage, self.asked.namespace)
            lines = [self._line("ADDED", item) for item in items if self._wants(item)]
            if self._initial_end and self.with_bookmarks:
                lines.append(self._bookmark({_INITIAL_EVENTS_END: "true"}))
            return lines
        if self._from_version < store.oldest(kind.storage):
            self.ending = "clean"
            refusal = expired(self._from_version, store.oldest(kind.storage))
            return [self.error(refusal)]
        changes = store.since(kind.storage, self._from_version)
        self.pending.extend(change for change in changes if self._is_mine(change))
        return []

    def tell(self, change: Change) -> None:
        """Take in a change of the kind."""
        if not self._is_mine(change):
            return
        if len(self.pending) >= _MAX_PENDING:
            self.ending = "clean"
        self.pending.append(change)
        self.wake.set()

    def end(self, how: str) -> None:
        """Let it end: ``clean``, or ``reset`` in the middle of a chunk."""
        self.ending = how
        self.wake.set()

    def mark(self) -> None:
        """Send a bookmark, if the client takes any."""
        self.bookmark_due = self.with_bookmarks
        self.wake.set()

    def drain(self) -> list[bytes]:
        """Return the lines of what is pending, and the bookmark that is due."""
        lines = []
        while self.pending:
            line = self._line_of(self.pending.popleft())
            if line:
                lines.append(line)
        if self.bookmark_due:
            self.bookmark_due = False
            lines.append(self._bookmark({}))
        return lines

    def error(self, refusal: Refusal) -> bytes:
        """Return the line that tells of an error."""
        return _encode({"type": "ERROR", "object": refusal.status()}) + b"\n"

    def _check(self, query: Mapping[str, str]) -> int:
        """Return the version after which it begins."""
        version = version_of(query)
        if query.get("sendInitialEvents"):
            if query.get("resourceVersionMatch") != "NotOlderThan":
                problem = (
                    "Forbidden: sendInitialEvents requires setting resourceVersionMatch to "
                    "NotOlderThan"
                )
                field = "resourceVersionMatch"
                raise invalid("ListOptions", "", field, problem, "FieldValueForbidden")
            self._initial_items = self._initial_end
            if version and version > self._store.version:
                raise too_large(version, self._store.version)
        elif query.get("resourceVersionMatch"):
            problem = (
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents "
                "is provided"
            )
            field = "resourceVersionMatch"
            raise invalid("ListOptions", "", field, problem, "FieldValueForbidden")
        else:
            self._initial_items = not version
        return version or self._store.version

    def _is_mine(self, change: Change) -> bool:
        namespace = self.asked.namespace
        metadata = (change.new or change.old or {})["metadata"]
        mine = not namespace or metadata.get("namespace", "") == namespace
        return mine and change.version > self._from_version

    def _wants(self, item: Object | None) -> bool:
        if item is None:
            return False
        if self._fields is everything:
            return self._labels(item)
        return self._labels(item) and self._fields(served(self.asked.kind, item))

    def _line_of(self, change: Change) -> bytes | None:
        """Return the line for a change; what begins or ceases to match is added or deleted."""
        before, after = self._wants(change.old), self._wants(change.new)
        if not before and not after:
            return None
        if after:
            kind, item = ("MODIFIED" if before else "ADDED"), change.new
        else:
            kind, item = "DELETED", at_version(change.old or {}, change.version)
        key = (kind, self.asked.kind.group)
        line = change.lines.get(key)
        if line is None:
            line = change.lines[key] = self._line(kind, item or {})
        return line

    def _line(self, event: str, item: Object) -> bytes:
        return _encode({"type": event, "object": served(self.asked.kind, item)}) + b"\n"

    def _bookmark(self, annotations: dict[str, str]) -> bytes:
        kind = self.asked.kind
        metadata: dict[str, Any] = {"resourceVersion": str(self._store.version)}
        if annotations:
            metadata["annotations"] = annotations
        item = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
        if not kind.builtin:
            metadata["creationTimestamp"] = None
        elif kind.kind == "Pod":  # what a bare one looks like
            item |= {"spec": {"containers": None}, "status": {}}
        return _encode({"type": "BOOKMARK", "object": item}) + b"\n"
