"""Answers: how they are written, and those that need no store."""

import gzip
from collections.abc import Iterable
from typing import Any

import msgspec
import yaml
from aiohttp import web

from .errors import Refusal, bad_request
from .events import served
from .faults import Fault
from .kinds import Kind
from .requests import Asked, Recorded
from .store import Object

__all__ = ["absent", "body_of", "deleted", "discovery", "encoded", "planned", "refused"]

_COMPRESSED_FROM_BYTES = 128 * 1024
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def encoded(request: web.BaseRequest, content: Any, status: int = 200) -> web.Response:
    """Return content as JSON, compressed where it is large and the client takes it."""
    data = msgspec.json.encode(content)
    headers = {"content-type": "application/json"}
    if len(data) > _COMPRESSED_FROM_BYTES and "gzip" in request.headers.get("accept-encoding", ""):
        data = gzip.compress(data, 1)
        headers["content-encoding"] = "gzip"
    return web.Response(body=data, status=status, headers=headers)


def refused(refusal: Refusal) -> web.Response:
    """Return the answer that a refusal is."""
    headers = {"content-type": "application/json"}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    body = msgspec.json.encode(refusal.status())
    return web.Response(body=body, status=refusal.code, headers=headers)


def absent(path: str) -> web.Response:
    """Return the answer for a path where nothing is: a Status in the core group alone."""
    if path.startswith("/api/v1/"):
        return refused(Refusal(404, "the server could not find the requested resource"))
    return web.Response(text="404 page not found\n", status=404)


def planned(fault: Fault, wanted: Asked | None, recorded: Recorded) -> Refusal:
    """Return the refusal that a fault gives a request."""
    status = fault.status or 500
    messages = {
        401: "Unauthorized",
        403: _forbidden(wanted, recorded),
        410: "too old resource version: 1 (2)",
        429: "Too many requests, please try again later.",
        500: "Internal error occurred: etcdserver: request timed out",
        503: "the server is currently unable to handle the request",
    }
    message = fault.message or messages.get(status, "the server refuses this request")
    return Refusal(status, message, reason=fault.reason, retry_after_s=fault.retry_after_s)


def _forbidden(wanted: Asked | None, recorded: Recorded) -> str:
    if wanted is None:
        return f'forbidden: User "tester" cannot {recorded.method.lower()} path "{recorded.path}"'
    kind = wanted.kind
    verb = "patch" if wanted.verb == "apply" else wanted.verb
    named = f'{kind.qualified} "{wanted.name}"' if wanted.name else kind.qualified
    where = (
        f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
    )
    return (
        f'{named} is forbidden: User "tester" cannot {verb} resource "{kind.plural}" in API group '
        f'"{kind.group}"{where}'
    )


def body_of(data: bytes, content_type: str) -> Any:
    """Return the content of a request, JSON or, for an apply, YAML; None where there is none."""
    if not data:
        return None
    try:
        if "yaml" in content_type and not data.lstrip().startswith(b"{"):
            return yaml.safe_load(data)
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, yaml.YAMLError, UnicodeDecodeError) as problem:
        raise bad_request(f"the body of the request is not valid: {problem}") from None


def deleted(kind: Kind, item: Object, is_gone: bool) -> Any:
    """Return the answer to a deletion: the object where it stays, or is a pod; else a Status."""
    if not is_gone or kind.kind == "Pod":
        return served(kind, item)
    metadata = item["metadata"]
    details = {"name": metadata["name"], "kind": kind.plural, "uid": metadata.get("uid", "")}
    if kind.group:
        details["group"] = kind.group
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**head, "details": details}


def discovery(path: str, installed: Iterable[Kind]) -> Any:
    """Return what there is to find at a path of discovery, or None."""
    path = path.rstrip("/")
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.2", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    kinds = list(installed)
    if path == "/apis":
        groups: dict[str, list[dict[str, str]]] = {}
        for kind in kinds:
            version = {"groupVersion": kind.api_version, "version": kind.version}
            versions = groups.setdefault(kind.group, [])
            if kind.group and version not in versions:
                versions.append(version)
        found = [
            {"name": group, "versions": versions, "preferredVersion": versions[0]}
            for group, versions in groups.items()
            if group
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
    here = [kind for kind in kinds if kind.path == path]
    if not here:
        return None
    resources = [
        {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": ["create"] if kind.virtual else _VERBS,
        }
        for kind in here
    ]
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": here[0].api_version}
    return {**head, "resources": resources}
