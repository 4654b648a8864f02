"""JSON patches and merge patches."""

from typing import Any

from .errors import Refusal

__all__ = ["json_patched", "merge_patched"]


def merge_patched(item: Any, patch: Any) -> Any:
    """Return the item after a merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(item) if isinstance(item, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patched(result.get(key), value)
    return result


def json_patched(item: Any, operations: Any) -> Any:
    """Return the item, which is changed, after a JSON patch (RFC 6902) without move and copy."""
    for operation in operations:
        parts = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        try:
            _patch(item, operation, parts)
        except (KeyError, IndexError, ValueError) as problem:
            message = f"the server rejected our request due to an error in our request: {problem}"
            raise Refusal(422, message) from None
    return item


def _patch(item: Any, operation: dict[str, Any], parts: list[str]) -> None:
    at = item
    for part in parts[:-1]:
        at = at[int(part)] if isinstance(at, list) else at[part]
    last: Any = parts[-1]
    if isinstance(at, list):
        last = len(at) if last == "-" else int(last)
    match operation["op"]:
        case "add" if isinstance(at, list):
            at.insert(last, operation["value"])
        case "add":
            at[last] = operation["value"]
        case "replace":
            at[last] = (at[last], operation["value"])[1]  # what is not there cannot be replaced
        case "remove":
            del at[last]
        case "test" if at[last] == operation["value"]:
            pass
        case other:
            raise ValueError(f"{other} failed")
