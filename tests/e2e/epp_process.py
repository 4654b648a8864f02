"""The EPP as a process of its own or in this one, and the manifests that it reads.

``EPP_TEST_TRANSPORT=grpcio pytest tests/e2e`` runs the tests over another transport.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from epp.config import ServeOptions
from epp.core.flow import FlowLimits, FlowOptions
from epp.core.flow.saturation import ConcurrencyOptions
from epp.gateway.processes import ManagedProcess, ProcessSpec, Supervisor
from epp.service import Service

__all__ = ["EppProcess", "InProcessEpp", "Manifests", "in_process_options"]

# Which transport to test, where it is not to be the one that is used by default.
_transport: dict[str, Any] = (
    {"transport": os.environ["EPP_TEST_TRANSPORT"]} if "EPP_TEST_TRANSPORT" in os.environ else {}
)

OBJECTIVES: Mapping[str, int] = {"interactive": 10, "batch": -10}

_POOL = """\
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: llm}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: epp, port: {number: 9002}}
"""
_OBJECTIVE = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {{name: {name}}}
spec: {{priority: {priority}, poolRef: {{name: pool}}}}
"""
_BAD_LOG = re.compile(r"Traceback| ERROR | CRITICAL |never retrieved|was never awaited")


class Manifests:
    """A directory of manifests that a test can change."""

    def __init__(self, directory: Path, destinations: Iterable[str] = ()) -> None:
        self.directory = directory
        directory.mkdir()
        self.endpoints(destinations)
        self.objectives(OBJECTIVES)
        self.write("pool.yaml", _POOL)

    def endpoints(self, destinations: Iterable[str]) -> None:
        """Make these ``ip:port`` the endpoints of the pool."""
        lines = ["endpoints:"]
        for number, destination in enumerate(destinations):
            address, port = destination.rsplit(":", 1)
            address = address.strip("[]")
            lines.append(
                f'- {{name: e{number}, address: "{address}", port: "{port}", labels: {{app: llm}}}}'
            )
        self.write("endpoints.yaml", "\n".join(lines) if len(lines) > 1 else "endpoints: []")

    def objectives(self, priorities: Mapping[str, int]) -> None:
        """Make these the objectives."""
        documents = (
            _OBJECTIVE.format(name=name, priority=priority) for name, priority in priorities.items()
        )
        self.write("objectives.yaml", "---\n".join(documents))

    def write(self, name: str, content: str) -> None:
        """Write one file, at once as a whole."""
        scratch = self.directory / f".{name}"
        scratch.write_text(content)
        scratch.replace(self.directory / name)


class EppProcess:
    """``epp serve`` in a process of its own, which can be killed and started again.

    ``source`` are the arguments that say where its resources come from.
    """

    def __init__(
        self,
        directory: Path,
        source: Sequence[str],
        arguments: Sequence[str],
        max_concurrency: int | None,
        *,
        name: str = "epp",
        eds_file: str = "eds.json",
    ) -> None:
        self.name = name
        self.log_path = directory / f"{name}.log"
        self.eds_path = directory / eds_file
        self.ports = (0, 0, 0)
        self._directory = directory
        if max_concurrency is not None:
            arguments = ["--max-concurrency", str(max_concurrency), *arguments]
        self._arguments = arguments
        self._source = source
        self._supervisor: Supervisor | None = None
        self.process: ManagedProcess

    @property
    def ext_proc_port(self) -> int:
        return self.ports[0]

    @property
    def health_port(self) -> int:
        return self.ports[1]

    @property
    def metrics_port(self) -> int:
        return self.ports[2]

    async def start(self) -> None:
        """Start it and wait until it is ready; the ports stay what they were."""
        names = ("--grpc-port", "--health-port", "--metrics-port")
        listening = [
            text for pair in zip(names, map(str, self.ports), strict=True) for text in pair
        ]
        command = [
            *(sys.executable, "-m", "epp", "serve", "--host", "127.0.0.1", *listening),
            *(*self._source, "--eds-file", str(self.eds_path)),
            *(f"--{name}={value}" for name, value in _transport.items()),
            *self._arguments,
        ]
        printed = self.log_path.stat().st_size if self.log_path.exists() else 0

        async def is_ready() -> bool:
            said = self.log_path.read_bytes()[printed:].decode()
            ready = re.search(r" ready ext_proc=(\d+) health=(\d+) metrics=(\d+)", said)
            if ready is not None:
                self.ports = (int(ready[1]), int(ready[2]), int(ready[3]))
            return ready is not None

        supervisor = Supervisor(self._directory)
        self._supervisor = supervisor
        spec = ProcessSpec(name=self.name, command=command, ready=is_ready, stop_timeout_s=10.0)
        (self.process,) = await supervisor.start([spec])

    async def kill(self) -> None:
        """Kill it as the kernel does when memory runs out."""
        self.process.signal(signal.SIGKILL)
        await asyncio.wait({self.process.exit})

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.signal(signal.SIGTERM)

    async def stop(self) -> None:
        """Stop it; its log must be one that nobody has to worry about."""
        if self._supervisor is not None:
            await self._supervisor.stop()
            log = self.log_path.read_text(errors="replace")
            assert not _BAD_LOG.search(log), log[-8000:]

    async def page(self, client: aiohttp.ClientSession) -> bytes:
        async with client.get(f"http://127.0.0.1:{self.metrics_port}/metrics") as response:
            return await response.read()


class InProcessEpp:
    """The EPP in this process."""

    def __init__(self, service: Service) -> None:
        self.service = service

    @property
    def ext_proc_port(self) -> int:
        return self.service.ext_proc.port

    async def page(self, _: aiohttp.ClientSession) -> bytes:
        return self.service.metrics.render()


def in_process_options(directory: Path, **flow: object) -> ServeOptions:
    """Return the options of an EPP in this process, with limits of the flow control."""
    return ServeOptions(
        manifests=(directory / "manifests",),
        host="127.0.0.1",
        grpc_port=0,
        health_port=0,
        metrics_port=0,
        eds_file=directory / "eds.json",
        saturation=ConcurrencyOptions(max_requests=2),
        flow=FlowOptions(limits=FlowLimits(**flow)),  # type: ignore[arg-type]
        shutdown_grace_s=0.5,
        **_transport,
    )
