"""A cluster to measure with: an API server that is emulated, pods, an EPP, and Envoys.

The API server is a process of its own (``python -m tests.apiserver``) and makes the pods' events
itself. All pods are one server, which listens at the loopback address of each. Envoy knows all of
them from the beginning: what its control plane would do is no part of the measurement.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from epp.gateway.envoy_binary import envoy_command
from epp.gateway.options import GatewayOptions
from epp.gateway.ports import free_ports
from epp.gateway.probes import http_ready, tcp_ready
from epp.gateway.processes import ProcessSpec, Supervisor
from loadkit.stack import ENVOY_THREADS
from tests.apiserver import ApiServer
from tests.apiserver.objects import pod

__all__ = ["PROBE", "Cluster", "start_cluster"]

_ROOT: Final = Path(__file__).parents[2]
_READY_TIMEOUT_S: Final = 120.0

PROBE: Final = "127.0.0.2"
"""The address of the pod ``probe``, whose readiness tells how soon a change is known."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Where it is. ``off_port``, ``on_port`` and ``probe_port`` are Envoys: without the EPP, with
    it, and one that asks it for the pod ``probe`` alone."""

    api_url: str
    server_port: int
    metrics_port: int
    off_port: int
    on_port: int
    probe_port: int
    epp_pid: int
    pids: tuple[int, ...]

    async def control(self, session: aiohttp.ClientSession, name: str, **arguments: Any) -> Any:
        """Have the API server do something, as in :mod:`tests.apiserver.__main__`."""
        url = f"{self.api_url}/emulator/{name}"
        async with session.post(url, json=arguments) as response:
            response.raise_for_status()
            return await response.json()


async def start_cluster(
    supervisor: Supervisor,
    directory: Path,
    envoy: Path,
    addresses: Sequence[str],
    serve_arguments: Sequence[str],
    *,
    api: ApiServer | None = None,
) -> Cluster:
    """Start all of it, with a pod at each address. Raises ProcessFailure.

    An ``api`` that runs in this process is filled and asked in place of a process of its own.
    """
    api_port, server_port, *ports = free_ports(2 + 3 + 6)
    epp_ports, envoy_ports = ports[:3], ports[3:]
    _write_files(directory, [*addresses, PROBE], server_port)
    server = _server(directory, server_port)
    if api is None:
        await supervisor.start([_api(directory, api_port, len(addresses)), server])
    else:
        await supervisor.start([server])
        api.put(json.loads((directory / "objects" / "pool.json").read_text()))
        for number, address in enumerate(addresses):
            api.put(pod(f"model-{number}", address))
        api.kubeconfig(directory)
    await supervisor.start([_epp(directory, epp_ports, serve_arguments)])
    shared = {"eds_path": str(directory / "eds.json"), "ext_proc_port": epp_ports[0]}
    hint = (f"{PROBE}:{server_port}",)
    options = {
        "off": GatewayOptions(**shared, ext_proc_enabled=False),
        "on": GatewayOptions(**shared, fail_open=False),
        "probe": GatewayOptions(**shared, fail_open=False, static_subset_hint=hint),
    }
    places = zip(options.items(), envoy_ports[::2], envoy_ports[1::2], strict=True)
    await supervisor.start(
        [_envoy(directory / name, envoy, each, port, admin) for (name, each), port, admin in places]
    )
    pids = {process.name: process.pid for process in supervisor.processes}
    return Cluster(
        api_url=f"http://127.0.0.1:{api_port}" if api is None else api.url,
        server_port=server_port,
        metrics_port=epp_ports[2],
        off_port=envoy_ports[0],
        on_port=envoy_ports[2],
        probe_port=envoy_ports[4],
        epp_pid=pids["epp"],
        pids=tuple(pids.values()),
    )


def _write_files(directory: Path, addresses: Sequence[str], port: int) -> None:
    (directory / "addresses").write_text("\n".join(addresses))
    objects = directory / "objects"
    objects.mkdir()
    pool = {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "benchmark", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "model"}},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    }
    (objects / "pool.json").write_text(json.dumps(pool))
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": each, "port_value": port}}}}
        for each in addresses
    ]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    assignment = {"@type": kind, "cluster_name": "inference_pool"}
    resources = [{**assignment, "endpoints": [{"lb_endpoints": hosts}]}]
    document = {"version_info": "1", "resources": resources}
    (directory / "eds.json").write_text(json.dumps(document))


def _api(directory: Path, port: int, pods: int) -> ProcessSpec:
    return ProcessSpec(
        name="api-server",
        command=[
            *(sys.executable, "-m", "tests.apiserver", "--port", str(port), "--pods", str(pods)),
            *("--manifests", str(directory / "objects")),
            *("--kubeconfig", str(directory / "kubeconfig")),
        ],
        ready=http_ready("127.0.0.1", port, "/readyz"),
        environment={"PYTHONPATH": str(_ROOT)},
        ready_timeout_s=_READY_TIMEOUT_S,
    )


def _server(directory: Path, port: int) -> ProcessSpec:
    return ProcessSpec(
        name="pods",
        command=[
            *(sys.executable, "-m", "loadkit.server", str(port)),
            *("--addresses", str(directory / "addresses")),
        ],
        ready=tcp_ready(PROBE, port),
        environment={"PYTHONPATH": str(_ROOT / "benchmarks")},
        ready_timeout_s=_READY_TIMEOUT_S,
    )


def _epp(directory: Path, ports: Sequence[int], more: Sequence[str]) -> ProcessSpec:
    grpc_port, health_port, metrics_port = map(str, ports)
    return ProcessSpec(
        name="epp",
        command=[
            *(sys.executable, "-m", "epp", "serve", "--kubeconfig", str(directory / "kubeconfig")),
            *("--pool-name", "benchmark", "--pool-namespace", "default", "--host", "127.0.0.1"),
            *("--grpc-port", grpc_port, "--health-port", health_port),
            *("--metrics-port", metrics_port, "--metrics-endpoint-auth=false"),
            # The pods have no metrics; what scraping costs is measured elsewhere (scrape.py).
            *("--secure-serving=false", "--no-scrape", "--max-concurrency", "1000000"),
            *("--log-level", "warning", "--handover-timeout", "0", "--drain-timeout", "0"),
            *("--shutdown-grace", "1", *more),
        ],
        ready=http_ready("127.0.0.1", ports[2], "/readyz"),
        ready_timeout_s=_READY_TIMEOUT_S,
    )


def _envoy(
    base: Path, binary: Path, options: GatewayOptions, port: int, admin_port: int
) -> ProcessSpec:
    from epp.gateway.bootstrap import bootstrap, to_json  # slow to import

    chosen = msgspec.structs.replace(options, listen_port=port, admin_port=admin_port)
    config = base.with_suffix(".json")
    config.write_text(to_json(bootstrap(chosen)))
    return ProcessSpec(
        name=f"envoy-{base.name}",
        command=envoy_command(binary, config, ENVOY_THREADS),
        ready=http_ready("127.0.0.1", admin_port, "/ready"),
        ready_timeout_s=_READY_TIMEOUT_S,
    )
