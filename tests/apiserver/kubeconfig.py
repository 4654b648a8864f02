"""Files that tell clients where the emulator is."""

import json
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Context", "write_kubeconfig"]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """One cluster of a kubeconfig; ``token_file`` instead of ``token`` for one that is renewed."""

    url: str
    token: str = ""
    token_file: Path | None = None
    namespace: str = ""


def write_kubeconfig(path: Path, contexts: dict[str, Context], current: str = "") -> Path:
    """Write a kubeconfig with these contexts, the first of them the current one."""
    content: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current or next(iter(contexts)),
        "clusters": [
            {"name": name, "cluster": {"server": context.url}} for name, context in contexts.items()
        ],
        "users": [{"name": name, "user": _user(context)} for name, context in contexts.items()],
        "contexts": [
            {"name": name, "context": _context(name, context)} for name, context in contexts.items()
        ],
    }
    path.write_text(json.dumps(content, indent=1))  # JSON is YAML
    return path


def _user(context: Context) -> dict[str, str]:
    if context.token_file is not None:
        return {"tokenFile": str(context.token_file)}
    return {"token": context.token} if context.token else {}


def _context(name: str, context: Context) -> dict[str, str]:
    parts = {"cluster": name, "user": name}
    return {**parts, "namespace": context.namespace} if context.namespace else parts
