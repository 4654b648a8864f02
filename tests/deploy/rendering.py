"""What config/ deploys, as Kubernetes objects: rendered by kubectl and helm, or read from files.

The tools are those that ``make test`` fetches. An object is the mapping that its YAML stands for.
"""

import functools
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

__all__ = [
    "CHART",
    "CONFIG",
    "KUSTOMIZE",
    "Manifest",
    "args_of",
    "build",
    "epp_container",
    "find",
    "identity",
    "load",
    "pod_spec",
    "render",
    "run_tool",
]

Manifest: TypeAlias = dict[str, Any]

_PROJECT = Path(__file__).parents[2]
_TOOLS = _PROJECT / "build/cluster-tools"
CONFIG = _PROJECT / "config"
KUSTOMIZE = CONFIG / "kustomize"
CHART = CONFIG / "chart/epp"


def run_tool(tool: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``kubectl`` or ``helm``, which never speak with a cluster here."""
    path = _TOOLS / tool
    assert path.exists(), f"{path} is not there: run `make build/cluster-tools/.ready`"
    environment = {"HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    return subprocess.run(
        [str(path), *arguments], input=text, capture_output=True, text=True, env=environment
    )


def build(directory: Path) -> list[Manifest]:
    """Return what ``kubectl kustomize`` makes of a directory."""
    return _parse(_built(directory))


def render(
    values: Mapping[str, Any] | None = None, *, release: str = "epp", namespace: str = "inference"
) -> list[Manifest]:
    """Return what ``helm template`` makes of the chart with these values."""
    return _parse(_rendered(json.dumps(values or {}), release, namespace))


def load(*paths: Path) -> list[Manifest]:
    """Return the objects in YAML files."""
    return [each for path in paths for each in _parse(path.read_text())]


def find(manifests: Iterable[Manifest], kind: str, name: str = "") -> Manifest:
    """Return the one object of a kind, and of a name where one is given."""
    (found,) = [
        each
        for each in manifests
        if each["kind"] == kind and name in ("", each["metadata"]["name"])
    ]
    return found


def identity(manifest: Manifest) -> tuple[str, str]:
    """Return the kind and the name, which no two objects here share."""
    return manifest["kind"], manifest["metadata"]["name"]


def pod_spec(manifests: Iterable[Manifest]) -> Manifest:
    """Return the pod of the endpoint picker's Deployment."""
    spec: Manifest = find(manifests, "Deployment", "epp")["spec"]["template"]["spec"]
    return spec


def epp_container(manifests: Iterable[Manifest]) -> Manifest:
    """Return the endpoint picker's container, whichever list of the pod it is in."""
    pod = pod_spec(manifests)
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    (found,) = [each for each in containers if each["name"] == "epp"]
    return found


def args_of(manifests: Iterable[Manifest]) -> list[str]:
    """Return the endpoint picker's arguments."""
    arguments: list[str] = epp_container(manifests)["args"]
    return arguments


@functools.cache
def _built(directory: Path) -> str:
    return _output(run_tool("kubectl", "kustomize", str(directory)))


@functools.cache
def _rendered(values: str, release: str, namespace: str) -> str:
    command = ["template", release, str(CHART), "--namespace", namespace, "--values", "-"]
    return _output(run_tool("helm", *command, text=values))


def _output(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def _parse(text: str) -> list[Manifest]:
    documents: Iterator[Manifest | None] = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return [each for each in documents if each]
