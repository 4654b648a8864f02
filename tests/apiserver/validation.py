"""What the API server refuses in an object's content: what clients are known to get wrong."""

import re
from datetime import UTC, datetime
from typing import Any

from .errors import Refusal, bad_request, invalid
from .kinds import Kind
from .store import Object

__all__ = ["check_change", "checked"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_CONDITION_TYPE = re.compile(r"([-a-z0-9.]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def checked(kind: Kind, item: Object) -> Object:
    """Return the object, or raise the refusal of it."""
    name = item["metadata"]["name"]
    if not _NAME.fullmatch(name) or len(name) > 253:
        problem = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of …'
        raise invalid(kind, name, "metadata.name", problem)
    if kind.kind == "Lease":
        _check_lease(kind, item)
        item = {**item, "spec": {k: _in_utc(v) for k, v in (item.get("spec") or {}).items()}}
    elif kind.kind == "Event":
        _check_event(kind, item)
    elif not kind.builtin:
        _check_conditions(kind, name, "", item.get("status"))
    return item


def check_change(kind: Kind, old: Object, item: Object) -> None:
    """Raise the refusal of a change that may not be made: of an event only its series changes."""
    if kind.kind != "Event" or not kind.group:
        return
    for field in sorted(old.keys() | item.keys()):
        if field in ("metadata", "series", "apiVersion") or old.get(field) == item.get(field):
            continue
        problem = f'Invalid value: "{item.get(field, "")}": field is immutable'
        raise invalid(kind, item["metadata"]["name"], field, problem)


def _check_lease(kind: Kind, item: Object) -> None:
    name, spec = item["metadata"]["name"], item.get("spec") or {}
    for field in ("acquireTime", "renewTime"):
        _check_micro_time(item["kind"], field, spec.get(field))
    duration = spec.get("leaseDurationSeconds")
    if duration is not None and (not isinstance(duration, int) or duration <= 0):
        if not isinstance(duration, int):
            raise _undecodable("Lease", "LeaseSpec.spec.leaseDurationSeconds", duration)
        problem = f"Invalid value: {duration}: must be greater than 0"
        raise invalid(kind, name, "spec.leaseDurationSeconds", problem)
    transitions = spec.get("leaseTransitions")
    if isinstance(transitions, int) and transitions < 0:
        problem = f"Invalid value: {transitions}: must be greater than or equal to 0"
        raise invalid(kind, name, "spec.leaseTransitions", problem)


def _check_micro_time(kind: str, field: str, value: Any) -> None:
    if value is not None and not (isinstance(value, str) and _MICRO_TIME.fullmatch(value)):
        message = (
            f'{kind} in version "v1" cannot be handled as a {kind}: parsing time "{value}" as '
            f'"2006-01-02T15:04:05.000000Z07:00": cannot parse ({field})'
        )
        raise bad_request(message)


def _in_utc(value: Any) -> Any:
    """Return times as they are stored."""
    if not isinstance(value, str) or not _MICRO_TIME.fullmatch(value) or value.endswith("Z"):
        return value
    time = datetime.fromisoformat(value).astimezone(UTC)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _undecodable(kind: str, field: str, value: Any) -> Refusal:
    return bad_request(
        f'{kind} in version "v1" cannot be handled as a {kind}: json: cannot unmarshal '
        f"{type(value).__name__} into Go struct field {field} of type int32"
    )


def _check_event(kind: Kind, item: Object) -> None:
    """Check an event in its stored form, that of the core group."""
    metadata = item["metadata"]
    name = metadata["name"]
    _check_micro_time("Event", "eventTime", item.get("eventTime"))
    about = item.get("involvedObject") or {}
    if not kind.group and about.get("namespace", "default") != metadata["namespace"]:
        problem = f'Invalid value: "{about.get("namespace", "")}": does not match event.namespace'
        raise invalid(kind, name, "involvedObject.namespace", problem)
    if item.get("eventTime") is None and not kind.group:
        return
    for field in ("reportingComponent", "reportingInstance", "action", "reason"):
        shown = "reportingController" if field == "reportingComponent" else field
        if not item.get(field):
            raise invalid(kind, name, shown, "Required value", "FieldValueRequired")
    if item.get("eventTime") is None:
        raise invalid(kind, name, "eventTime", "Required value", "FieldValueRequired")
    if item.get("type") not in ("Normal", "Warning"):
        problem = f'Invalid value: "{item.get("type", "")}": has invalid value: '
        raise invalid(kind, name, "type", problem)
    for field, limit in (("message", 1024), ("reason", 128), ("action", 128)):
        if len(item.get(field, "").encode()) > limit:
            problem = f'Invalid value: "": can have at most {limit} characters'
            raise invalid(kind, name, field, problem)


def _check_conditions(kind: Kind, name: str, path: str, value: Any) -> None:
    """Check all conditions below ``status``, wherever they are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            at = f"{path}.{key}" if path else f"status.{key}"
            if key == "conditions":
                for number, condition in enumerate(inner):
                    _check_condition(kind, name, f"{at}[{number}]", condition)
            else:
                _check_conditions(kind, name, at, inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_conditions(kind, name, f"{path}[{number}]", inner)


def _check_condition(kind: Kind, name: str, at: str, condition: dict[str, Any]) -> None:
    for field in ("lastTransitionTime", "message", "reason", "status", "type"):
        if field not in condition:
            problem = "Required value"
            raise invalid(kind, name, f"{at}.{field}", problem, "FieldValueRequired")
    rules = (
        ("type", _CONDITION_TYPE, 316),
        ("reason", _REASON, 1024),
        ("status", re.compile("True|False|Unknown"), 7),
        ("lastTransitionTime", _TIME, 64),
    )
    for field, pattern, limit in rules:
        value = condition[field]
        if not isinstance(value, str) or not pattern.fullmatch(value) or len(value) > limit:
            problem = f"Invalid value: \"{value}\": {at}.{field} should match '{pattern.pattern}'"
            raise invalid(kind, name, f"{at}.{field}", problem)
    if len(condition["message"]) > 32_768:
        problem = "Too long: may not be more than 32768 bytes"
        raise invalid(kind, name, f"{at}.message", problem)
    if condition.get("observedGeneration", 0) < 0:
        problem = "should be greater than or equal to 0"
        raise invalid(kind, name, f"{at}.observedGeneration", problem)
