"""The composition root: builds all of it, owns start, reload, drain, stop.

Whoever wants to know how the parts fit together reads :class:`Service` from top to bottom.
"""

import asyncio
import logging
import random
from contextlib import suppress
from pathlib import Path

from epp.clock import Alarm, monotonic_s
from epp.config import ServeOptions
from epp.core.exchange import Exchange
from epp.core.headers import Headers
from epp.core.replies import ProxyStream
from epp.core.resources import PoolResources
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.discovery.files import FileSource
from epp.discovery.problems import ManifestError
from epp.errors import UsageError
from epp.observability.http import ObservabilityServer
from epp.observability.metrics import Metrics
from epp.proxy.eds import write_eds
from epp.proxy.grpc_server import GrpcServer
from epp.proxy.health import Health, HealthServer
from epp.proxy.http2_server import Http2Server
from epp.proxy.transport import Transport

__all__ = ["Service"]

logger = logging.getLogger(__name__)


class Service:
    """One EPP: its core, its servers and its source of resources.

    Use it as an asynchronous context manager: entering starts it and returns when it is ready,
    leaving drains and stops it. Raises UsageError (ManifestError included) for what its options got
    wrong.
    """

    def __init__(self, options: ServeOptions) -> None:
        self._options = options
        self.metrics = Metrics()
        self._timers = Timers()
        self._alarm = Alarm(self._timers)
        self.router = Router(
            scheduler=LeastLoaded(),
            limits=options.flow,
            max_concurrency=options.max_concurrency,
            timers=self._timers,
            rng=random.Random(),
            recorder=self.metrics,
        )
        self._health = Health()
        self.ext_proc = self._make_transport()
        self.health_server = HealthServer(self._health)
        self.observability = ObservabilityServer(self.metrics.render, lambda: self.router.is_ready)
        self.metrics.watch(self.router, lambda: self.ext_proc.open_streams, monotonic_s)
        self._source = FileSource(
            options.manifests,
            pool_name=options.pool_name,
            pool_namespace=options.pool_namespace,
            on_lookup_failure=lambda name: self.metrics.name_unresolved(),
        )
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Service":
        """Start: listen, load the resources, be ready."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Drain and stop."""
        try:
            await self.drain()
        finally:
            await self._close()

    async def drain(self) -> None:
        """Be not ready, take nothing new, let what waits be dispatched, then refuse the rest."""
        self.router.begin_drain()
        await self._health.set_ready(False)
        logger.info("drain begins waiting=%d", self.router.flow.requests)
        if self.router.flow.requests:
            is_empty = asyncio.Event()
            self.router.flow.on_empty = is_empty.set
            with suppress(TimeoutError):
                await asyncio.wait_for(is_empty.wait(), self._options.drain_timeout_s)
        self.router.flow.end_drain(monotonic_s())

    # Start and stop

    async def _start(self) -> None:
        options = self._options
        self._alarm.start()
        await self._health.start()
        await self.observability.start(options.host, options.metrics_port)
        await self.health_server.start(options.host, options.health_port)
        self._apply(await self._source.load())
        await self.ext_proc.start(options.host, options.grpc_port)
        await self._health.set_ready(True)
        self._watcher = asyncio.create_task(
            self._source.run(self._apply_change, self._reject_change), name="watch resources"
        )
        logger.info(
            "ready ext_proc=%d health=%d metrics=%d",
            self.ext_proc.port,
            self.health_server.port,
            self.observability.port,
        )

    async def _close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.ext_proc.stop(self._options.shutdown_grace_s)
        await self.health_server.stop()
        await self.observability.stop()
        self._alarm.stop()

    def _make_transport(self) -> Transport:
        max_body_bytes = self._options.exchange.max_body_bytes
        if self._options.transport == "grpcio":
            return GrpcServer(
                self._new_exchange,
                health=self._health,
                now=monotonic_s,
                max_body_bytes=max_body_bytes,
            )
        return Http2Server(self._new_exchange, health=self._health, max_body_bytes=max_body_bytes)

    def _new_exchange(self, stream: ProxyStream) -> Exchange:
        return Exchange(stream, self._bind, self._options.exchange)

    def _bind(self, _: Headers) -> Router:
        return self.router

    # Resources

    def _apply(self, resources: PoolResources) -> None:
        self.router.apply(resources, monotonic_s())
        self.metrics.resources_applied(self.router)
        logger.info(
            "resources applied pool=%s/%s endpoints=%d objectives=%d",
            resources.pool.namespace,
            resources.pool.name,
            len(resources.endpoints),
            len(resources.objectives),
        )
        if self._options.eds_file is not None:
            _write_eds(self._options.eds_file, resources)

    def _apply_change(self, resources: PoolResources) -> None:
        try:
            self._apply(resources)
        except UsageError:
            logger.exception("the endpoints could not be handed to Envoy")

    def _reject_change(self, error: ManifestError) -> None:
        self.metrics.resources_rejected()


def _write_eds(path: Path, resources: PoolResources) -> None:
    try:
        write_eds(path, resources.endpoints)
    except OSError as error:
        raise UsageError(f"cannot write --eds-file {path}: {error.strerror or error}") from error
