"""The rules by which objects are created, changed and deleted."""

import copy
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from .errors import Refusal, already_exists, bad_request, conflict, invalid, not_found
from .events import served, stored
from .kinds import Kind
from .managed import apply_fields, track_update
from .patches import json_patched, merge_patched
from .store import Object, Store
from .validation import check_change, checked

__all__ = ["Writer"]

_DEFAULT_GRACE_S = 30
_PATCHES: dict[str, Callable[[Any, Any], Any]] = {
    "application/json-patch+json": json_patched,
    "application/merge-patch+json": merge_patched,
    "application/strategic-merge-patch+json": merge_patched,  # lists are replaced, not merged
}
_SERVERS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


class Writer:
    """Writes to a store as the API server does. ``clock`` gives the time of day."""

    def __init__(self, store: Store, clock: Callable[[], datetime] | None = None) -> None:
        self._store = store
        self._clock = clock or (lambda: datetime.now(UTC))

    def create(
        self, kind: Kind, namespace: str, body: Object, *, manager: str = "", dry_run: bool = False
    ) -> Object:
        """Create an object; what only others may set is left out of it."""
        item = self._of_request(kind, namespace, "", body)
        metadata = item["metadata"]
        if self._store.get(kind.storage, namespace, metadata["name"]):
            raise already_exists(kind, metadata["name"])
        if metadata.pop("resourceVersion", ""):
            raise Refusal(
                500, "resourceVersion should not be set on objects to be created", reason=""
            )
        for name in ("uid", "creationTimestamp", "deletionTimestamp", "managedFields"):
            metadata.pop(name, None)
        if kind.has_status:
            item.pop("status", None)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._time()}
        if kind.has_generation:
            metadata["generation"] = 1
        item = checked(kind, stored(kind, item))
        if manager:
            item = self._tracked(kind, None, item, manager, "")
        return item if dry_run else self._store.put(kind.storage, item)

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Object,
        *,
        subresource: str = "",
        manager: str = "",
    ) -> Object:
        """Replace an object, or its status, if it is the version that the body names."""
        item = self._of_request(kind, namespace, name, body)
        old = self._store.get(kind.storage, namespace, name)
        if old is None:
            if kind.upsert and not subresource:
                item["metadata"].pop("resourceVersion", None)
                return self.create(kind, namespace, item, manager=manager)
            raise not_found(kind, name)
        item = stored(kind, item)
        version = item["metadata"].get("resourceVersion", "")
        if not version and not kind.unconditional:
            problem = "Invalid value: 0: must be specified for an update"
            raise invalid(kind, name, "metadata.resourceVersion", problem)
        self._check_precondition(kind, old, version, item["metadata"].get("uid"))
        return self._changed(kind, old, item, subresource, manager)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        *,
        content_type: str,
        subresource: str = "",
        manager: str = "",
    ) -> Object:
        """Change an object by a JSON patch or a merge patch."""
        old = self._store.get(kind.storage, namespace, name)
        if old is None:
            raise not_found(kind, name)
        patched = _PATCHES.get(content_type.partition(";")[0].strip())
        if patched is None:
            accepted = ", ".join([*_PATCHES, "application/apply-patch+yaml"])
            raise Refusal(
                415,
                "the body of the request was in an unknown format - accepted media types include: "
                f"{accepted}",
            )
        item = patched(copy.deepcopy(old), body)
        version = item["metadata"].get("resourceVersion", "")
        self._check_precondition(kind, old, version, item["metadata"].get("uid"))
        return self._changed(kind, old, item, subresource, manager)

    def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Object,
        *,
        manager: str,
        subresource: str = "",
        force: bool = False,
    ) -> tuple[Object, bool]:
        """Apply on the server's side; return the object, and whether it is new."""
        if not manager:
            problem = "Required value: is required for apply patch"
            raise invalid("PatchOptions", "", "fieldManager", problem, "FieldValueRequired")
        if not isinstance(body, dict) or not body.get("apiVersion") or not body.get("kind"):
            raise bad_request("invalid object type: /, Kind=")
        if body.get("metadata", {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        wanted = self._of_request(kind, namespace, name, body)
        old = self._store.get(kind.storage, namespace, name)
        if old is None and subresource:
            raise not_found(kind, name)
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        bare = {"name": name, "namespace": namespace}
        live = served(kind, old) if old else {**head, "metadata": bare}
        if old is not None:
            metadata = wanted["metadata"]
            self._check_precondition(
                kind, old, metadata.get("resourceVersion", ""), metadata.get("uid")
            )
        item = apply_fields(
            kind,
            live,
            wanted,
            manager=manager,
            subresource=subresource,
            force=force,
            time=self._time(),
        )
        if old is not None:
            return self._changed(kind, old, stored(kind, item), subresource, ""), False
        entries = item["metadata"].pop("managedFields")
        created = self.create(kind, namespace, item, dry_run=True)
        created["metadata"]["managedFields"] = entries
        return self._store.put(kind.storage, created), True

    def delete(
        self, kind: Kind, namespace: str, name: str, options: Mapping[str, Any]
    ) -> tuple[Object, bool]:
        """Delete an object; return it, and whether it is gone already.

        One with finalizers, and a pod on a node that has time to end, only begin to terminate.
        """
        old = self._store.get(kind.storage, namespace, name)
        if old is None:
            raise not_found(kind, name)
        wanted = options.get("preconditions") or {}
        self._check_precondition(kind, old, wanted.get("resourceVersion", ""), wanted.get("uid"))
        grace_s = self._grace_s(kind, old, options.get("gracePeriodSeconds"))
        if not grace_s and not old["metadata"].get("finalizers"):
            if kind.kind == "Pod" and "deletionTimestamp" not in old["metadata"]:
                self.terminate(kind, old, 0)  # watches see that, too
            return self._store.remove(kind.storage, namespace, name), True
        if "deletionTimestamp" in old["metadata"]:
            return old, False
        return self.terminate(kind, old, grace_s), False

    def terminate(self, kind: Kind, old: Object, grace_s: int) -> Object:
        """Begin to delete an object, which stays for the moment."""
        metadata = {
            **old["metadata"],
            "deletionTimestamp": self._time(grace_s),
            "deletionGracePeriodSeconds": grace_s,
        }
        if "generation" in metadata:
            metadata["generation"] += 1
        return self._store.put(kind.storage, {**old, "metadata": metadata})

    def put(self, kind: Kind, body: Object) -> Object:
        """Create or replace an object, status and all, as a cluster would come by it."""
        item = stored(kind, copy.deepcopy(body))
        metadata = item["metadata"]
        if kind.namespaced:
            metadata.setdefault("namespace", "default")
        old = self._store.get(kind.storage, metadata.get("namespace", ""), metadata["name"])
        if old is None:
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", self._time())
            if kind.has_generation:
                metadata.setdefault("generation", 1)
            return self._store.put(kind.storage, item)
        kept = {
            key: old["metadata"][key] for key in (*_SERVERS, "generation") if key in old["metadata"]
        }
        item["metadata"] = {**kept, **metadata}
        item["metadata"].pop("resourceVersion", None)
        return self._stored_if_changed(kind, old, item)

    def _of_request(self, kind: Kind, namespace: str, name: str, body: Any) -> Object:
        """Return the request's object with its names filled in."""
        if not isinstance(body, dict):
            raise bad_request("the body of the request was in an unknown format")
        item: Object = copy.deepcopy(body)
        item.setdefault("apiVersion", kind.api_version)
        item.setdefault("kind", kind.kind)
        if (item["apiVersion"], item["kind"]) != (kind.api_version, kind.kind):
            told = f"{item['apiVersion']}, Kind={item['kind']}"
            expected = f"{kind.api_version}, Kind={kind.kind}"
            problem = f"Invalid value: {told}: must be {expected}"
            raise invalid(kind, "", "kind", problem)
        metadata = item.setdefault("metadata", {})
        if kind.namespaced and metadata.setdefault("namespace", namespace) != namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        if not metadata.get("name") and metadata.get("generateName") and not name:
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        if not metadata.get("name") and name:
            metadata["name"] = name
        if not metadata.get("name"):
            problem = "Required value: name or generateName is required"
            raise invalid(kind, "", "metadata.name", problem, "FieldValueRequired")
        if name and metadata["name"] != name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL "
                f"({name})"
            )
        return item

    def _changed(
        self, kind: Kind, old: Object, item: Object, subresource: str, manager: str
    ) -> Object:
        """Store what the request may change of the old object."""
        metadata = {key: value for key, value in item["metadata"].items() if key not in _SERVERS}
        metadata |= {key: old["metadata"][key] for key in _SERVERS if key in old["metadata"]}
        metadata.pop("generation", None)
        if "generation" in old["metadata"]:
            metadata["generation"] = old["metadata"]["generation"]
        if subresource == "status":
            entries = metadata.get("managedFields")
            metadata = dict(old["metadata"])
            if entries is not None:
                metadata["managedFields"] = entries
            item = {**old, "metadata": metadata, **{k: v for k, v in item.items() if k == "status"}}
        else:
            item = {**item, "metadata": metadata}
            if kind.has_status:
                item.pop("status", None)
                item |= {"status": old["status"]} if "status" in old else {}
        item = checked(kind, item)
        check_change(kind, old, item)
        if manager and not _same(old, item):
            item = self._tracked(kind, old, item, manager, subresource)
        return self._stored_if_changed(kind, old, item)

    def _stored_if_changed(self, kind: Kind, old: Object, item: Object) -> Object:
        if _same(old, item) and _owners(old) == _owners(item):
            return old
        metadata = item["metadata"]
        if kind.has_generation and not _same_but_for_status(old, item):
            metadata["generation"] = old["metadata"].get("generation", 0) + 1
        if (
            "deletionTimestamp" in metadata
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
        ):
            namespace = metadata.get("namespace", "")
            return self._store.remove(kind.storage, namespace, metadata["name"])
        return self._store.put(kind.storage, item)

    def _tracked(
        self, kind: Kind, old: Object | None, item: Object, manager: str, subresource: str
    ) -> Object:
        return track_update(
            kind, old, item, manager=manager, subresource=subresource, time=self._time()
        )

    def _check_precondition(self, kind: Kind, old: Object, version: str, uid: str | None) -> None:
        metadata = old["metadata"]
        name = metadata["name"]
        if uid and uid != metadata["uid"]:
            why = (
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
                f"{metadata['uid']}"
            )
            raise conflict(kind, name, why)
        if version and version != metadata["resourceVersion"]:
            raise conflict(kind, name)

    def _grace_s(self, kind: Kind, old: Object, wanted: int | None) -> int:
        if kind.kind != "Pod" or not old.get("spec", {}).get("nodeName"):
            return 0
        if wanted is not None:
            return wanted
        return int(old["spec"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S))

    def _time(self, later_s: int = 0) -> str:
        return (self._clock() + timedelta(seconds=later_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _same(old: Object, new: Object) -> bool:
    return _bare(old) == _bare(new)


def _bare(item: Object) -> Object:
    hidden = ("managedFields", "resourceVersion", "generation")
    return {**item, "metadata": {k: v for k, v in item["metadata"].items() if k not in hidden}}


def _owners(item: Object) -> list[tuple[Any, ...]]:
    """Return who owns what, but for the times."""
    entries = item["metadata"].get("managedFields", ())
    return [(e["manager"], e["operation"], e.get("subresource"), e["fieldsV1"]) for e in entries]


def _same_but_for_status(old: Object, new: Object) -> bool:
    hidden = ("metadata", "status")
    return {k: v for k, v in old.items() if k not in hidden} == {
        k: v for k, v in new.items() if k not in hidden
    }
