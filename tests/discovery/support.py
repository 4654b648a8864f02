"""Manifests and helpers that several test modules of this directory share."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from epp.core.resources import PoolResources
from epp.discovery.label_selector import parse_label_selector
from epp.discovery.manifests import ManifestFile, parse_manifests
from epp.discovery.problems import ManifestError
from epp.discovery.selection import Selection, WantedPools, place, select

POOL = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata:
  name: llm
spec:
  selector:
    matchLabels:
      app: llm
  targetPorts:
    - number: 8000
"""

POOL_V1ALPHA2 = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata:
  name: llm
spec:
  selector:
    app: llm
  targetPortNumber: 8000
"""


def objective(
    name: str,
    priority: int | None = None,
    *,
    group: str = "llm-d.ai",
    namespace: str = "default",
    pool: str = "llm",
    pool_group: str = "inference.networking.k8s.io",
) -> str:
    priority_line = "" if priority is None else f"  priority: {priority}\n"
    return (
        f"apiVersion: {group}/v1alpha2\nkind: InferenceObjective\n"
        f"metadata:\n  name: {name}\n  namespace: {namespace}\n"
        f"spec:\n{priority_line}  poolRef:\n    group: {pool_group}\n    name: {pool}\n"
    )


def endpoints(addresses: Mapping[str, str], *, port: int | None = 8000, app: str = "llm") -> str:
    port_line = "" if port is None else f"  port: {port}\n"
    return "endpoints:\n" + "".join(
        f"- name: {name}\n  address: '{address}'\n{port_line}  labels: {{app: {app}}}\n"
        for name, address in addresses.items()
    )


def documents(*texts: str) -> str:
    return "---\n".join(texts)


def with_line(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


def selections_of(
    *texts: str, names: tuple[str, ...] = (), selector: str = "", namespace: str | None = None
) -> tuple[Selection, ...]:
    """Select from texts that are each a file: a.yaml, b.yaml, ..."""
    files = [ManifestFile(f"{chr(97 + i)}.yaml", text.encode()) for i, text in enumerate(texts)]
    parsed = parse_label_selector(selector, "selector") if selector else None
    wanted = WantedPools(names=names, selector=parsed, namespace=namespace)
    return select(parse_manifests(files), wanted, "dir")


def selection_of(
    *texts: str, pool_name: str | None = None, pool_namespace: str | None = None
) -> Selection:
    """Select the one pool that is wanted."""
    names = () if pool_name is None else (pool_name,)
    [selection] = selections_of(*texts, names=names, namespace=pool_namespace)
    return selection


def resources_of(
    *texts: str,
    addresses: Mapping[str, Sequence[str]] | None = None,
    pool_name: str | None = None,
    pool_namespace: str | None = None,
) -> PoolResources:
    selection = selection_of(*texts, pool_name=pool_name, pool_namespace=pool_namespace)
    return place(selection, addresses or {})[0]


def problems_of(*texts: str, **options: str) -> tuple[str, ...]:
    try:
        selection_of(*texts, **options)
    except ManifestError as error:
        return error.problems
    return ()


async def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait for something that has no event to wait for."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition, also one without an event
            await asyncio.sleep(0.002)
