"""The composition root: builds all of it, owns start, reload, drain, stop.

Whoever wants to know how the parts fit together reads :class:`Service` from top to bottom.
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from epp.clock import Alarm, monotonic_s
from epp.config import ServeOptions
from epp.config.watch import ConfigWatch
from epp.core.claims import ClaimsReader
from epp.core.exchange import Exchange
from epp.core.flow.saturation import make_detector
from epp.core.headers import Headers
from epp.core.replies import ProxyStream
from epp.core.resources import Endpoint, PoolResources
from epp.core.router import Router
from epp.core.scheduling import ProfileScheduler, Scheduler
from epp.core.timers import Timers
from epp.discovery.files import FileSource
from epp.discovery.problems import ManifestError
from epp.engines import ScrapeMetrics, Scraper
from epp.errors import UsageError
from epp.observability.explain import PickAnswer, explain_pick
from epp.observability.http import ObservabilityServer
from epp.observability.metrics import Metrics
from epp.proxy.eds import write_eds
from epp.proxy.health import Health, HealthServer
from epp.proxy.http2.limits import Limit
from epp.proxy.transports import make_tls, make_transport
from epp.workers.hub_server import CoreSeat, HubServer
from epp.workers.metrics import WorkerMetrics
from epp.workers.tally import Tally

__all__ = ["Service"]

logger = logging.getLogger(__name__)

_EDS_LEAD_S: Final = 0.1
"""How long before the core Envoy hears of new endpoints. It takes some milliseconds to take them
in; until then, what is dispatched to one of them goes elsewhere or fails."""

_DRAIN_POLL_S: Final = 0.05


class Service:
    """One EPP: its core, its servers and its source of resources.

    Use it as an asynchronous context manager: entering starts it and returns when it is ready,
    leaving drains and stops it. Raises UsageError (ManifestError included) for what its options got
    wrong. With a ``seat`` it is the core of several processes, and streams end in its workers.
    """

    def __init__(self, options: ServeOptions, seat: CoreSeat | None = None) -> None:
        self._options = options
        self.metrics = Metrics([limit.value for limit in Limit])
        self._claims = ClaimsReader(options.claims)
        self._plugin_failure = ""
        self._timers = Timers()
        self._alarm = Alarm(self._timers)
        self.router = Router(
            scheduler=self._new_scheduler(options),
            options=options.flow,
            make_detector=partial(make_detector, options.saturation),
            timers=self._timers,
            rng=random.Random(),
            recorder=self.metrics,
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
        self.observability = ObservabilityServer(
            self.metrics.render,
            lambda: self.is_ready,
            self._explain_pick,
            max_body_bytes=options.exchange.max_body_bytes,
        )
        self.metrics.watch(self.router, lambda: self.ext_proc.open_streams, monotonic_s)
        self._source = FileSource(
            options.manifests,
            pool_name=options.pool_name,
            pool_namespace=options.pool_namespace,
            on_lookup_failure=lambda name: self.metrics.name_unresolved(),
        )
        self._scraper = self._make_scraper()
        self._config = self._make_config_watch()
        self._watchers: list[asyncio.Task[None]] = []
        self._change: asyncio.TimerHandle | None = None

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served."""
        return self.router.is_ready if self._hub is None else self._hub.is_ready

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
        """Be not ready, take nothing new, let what waits be dispatched, then refuse the rest.

        Returns when what runs has ended, or its grace is over. Newcomers are refused in good order
        until then: a gateway that finds nobody here cannot tell its clients when to come back.
        """
        self.router.begin_drain()
        await self._health.set_ready(False)
        logger.info("drain begins waiting=%d", self.router.flow.requests)
        if self.router.flow.requests:
            is_empty = asyncio.Event()
            self.router.flow.on_empty = is_empty.set
            with suppress(TimeoutError):
                await asyncio.wait_for(is_empty.wait(), self._options.drain_timeout_s)
        self.router.flow.end_drain(monotonic_s())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.shutdown_grace_s):
                while self.router.pool.total_in_flight:  # noqa: ASYNC110 - nobody tells
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
        self._alarm.start()
        await self._health.start()
        await self.observability.start(options.host, options.metrics_port)
        await self.health_server.start(options.host, options.health_port)
        resources = await self._source.load()
        if self._scraper is not None:
            self._scraper.start()
        self._apply(resources)
        _write_eds(options.eds_file, resources.endpoints)
        await self.ext_proc.start(options.host, options.grpc_port, self._tls)
        await self._health.set_ready(True)
        self._watch()
        logger.info(
            "ready ext_proc=%d health=%d metrics=%d",
            self.ext_proc.port,
            self.health_server.port,
            self.observability.port,
        )

    def _watch(self) -> None:
        watching = self._source.run(self._apply_change, self._reject_change)
        self._watchers.append(asyncio.create_task(watching, name="watch resources"))
        if self._config is not None:
            watching = self._config.run(self._reconfigure, self._reject_configuration)
            self._watchers.append(asyncio.create_task(watching, name="watch configuration"))
        if self._tls is None:
            logger.info("ext_proc is served in plaintext: there is no --cert-path")
        else:
            self._watchers.append(asyncio.create_task(self._tls.run(), name="watch certificate"))
        for watcher in self._watchers:
            watcher.add_done_callback(_tell_failure)

    async def _close(self) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        if self._change is not None:
            self._change.cancel()
        if self._scraper is not None:
            await self._scraper.stop()
        had_grace = self.router.pool.total_in_flight > 0
        await self.ext_proc.stop(0.0 if had_grace else self._options.shutdown_grace_s)
        await self.health_server.stop()
        await self.observability.stop()
        self._alarm.stop()

    def _make_config_watch(self) -> ConfigWatch[ServeOptions] | None:
        options = self._options
        if options.config_file is None:
            return None
        return ConfigWatch(options.config_file, options.renewed)

    def _make_hub(self, seat: CoreSeat) -> HubServer:
        workers = self._options.workers
        tally = Tally(seat.restarts, self.metrics.handshake_refused, self.metrics.limit_met)
        hub = HubServer(
            self.router,
            seat,
            workers=workers,
            timers=self._timers,
            health=self._health,
            tally=tally,
        )
        self.metrics.registry.register(WorkerMetrics(hub.hub, tally, workers))
        return hub

    def _make_scraper(self) -> Scraper | None:
        if self._options.scrape is None:
            return None
        scraper = Scraper(self._options.scrape, self.router, clock=monotonic_s, rng=random.Random())
        self.metrics.registry.register(ScrapeMetrics(scraper, self.router, monotonic_s))
        return scraper

    def _new_exchange(self, stream: ProxyStream) -> Exchange:
        return Exchange(stream, self._bind, self._options.exchange, self._claims)

    def _bind(self, _: Headers) -> Router:
        return self.router

    # Resources

    def _apply(self, resources: PoolResources) -> None:
        self.router.apply(resources, monotonic_s())
        self._claims.reads_conversation = self.router.rewrites.has_choices
        if self._scraper is not None:
            self._scraper.follow(resources.endpoints)
        if self._hub is not None:
            self._hub.hub.announce_resources(resources)
        self.metrics.resources_applied(self.router)
        logger.info(
            "resources applied pool=%s/%s endpoints=%d objectives=%d",
            resources.pool.namespace,
            resources.pool.name,
            len(resources.endpoints),
            len(resources.objectives),
        )

    def _apply_change(self, resources: PoolResources) -> None:
        """Apply a change, once Envoy has had the time to learn of the endpoints that are new."""
        if self._change is not None:
            self._change.cancel()  # the state before this one is not wanted any more
        known = [endpoint for endpoint, _, _ in self.router.pool]
        self._tell_envoy([*known, *resources.endpoints])
        destinations = {endpoint.destination for endpoint in known}
        has_new = any(e.destination not in destinations for e in resources.endpoints)
        if has_new and self._options.eds_file is not None:
            loop = asyncio.get_running_loop()
            self._change = loop.call_later(_EDS_LEAD_S, self._complete_change, resources)
        else:
            self._complete_change(resources)

    def _complete_change(self, resources: PoolResources) -> None:
        self._apply(resources)
        self._tell_envoy(resources.endpoints)

    def _tell_envoy(self, endpoints: Iterable[Endpoint]) -> None:
        try:
            _write_eds(self._options.eds_file, endpoints)
        except UsageError as error:
            logger.error("the endpoints could not be handed to Envoy: %s", error)

    def _explain_pick(self, headers: Headers, body: bytes) -> PickAnswer:
        max_bytes = self._options.exchange.max_inspected_bytes
        claims = self._claims.read(headers, body, None, max_inspected_bytes=max_bytes)
        return explain_pick(self.router, claims, monotonic_s())

    def _new_scheduler(self, options: ServeOptions) -> Scheduler:
        scheduler = options.new_scheduler()
        if isinstance(scheduler, ProfileScheduler):
            scheduler.on_failure = self._plugin_failed
        return scheduler

    def _plugin_failed(self, error: Exception) -> None:
        """A plugin has raised: count it, and log it unless it is the same as the last time."""
        self.metrics.plugin_failed()
        failure = f"{type(error).__name__}: {error}"
        if failure != self._plugin_failure:
            self._plugin_failure = failure
            text = "a scheduling plugin has failed, the least used endpoint is picked: %s"
            logger.error(text, failure, exc_info=error)

    # The configuration

    def _reconfigure(self, options: ServeOptions) -> None:
        """Go by another configuration, as a whole: nothing runs in between."""
        scheduler = self._new_scheduler(options)
        if self._scraper is not None and options.scrape is not None:
            try:
                self._scraper.reconfigure(options.scrape)
            except UsageError as error:  # of files that it names
                self._reject_configuration(error)
                return
        is_same_detector = options.saturation == self._options.saturation
        self.router.reconfigure(
            scheduler=scheduler,
            options=options.flow,
            make_detector=None if is_same_detector else partial(make_detector, options.saturation),
            now=monotonic_s(),
        )
        claims = ClaimsReader(options.claims)
        claims.reads_conversation = self._claims.reads_conversation
        self._claims = claims
        self._options = options
        if self._hub is not None:
            self._hub.hub.announce_configuration()
        self.metrics.configuration_applied()
        logger.info("configuration applied file=%s", options.config_file)

    def _reject_configuration(self, error: UsageError) -> None:
        self.metrics.configuration_rejected()
        logger.warning("configuration rejected, the last good one stays: %s", error)

    def _reject_change(self, error: ManifestError) -> None:
        self.metrics.resources_rejected()


def _tell_failure(watcher: asyncio.Task[None]) -> None:
    """Say so where a change will not be noticed any more, instead of going on in silence."""
    error = None if watcher.cancelled() else watcher.exception()
    if error is not None:
        logger.error("%s has failed and goes on no more", watcher.get_name(), exc_info=error)


def _write_eds(path: Path | None, endpoints: Iterable[Endpoint]) -> None:
    if path is None:
        return
    try:
        write_eds(path, endpoints)
    except OSError as error:
        raise UsageError(f"cannot write --eds-file {path}: {error.strerror or error}") from error
