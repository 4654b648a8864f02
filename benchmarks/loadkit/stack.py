"""The gateway that is measured: the server, the EPP and an Envoy for each way to set one up.

All of them run during the whole benchmark; those that are not measured at a moment sit idle.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from time import clock_gettime, perf_counter, process_time
from typing import Final

import msgspec

from epp.errors import UsageError
from epp.gateway.envoy_binary import envoy_command
from epp.gateway.options import GatewayOptions
from epp.gateway.ports import free_ports
from epp.gateway.probes import http_ready, tcp_ready
from epp.gateway.processes import ProcessSpec, Supervisor
from loadkit.scenarios import GatewayKind

__all__ = ["ENDPOINTS", "ENVOY_THREADS", "Gateway", "OtherWork", "cpu_by_process_s", "cpu_s",
           "pool_manifest", "start_gateways"]  # fmt: skip

ENDPOINTS: Final = 10
"""How many endpoints the pool has, where it is not to be contended: then it is one."""

ENVOY_THREADS: Final = 1
"""Worker threads of each Envoy. One is far from being the bottleneck, and two would take turns with
the EPP on a small machine."""

_PLENTY: Final = 1_000_000
_PORTS_OF_EPP: Final = 3
_PORTS_OF_ENVOY: Final = 2
_libc: Final = ctypes.CDLL(None)


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """One Envoy: where it listens and which processes work for it; ``epp_pid`` None for none.

    ``epp_port`` is where the EPP serves ext_proc, whether this Envoy asks it or not.
    """

    port: int
    admin_port: int
    envoy_pid: int
    epp_pid: int | None
    epp_port: int


class _Picker(msgspec.Struct, frozen=True, kw_only=True):
    """One EPP: how to run it, where it listens, and the file in which it tells Envoy its pool."""

    spec: ProcessSpec
    eds_path: Path
    grpc_port: int


async def start_gateways(
    supervisor: Supervisor,
    directory: Path,
    envoy: Path,
    kinds: Iterable[GatewayKind],
    slots: int,
    *,
    label: str = "",
    serve_arguments: Iterable[str] = (),
    relay_port: int | None = None,
) -> dict[GatewayKind, Gateway]:
    """Start an Envoy of each kind, and the server and the EPPs that they need.

    ``slots`` is how many requests may be in flight in the contended pool. ``label`` comes before
    the names of the processes, which must all be different; ``serve_arguments`` are more arguments
    for ``epp serve``. ``relay_port`` is where a relayed Envoy finds the EPP. Raises ProcessFailure.
    """
    wanted = list(kinds)
    # All at once, so that none comes twice.
    ports = free_ports(ENDPOINTS + 2 * _PORTS_OF_EPP + len(wanted) * _PORTS_OF_ENVOY)
    server_ports, rest = ports[:ENDPOINTS], iter(ports[ENDPOINTS:])
    more = tuple(serve_arguments)
    roomy = _picker(directory / f"{label}epp", server_ports, _PLENTY, rest, more)
    pickers = [roomy]
    if "contended" in wanted:
        path = directory / f"{label}epp-contended"
        pickers.append(_picker(path, server_ports[:1], slots, rest, more))
    picker_of = {kind: pickers[-1] if kind == "contended" else roomy for kind in wanted}
    envoys = {
        kind: _envoy(directory / f"{label}envoy-{kind}", envoy, kind, picker, relay_port, rest)
        for kind, picker in picker_of.items()
    }
    await supervisor.start([_server(f"{label}server", server_ports)])
    await supervisor.start([picker.spec for picker in pickers])
    await supervisor.start([spec for _, _, spec in envoys.values()])
    pids = {process.name: process.pid for process in supervisor.processes}
    return {
        kind: Gateway(
            port=port,
            admin_port=admin_port,
            envoy_pid=pids[spec.name],
            epp_pid=None if kind == "off" else pids[picker_of[kind].spec.name],
            epp_port=picker_of[kind].grpc_port,
        )
        for kind, (port, admin_port, spec) in envoys.items()
    }


def cpu_s(pid: int) -> float:
    """Return the CPU time in seconds, user's and system's, that a process and those that it has
    started have used, with all their threads, to the nanosecond.

    ``pid`` must lead a session, as the supervisor's processes do: all that is in it counts, as long
    as it runs. Raises UsageError where the kernel does not tell, or there is no such process.
    """
    return sum(cpu_by_process_s(pid))


def cpu_by_process_s(pid: int) -> list[float]:
    """Return the same for each process: first ``pid``, then the others in order of their start."""
    if sys.platform != "linux" or not Path(f"/proc/{pid}").exists():
        raise UsageError(f"the CPU time of process {pid} cannot be read, which needs Linux")
    return [_own_cpu_s(member) for member in sorted(_session(pid))]


def _own_cpu_s(pid: int) -> float:
    clock = ctypes.c_int()
    # Not /proc/PID/stat, which has the same time in steps of 10 ms.
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return 0.0  # it has just ended
    return clock_gettime(clock.value)


def _session(leader: int) -> list[int]:
    members = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(int(path.name)) == leader:
                members.append(int(path.name))
    return members


class OtherWork:
    """How much the rest of the machine does, from now on, beside ``pids`` and this process.

    It counts what the kernel does for the network outside of any process as well, so a small share
    is no sign of other work.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self._began_s = perf_counter()
        self._before_s = self._others_s()

    def share(self) -> float:
        """Return the share of the machine's CPU time that went elsewhere so far, from 0 to 1."""
        available_s = (perf_counter() - self._began_s) * (os.cpu_count() or 1)
        return max(0.0, (self._others_s() - self._before_s) / available_s)

    def _others_s(self) -> float:
        # user, nice, system, idle, iowait, irq, softirq, steal
        fields = [int(field) for field in Path("/proc/stat").read_text().split()[1:9]]
        busy_s = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
        return busy_s - sum(map(cpu_s, self._pids)) - process_time()


