"""Which manager owns which fields, and server-side apply by it.

A path is a tuple of elements as ``fieldsV1`` writes them: ``f:`` and a field's name, or ``k:`` and
the keys of a list's item. Lists that are known to be maps are those of :data:`LIST_KEYS`; all
others are owned as a whole.
"""

import json
from collections.abc import Iterable
from typing import Any

from .errors import Refusal
from .kinds import Kind
from .store import Object

__all__ = ["apply_fields", "track_update"]

Path = tuple[str, ...]

LIST_KEYS = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "controllers": ("name",),
}
_NOBODYS = {
    "name",
    "namespace",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "resourceVersion",
    "selfLink",
    "uid",
}
_ITEM = object()


def _flat(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Return the leaves of an object by path, and the items of lists that are maps."""
    if isinstance(value, dict) and value:
        leaves: dict[Path, Any] = {}
        for name, inner in value.items():
            leaves |= _flat(inner, (*path, f"f:{name}"))
        return leaves
    keys = LIST_KEYS.get(path[-1][2:]) if path else None
    if keys and isinstance(value, list) and value and _have(value, keys):
        leaves = {}
        for item in value:
            at = (*path, _item_element(item, keys))
            leaves[at] = _ITEM
            leaves |= _flat(item, at)
        return leaves
    return {path: value}


def _have(items: list[Any], keys: tuple[str, ...]) -> bool:
    return all(isinstance(item, dict) and all(key in item for key in keys) for item in items)


def _item_element(item: dict[str, Any], keys: tuple[str, ...]) -> str:
    return "k:" + json.dumps({key: item[key] for key in keys}, separators=(",", ":"))


def _owned_part(item: Object, *, only_status: bool) -> dict[Path, Any]:
    """Return the fields that can have an owner."""
    part = {key: item[key] for key in item if key not in ("apiVersion", "kind")}
    part["metadata"] = {k: v for k, v in item["metadata"].items() if k not in _NOBODYS}
    if only_status:
        part = {"status": part["status"]} if "status" in part else {}
    return {path: value for path, value in _flat(part).items() if path and value != {}}


def _write(paths: Iterable[Path]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for path in sorted(paths):
        at = fields
        for element in path:
            at = at.setdefault(element, {})
        if path[-1].startswith("k:"):
            at["."] = {}
    return fields


def _read(fields: dict[str, Any], path: Path = ()) -> set[Path]:
    paths: set[Path] = {path} if path and (not fields or "." in fields) else set()
    for element, inner in fields.items():
        if element != ".":
            paths |= _read(inner, (*path, element))
    return paths


class _Owners:
    """The entries of ``managedFields``."""

    def __init__(self, item: Object | None) -> None:
        entries = (item or {}).get("metadata", {}).get("managedFields", [])
        self._entries = [(entry, _read(entry["fieldsV1"])) for entry in entries]

    def of(self, manager: str, operation: str, subresource: str) -> set[Path]:
        for entry, paths in self._entries:
            if _is(entry, manager, operation, subresource):
                return paths
        return set()

    def others(self, manager: str, operation: str, subresource: str) -> list[tuple[Any, set[Path]]]:
        return [
            (entry, paths)
            for entry, paths in self._entries
            if not _is(entry, manager, operation, subresource)
        ]

    def written(
        self,
        entry: dict[str, Any],
        paths: set[Path],
        lost: set[Path],
        present: set[Path],
    ) -> list[dict[str, Any]]:
        """Return the entries where ``entry`` has these paths, and the others lose the ``lost``."""
        key = (entry["manager"], entry["operation"], entry.get("subresource", ""))
        entries = [(other, (theirs - lost) & present) for other, theirs in self.others(*key)]
        found = self._entries and next(
            (e for e, p in self._entries if _is(e, *key) and p == paths), 0
        )
        entries.append((found or entry, paths))
        entries.sort(key=lambda told: told[0]["operation"])  # what was applied comes first
        return [{**other, "fieldsV1": _write(theirs)} for other, theirs in entries if theirs]


def _is(entry: dict[str, Any], manager: str, operation: str, subresource: str) -> bool:
    key = (entry["manager"], entry["operation"], entry.get("subresource", ""))
    return key == (manager, operation, subresource)


def _entry(kind: Kind, manager: str, operation: str, subresource: str, time: str) -> dict[str, Any]:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": kind.api_version,
        "time": time,
        "fieldsType": "FieldsV1",
    }
    return {**entry, "subresource": subresource} if subresource else entry


def track_update(
    kind: Kind, old: Object | None, new: Object, *, manager: str, subresource: str, time: str
) -> Object:
    """Return the object with what an update has changed as the manager's own."""
    before = _owned_part(old, only_status=False) if old else {}
    after = _owned_part(new, only_status=False)
    changed = {path for path, value in after.items() if before.get(path) != value}
    owners = _Owners(old)
    mine = (owners.of(manager, "Update", subresource) | changed) & after.keys()
    entry = _entry(kind, manager, "Update", subresource, time)
    entries = owners.written(entry, mine, changed, set(after))
    return {**new, "metadata": {**new["metadata"], "managedFields": entries}}


def apply_fields(
    kind: Kind,
    live: Object,
    wanted: Object,
    *,
    manager: str,
    subresource: str,
    force: bool,
    time: str,
) -> Object:
    """Return the live object with what the manager wants of it; fields it no longer names go."""
    fields = _owned_part(wanted, only_status=subresource == "status")
    if subresource != "status" and kind.has_status:
        fields = {path: value for path, value in fields.items() if path[0] != "f:status"}
    present = _owned_part(live, only_status=False)
    owners = _Owners(live)
    others = owners.others(manager, "Apply", subresource)
    disputed = {
        path: entry
        for entry, paths in others
        for path in paths & fields.keys()
        if present.get(path) != fields[path]
    }
    if disputed and not force:
        raise _disputed(disputed)
    kept = set().union(*(paths for _, paths in others)) if others else set()
    mine_before = owners.of(manager, "Apply", subresource)
    gone = mine_before - fields.keys() - kept
    merged = {path: value for path, value in {**present, **fields}.items() if path not in gone}
    merged = {
        path: value
        for path, value in merged.items()
        if not any(path[: len(item)] == item for item in gone if item[-1].startswith("k:"))
    }
    entry = _entry(kind, manager, "Apply", subresource, time)
    entries = owners.written(entry, set(fields), set(disputed), set(merged))
    item = _unflat(merged)
    unowned = {k: v for k, v in live["metadata"].items() if k in _NOBODYS}
    head = {"apiVersion": live["apiVersion"], "kind": live["kind"]}
    metadata = {**item.pop("metadata", {}), **unowned, "managedFields": entries}
    return {**head, "metadata": metadata, **item}


def _disputed(disputed: dict[Path, dict[str, Any]]) -> Refusal:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {_named(entry)}",
            "field": _dotted(path),
        }
        for path, entry in sorted(disputed.items(), key=lambda item: item[0])
    ]
    number = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    fields = "\n".join(f"- {cause['field']}" for cause in causes)
    managers = ", ".join(sorted({_named(entry) for entry in disputed.values()}))
    if len(causes) == 1:
        told = f"{causes[0]['message']}: {causes[0]['field']}"
    else:
        told = f"conflicts with {managers}:\n{fields}"
    message = f"Apply failed with {number}: {told}"
    return Refusal(409, message, details={"causes": causes})


def _named(entry: dict[str, Any]) -> str:
    named = f'"{entry["manager"]}"'
    if "subresource" in entry:
        named += f' with subresource "{entry["subresource"]}"'
    return named if entry["operation"] == "Apply" else f"{named} using {entry['apiVersion']}"


def _dotted(path: Path) -> str:
    names = (
        f".{element[2:]}"
        if element.startswith("f:")
        else "["
        + ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(element[2:]).items())
        + "]"
        for element in path
    )
    return "".join(names)


def _unflat(leaves: dict[Path, Any]) -> dict[str, Any]:
    """Build an object of its leaves; items of lists keep the order in which they are told."""
    root: dict[str, Any] = {}
    for path, value in leaves.items():
        at: Any = root
        for number, element in enumerate(path):
            last = number == len(path) - 1
            if element.startswith("k:"):
                keys = json.loads(element[2:])
                item = next((i for i in at if all(i.get(k) == v for k, v in keys.items())), None)
                if item is None:
                    item = dict(keys)
                    at.append(item)
                at = item
            elif last:
                at[element[2:]] = value
            else:
                inner: Any = [] if path[number + 1].startswith("k:") else {}
                at = at.setdefault(element[2:], inner)
    return root
