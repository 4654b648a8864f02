"""Lists, in pages or whole."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from .errors import Refusal, bad_request, expired, invalid
from .events import served
from .kinds import Kind
from .requests import Asked
from .selectors import everything, field_selector, label_selector
from .store import Object, Store, key_of

__all__ = ["listing", "too_large", "version_of"]

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


class _Place(msgspec.Struct, frozen=True):
    """Where a list goes on: at this version (-1: the newest), after this key."""

    v: str
    rv: int
    start: tuple[str, str]


def version_of(query: Mapping[str, str]) -> int | None:
    """Return the version that is asked for, None for no particular one."""
    text = query.get("resourceVersion", "")
    if not text:
        return None
    if not text.isdecimal():
        problem = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise bad_request(f"invalid resource version: resourceVersion: {problem}")
    return int(text)


def too_large(version: int, current: int) -> Refusal:
    """Return the answer to a version that is not there yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {version}, current: {current}"
    return Refusal(504, message, details={"causes": [cause]}, retry_after_s=1)


def listing(store: Store, asked: Asked, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the list object that a query asks for."""
    kind = asked.kind
    limit = int(query.get("limit") or 0)
    if query.get("resourceVersion") == "0":
        limit = 0  # such a list comes out of a cache, which knows no pages
    version, after = _place(store, kind, query, limit)
    if version == store.version:
        items = store.items(kind.storage, asked.namespace)
    else:
        items = store.items_at(kind.storage, asked.namespace, version)
    chosen = _selection(kind, query)
    rest = [item for item in items if key_of(item) > after and chosen(served(kind, item))]
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    if limit and len(rest) > limit:
        metadata["continue"] = _token(version, key_of(rest[limit - 1]))
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(rest) - limit
        rest = rest[:limit]
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "items": [_item(kind, item) for item in rest],
    }


def _selection(kind: Kind, query: Mapping[str, str]) -> Any:
    labels = label_selector(query.get("labelSelector", ""))
    fields = field_selector(kind, query.get("fieldSelector", ""))
    if fields is everything:
        return labels
    return lambda item: labels(item) and fields(item)


def _item(kind: Kind, item: Object) -> Object:
    item = served(kind, item)
    if not kind.builtin:
        return item
    return {name: value for name, value in item.items() if name not in ("apiVersion", "kind")}


def _place(
    store: Store, kind: Kind, query: Mapping[str, str], limit: int
) -> tuple[int, tuple[str, str]]:
    """Return the version of a list, and the key after which it begins."""
    start = ("", "")
    version, match = version_of(query), query.get("resourceVersionMatch", "")
    if query.get("continue"):
        if version:
            raise bad_request("specifying resource version is not allowed when using continue")
        place = _read_token(query["continue"])
        if 0 <= place.rv < store.oldest(kind.storage):
            fresh = _token(-1, place.start)
            raise Refusal(410, _TOO_OLD, continuation=fresh)
        return (store.version if place.rv < 0 else place.rv), place.start
    if match and version is None:
        problem = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise invalid("ListOptions", "", "resourceVersionMatch", problem, "FieldValueForbidden")
    if match not in ("", "Exact", "NotOlderThan"):
        problem = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""'
        raise invalid("ListOptions", "", "resourceVersionMatch", problem, "FieldValueNotSupported")
    if match == "Exact" and not version:
        problem = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise invalid("ListOptions", "", "resourceVersionMatch", problem, "FieldValueForbidden")
    if version and version > store.version:
        raise too_large(version, store.version)
    if version and (match == "Exact" or (limit and not match)):
        if version < store.oldest(kind.storage):
            raise expired(version, store.oldest(kind.storage))
        return version, start
    return store.version, start


def _token(version: int, key: tuple[str, str]) -> str:
    place = _Place("meta.k8s.io/v1", version, key)
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode().rstrip("=")


def _read_token(token: str) -> _Place:
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.json.decode(data, type=_Place)
    except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
        raise bad_request("invalid continue token: continue key is not valid") from None
