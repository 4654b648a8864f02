"""What `epp serve` makes of the arguments, environment and files that a Deployment gives it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from epp import serve
from epp.config.arguments import picker_config
from epp.config.cluster_arguments import cluster_options
from epp.config.picker_config import PickerConfig
from epp.config.reference_flags import heed_reference_flags
from epp.config.security_arguments import SecurityOptions, security_options
from epp.discovery.cluster import ClusterOptions

from .rendering import Manifest, epp_container, find, pod_spec

__all__ = ["Served", "serving"]

_FIELDS = {
    "metadata.namespace": "inference",
    "metadata.name": "epp-7c9d8bf5b4-x2x9k",
    "status.podIP": "10.0.0.1",
}


class Served(NamedTuple):
    """All that is said about an endpoint picker; ``args`` are the parsed arguments."""

    args: argparse.Namespace
    cluster: ClusterOptions
    security: SecurityOptions
    picker: PickerConfig


def serving(manifests: Sequence[Manifest], scratch: Path) -> Served:
    """Read the Deployment's arguments as `epp serve` does; what it refuses, is raised."""
    container = epp_container(manifests)
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(container["args"])
    assert heed_reference_flags(args) == []
    environment = {
        each["name"]: each.get("value") or _FIELDS[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }
    cluster = cluster_options(args, environment, scratch / "no-service-account")
    assert cluster is not None
    security = security_options(args, is_in_cluster=True, environment=environment)
    args.config_file = _mounted(manifests, container, args.config_file, scratch)
    return Served(args, cluster, security, picker_config(args))


def _mounted(manifests: Sequence[Manifest], container: Manifest, path: Path, scratch: Path) -> Path:
    """Write what a ConfigMap puts at a path of the container, and return where that is."""
    volumes: dict[str, Any] = {each["name"]: each for each in pod_spec(manifests)["volumes"]}
    (mount,) = [
        each for each in container["volumeMounts"] if Path(each["mountPath"]) == path.parent
    ]
    config_map = find(manifests, "ConfigMap", volumes[mount["name"]]["configMap"]["name"])
    written = scratch / path.name
    written.write_text(config_map["data"][path.name])
    return written