def _server(name: str, ports: list[int]) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=[sys.executable, "-m", "loadkit.server", *map(str, ports)],
        ready=tcp_ready("127.0.0.1", ports[-1]),
        environment={"PYTHONPATH": str(Path(__file__).parents[1])},
    )


def _picker(
    directory: Path,
    server_ports: list[int],
    limit: int,
    ports: Iterator[int],
    more_arguments: tuple[str, ...],
) -> _Picker:
    manifests = directory / "manifests"
    manifests.mkdir(parents=True)
    (manifests / "pool.yaml").write_text(pool_manifest(server_ports))
    eds_path = directory / "eds.json"
    grpc_port, health_port, metrics_port = islice(ports, _PORTS_OF_EPP)
    command = [
        *(sys.executable, "-m", "epp", "serve", "--manifests", str(manifests)),
        *("--host", "127.0.0.1", "--grpc-port", str(grpc_port)),
        *("--health-port", str(health_port), "--metrics-port", str(metrics_port)),
        *("--eds-file", str(eds_path), "--max-concurrency", str(limit)),
        *("--log-level", "warning", "--drain-timeout", "0", "--shutdown-grace", "1"),
        *more_arguments,
    ]
    ready = http_ready("127.0.0.1", metrics_port, "/readyz")
    spec = ProcessSpec(name=directory.name, command=command, ready=ready)
    return _Picker(spec=spec, eds_path=eds_path, grpc_port=grpc_port)


def _envoy(
    base: Path,
    binary: Path,
    kind: GatewayKind,
    picker: _Picker,
    relay_port: int | None,
    ports: Iterator[int],
) -> tuple[int, int, ProcessSpec]:
    """Return the port, the admin port, and how to run it; ``base`` is its name in a directory."""
    # Slow to import, and of no use to whoever only wants to see the help.
    from epp.gateway.bootstrap import bootstrap, to_json

    port, admin_port = islice(ports, _PORTS_OF_ENVOY)
    options = GatewayOptions(
        eds_path=str(picker.eds_path),
        listen_port=port,
        admin_port=admin_port,
        ext_proc_port=relay_port if kind == "relayed" and relay_port else picker.grpc_port,
        ext_proc_enabled=kind != "off",
        response_body_mode="FULL_DUPLEX_STREAMED" if kind in ("duplex", "relayed") else "NONE",
        # A request that the EPP does not answer must fail here, not be answered without it.
        fail_open=False,
    )
    config = base.with_suffix(".json")
    config.write_text(to_json(bootstrap(options)))
    spec = ProcessSpec(
        name=base.name,
        command=envoy_command(binary, config, ENVOY_THREADS),
        ready=http_ready("127.0.0.1", admin_port, "/ready"),
    )
    return port, admin_port, spec


def pool_manifest(server_ports: list[int]) -> str:
    """Return a pool whose endpoints are at these ports of loopback."""
    endpoints = "".join(
        f"- {{name: server-{port}, address: 127.0.0.1, port: {port}, labels: {{app: server}}}}\n"
        for port in server_ports
    )
    return f"""\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: benchmark}}
spec:
  selector: {{matchLabels: {{app: server}}}}
  targetPorts: [{{number: {server_ports[0]}}}]
  endpointPickerRef: {{name: epp, port: {{number: 9002}}}}
---
endpoints:
{endpoints}"""
