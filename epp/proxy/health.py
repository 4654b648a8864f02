"""gRPC health, beside ext_proc and on a port of its own."""

from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from epp.proxy.listen import bind

__all__ = ["EXT_PROC_SERVICE", "Health", "HealthServer"]

EXT_PROC_SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"

# What the probes of the Go EPP's chart ask a single replica for; the Go EPP answers any name.
_REFERENCE_SERVICE: Final = "inference-extension"
_FOLLOW_READINESS: Final = ("", "readiness", EXT_PROC_SERVICE, _REFERENCE_SERVICE)
_LIVENESS: Final = "liveness"
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The answers to ``Check`` and ``Watch``.

    ``liveness`` is serving as long as the process answers; ``readiness``, the empty name, the
    ext_proc service and ``inference-extension`` follow :meth:`set_ready`, and begin as not serving.
    """

    def __init__(self) -> None:
        self._servicer: Any = health.aio.HealthServicer()
        self._statuses: dict[str, int] = {}
        self._watchers: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Begin to answer: alive, not ready."""
        self._statuses[_LIVENESS] = _SERVING
        await self._servicer.set(_LIVENESS, _SERVING)
        await self.set_ready(False)

    async def set_ready(self, ready: bool) -> None:
        """Tell everybody who asks or watches."""
        status = _SERVING if ready else _NOT_SERVING
        for service in _FOLLOW_READINESS:
            self._statuses[service] = status
            await self._servicer.set(service, status)
        for watcher in list(self._watchers):
            watcher()

    def status(self, service: str) -> int | None:
        """Return the ServingStatus of a service, None for one that is not known here."""
        return self._statuses.get(service)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` whenever a status may have changed."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Call it no more."""
        self._watchers.remove(watcher)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer on this server too."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)


class HealthServer:
    """Serves health alone, for probes. ``port`` is the bound port once :meth:`start` has
    returned."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any that is free. Raises UsageError if the address cannot be had."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._health.add_to(server)
        self.port = bind(server, host, port, "health (--health-port)")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._server is not None:
            await self._server.stop(None)
