"""What a request asks for: its path and method, taken apart; and the record of what was asked."""

from collections.abc import Mapping

import msgspec

from .kinds import KINDS, Kind

__all__ = ["Asked", "Recorded", "asked"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request for objects of a kind; an empty ``name`` stands for the collection."""

    kind: Kind
    verb: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Recorded(msgspec.Struct, kw_only=True):
    """A request that the emulator got.

    ``verb`` is list, watch, get, create, update, patch, apply, delete or deletecollection, and
    empty for what is no resource; ``resource`` is the plural. ``at_s`` is monotonic. ``status`` is
    0 until there is an answer; ``events`` and ``ended_s`` are of a watch, ``ended_s`` 0 while open.
    """

    at_s: float
    method: str
    path: str
    query: dict[str, str]
    verb: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    user: str = ""
    user_agent: str = ""
    status: int = 0
    events: int = 0
    ended_s: float = 0.0


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def asked(method: str, path: str, query: Mapping[str, str], content_type: str) -> Asked | None:
    """Take a path apart, or None where it is none of a resource that can exist."""
    for kind in KINDS:
        prefix = kind.path + "/"
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].strip("/").split("/")
        namespace = ""
        if kind.namespaced and parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        if parts[0] != kind.plural or len(parts) > 3:
            continue
        name, subresource = (*parts[1:], "", "")[:2]
        if name and kind.namespaced and not namespace:
            return None
        verb = _verb(method, name, query, content_type)
        if verb == "create" and kind.namespaced and not namespace:
            verb = ""
        return Asked(kind=kind, verb=verb, namespace=namespace, name=name, subresource=subresource)
    return None


def _verb(method: str, name: str, query: Mapping[str, str], content_type: str) -> str:
    if method in ("GET", "HEAD"):
        if name:
            return "get"  # and no watch, whatever is asked for
        return "watch" if query.get("watch", "").lower() in ("1", "true") else "list"
    if method == "DELETE" and not name:
        return "deletecollection"
    if (method == "POST") is bool(name):
        return ""
    if method == "PATCH" and "apply-patch" in content_type:
        return "apply"
    return _VERBS.get(method, "")
