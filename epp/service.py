"""The composition root: builds all of it, owns start, reload, drain, stop.

Whoever wants to know how the parts fit together reads :class:`Service` from top to bottom.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from epp.clock import Alarm, monotonic_s
from epp.config import ServeOptions
from epp.config.watch import ConfigWatch
from epp.core.exchange import Exchange
from epp.core.headers import Headers
from epp.core.pools import Pools
from epp.core.replies import ProxyStream
from epp.core.timers import Timers
from epp.discovery.source import ResourceListener
from epp.errors import UsageError
from epp.observability.explain import PickAnswer, explain_pick
from epp.observability.http import ObservabilityServer
from epp.observability.metrics import Metrics
from epp.proxy.envoy_first import EnvoyFirst
from epp.proxy.health import Health, HealthServer
from epp.proxy.http2.limits import Limit
from epp.proxy.transports import make_metrics_tls, make_tls, make_transport
from epp.served_pools import ServedPools
from epp.sources import make_source
from epp.workers.hub_server import CoreSeat, HubServer
from epp.workers.metrics import WorkerMetrics
from epp.workers.tally import Tally

__all__ = ["Service"]

logger = logging.getLogger(__name__)

_DRAIN_POLL_S: Final = 0.05


class Service:
    """One EPP: its pools, its servers and the source of its resources.

    Use it as an asynchronous context manager: entering starts it and returns when it serves,
    leaving drains and stops it. Raises UsageError (ManifestError included) for what its options got
    wrong. With a ``seat`` it is the core of several processes, and streams end in its workers.
    """

    def __init__(self, options: ServeOptions, seat: CoreSeat | None = None) -> None:
        self._options = options
        self.metrics = Metrics([limit.value for limit in Limit])
        self._timers = Timers()
        self._alarm = Alarm(self._timers)
        self._standing_changed = asyncio.Event()
        self._is_leaving = False
        self._served = ServedPools(
            options, self._timers, self.metrics, on_change=self._standing_changed.set
        )
        self._envoy = (
            None if options.eds_file is None else EnvoyFirst(self._served, options.eds_file)
        )
        self._source, self._cluster = make_source(
            options, self.metrics, on_standing=self._standing_changed.set
        )
        self._health = Health()
        self._tls = make_tls(
            options,
            on_reload=self.metrics.tls_reloaded,
            on_refused=self.metrics.handshake_refused,
        )
        self._hub = None if seat is None else self._make_hub(seat)
        self.ext_proc = self._hub or make_transport(
            options, self._new_exchange, self._health, on_limit=self.metrics.limit_met
        )
        self.health_server = HealthServer(self._health)
        self.observability = self._make_observability()
        self.metrics.watch(lambda: self.ext_proc.open_streams, monotonic_s)
        self._config = self._make_config_watch()
        self._watchers: list[asyncio.Task[None]] = []

    @property
    def pools(self) -> Pools:
        """The pools that are served."""
        return self._served.pools

    @property
    def may_serve(self) -> bool:
        """Whether gateways are to send requests here: there is a pool, nobody else is the leader,
        and the end has not begun."""
        leads = self._cluster is None or self._cluster.is_leader
        return leads and self.pools.is_ready and not self._is_leaving

    @property
    def is_ready(self) -> bool:
        """Whether they can: with workers, one of them must be there."""
        return self.may_serve and (self._hub is None or self._hub.has_workers)

    async def __aenter__(self) -> "Service":
        """Start: listen, load the resources, be ready as soon as there is a pool."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hand over, drain and stop."""
        try:
            await self.drain()
        finally:
            await self._close()

    async def drain(self) -> None:
        """Be not ready, but serve until gateways have noticed; then take nothing new, let what
        waits be dispatched, and refuse the rest.

        Returns when what runs has ended, or its grace is over. Newcomers are refused in good order
        until then: a gateway that finds nobody here cannot tell its clients when to come back.
        """
        options = self._options
        self._is_leaving = True
        await self._health.set_ready(False)
        if self._cluster is not None:
            await self._cluster.hand_over()
        if options.handover_s:
            logger.info("handing over for %g s", options.handover_s)
            await asyncio.sleep(options.handover_s)
        self.pools.begin_drain()
        self._standing_changed.set()
        logger.info("drain begins waiting=%d", self.pools.waiting)
        with suppress(TimeoutError):
            async with asyncio.timeout(options.drain_timeout_s):
                while self.pools.waiting:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(_DRAIN_POLL_S)
        self.pools.end_drain(monotonic_s())
        with suppress(TimeoutError):
            async with asyncio.timeout(options.shutdown_grace_s):
                while self.pools.running:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(_DRAIN_POLL_S)

    def reload(self) -> None:
        """Look at the configuration's file now, and not with the next poll."""
        if self._config is None:
            logger.info("there is no configuration file to read again")
        else:
            self._config.poke()

    # Start and stop

    async def _start(self) -> None:
        options = self._options
        if self._tls is not None:
            self._tls.load()
        if self._metrics_tls is not None:
            self._metrics_tls.load()
        self._alarm.start()
        if self._cluster is not None:
            await self._cluster.open()
        await self._health.start()
        metrics_tls = None if self._metrics_tls is None else self._metrics_tls.context
        await self.observability.start(options.host, options.metrics_port, metrics_tls)
        await self.health_server.start(options.host, options.health_port)
        listener: ResourceListener = self._envoy or self._served
        await self._source.load(listener)
        if self._envoy is not None:
            self._envoy.start()
        await self.ext_proc.start(options.host, options.grpc_port, self._tls)
        await self._health.set_ready(self.is_ready)
        self._watch(listener)
        logger.info(
            "ready ext_proc=%d health=%d metrics=%d",
            self.ext_proc.port,
            self.health_server.port,
            self.observability.port,
        )

    def _watch(self, listener: ResourceListener) -> None:
        work = {
            "follow standing": self._follow_standing(),
            "watch resources": self._source.run(listener),
        }
        if self._cluster is not None:
            work |= self._cluster.work()
        if self._config is not None:
            work["watch configuration"] = self._config.run(
                self._reconfigure, self._reject_configuration
            )
        if self._tls is None:
            logger.info("ext_proc is served in plaintext")
        else:
            if self._options.cert_path is None:
                logger.info("ext_proc is served with TLS, by a certificate that nobody has signed")
            work["watch certificate"] = self._tls.run()
        if self._metrics_tls is not None:
            work["watch certificate of the metrics"] = self._metrics_tls.run()
        for name, coroutine in work.items():
            watcher = asyncio.create_task(coroutine, name=name)
            watcher.add_done_callback(_tell_failure)
            self._watchers.append(watcher)

    async def _follow_standing(self) -> None:
        """Tell who asks for health, and the workers, whenever it has changed."""
        while True:
            self._standing_changed.clear()
            await self._health.set_ready(self.is_ready)
            await self._standing_changed.wait()

    async def _close(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        if self._envoy is not None:
            self._envoy.stop()
        await self._served.stop()
        had_grace = self.pools.running > 0
        await self.ext_proc.stop(0.0 if had_grace else self._options.shutdown_grace_s)
        await self.health_server.stop()
        await self.observability.stop()
        if self._cluster is not None:
            await self._cluster.close()
        self._alarm.stop()

    # What is made

    def _make_config_watch(self) -> ConfigWatch[ServeOptions] | None:
        options = self._options
        if options.config_file is None:
            return None
        return ConfigWatch(options.config_file, options.renewed)

    def _make_hub(self, seat: CoreSeat) -> HubServer:
        workers = self._options.workers
        tally = Tally(seat.restarts, self.metrics.handshake_refused, self.metrics.limit_met)
        hub = HubServer(
            self.pools,
            seat,
            workers=workers,
            timers=self._timers,
            health=self._health,
            tally=tally,
            may_serve=lambda: self.may_serve,
            on_change=self._standing_changed.set,
        )
        self._served.hub = hub.hub
        self.metrics.registry.register(WorkerMetrics(hub.hub, tally, workers))
        return hub

    def _make_observability(self) -> ObservabilityServer:
        self._metrics_tls = make_metrics_tls(self._options, on_reload=self.metrics.tls_reloaded)
        cluster = self._cluster
        return ObservabilityServer(
            self.metrics.pieces,
            lambda: self.is_ready,
            self._explain_pick,
            max_body_bytes=self._options.exchange.max_body_bytes,
            authorize=cluster.authorize if cluster and self._options.metrics_auth else None,
        )

    def _new_exchange(self, stream: ProxyStream) -> Exchange:
        return Exchange(stream, self._bind, self._options.exchange, self._served.claims)

    def _bind(self, _: Headers) -> Pools:
        return self.pools

    def _explain_pick(self, headers: Headers, body: bytes) -> PickAnswer:
        max_bytes = self._options.exchange.max_inspected_bytes
        claims = self._served.claims.read(headers, body, None, max_inspected_bytes=max_bytes)
        return explain_pick(self.pools.find(claims), claims, monotonic_s())

    # The configuration

    def _reconfigure(self, options: ServeOptions) -> None:
        """Go by another configuration, as a whole: nothing runs in between."""
        try:
            self._served.reconfigure(options)
        except UsageError as error:  # of files that it names
            self._reject_configuration(error)
            return
        self._options = options
        self.metrics.configuration_applied()
        logger.info("configuration applied file=%s", options.config_file)

    def _reject_configuration(self, error: UsageError) -> None:
        self.metrics.configuration_rejected()
        if self._cluster is not None:
            self._cluster.configuration_rejected(str(error))
        logger.warning("configuration rejected, the last good one stays: %s", error)


def _tell_failure(watcher: asyncio.Task[None]) -> None:
    """Say so where a change will not be noticed any more, instead of going on in silence."""
    error = None if watcher.cancelled() else watcher.exception()
    if error is not None:
        logger.error("%s has failed and goes on no more", watcher.get_name(), exc_info=error)
