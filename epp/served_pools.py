"""All that hangs on each pool that is served, and what is to be done when pools change.

The routers belong to the core (:class:`epp.core.pools.Pools`). With each come a scraper of its
engines, its metrics, and what the workers know of it.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from epp.clock import monotonic_s
from epp.config import ServeOptions
from epp.core.claims import ClaimsReader
from epp.core.flow.saturation import make_detector
from epp.core.pools import Pools
from epp.core.resources import EndpointChanges, PoolResources
from epp.core.router import Router
from epp.core.scheduling import ProfileScheduler, Scheduler
from epp.core.timers import Timers
from epp.engines import Credentials, Scraper
from epp.observability.metrics import Metrics

if TYPE_CHECKING:
    from epp.workers.hub import Hub

__all__ = ["ServedPools"]

logger = logging.getLogger(__name__)


class ServedPools:
    """The pools, and who hears of their changes (:class:`epp.discovery.source.ResourceListener`).

    ``on_change`` is called after a pool has come, changed or gone. ``hub`` is to be set where there
    are workers. ``claims`` reads what requests say of themselves, as the configuration has it.

    All scrapers share the credentials, which are read here. So a pool can come at any time, also
    while the files that hold them are half replaced. Raises UsageError for files that are no good.
    """

    def __init__(
        self,
        options: ServeOptions,
        timers: Timers,
        metrics: Metrics,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._timers = timers
        self._metrics = metrics
        self._on_change = on_change
        self._plugin_failure = ""
        self._empty: set[str] = set()
        self._scrapers: dict[str, Scraper] = {}
        self._credentials = _credentials(options)
        self._retired: set[asyncio.Task[None]] = set()
        self.hub: Hub | None = None
        self.pools = Pools(self._new_router, metrics.recorder())
        self.claims = ClaimsReader(options.claims)

    async def stop(self) -> None:
        """Scrape nothing any more."""
        for scraper in self._scrapers.values():
            self._retire(scraper)
        self._scrapers.clear()
        await asyncio.gather(*self._retired)

    # epp.discovery.source.ResourceListener

    def pool_applied(self, resources: PoolResources) -> None:
        """Serve the pool as it is now."""
        key = resources.pool.key
        is_new = key not in self.pools.routers
        router = self.pools.apply(resources, monotonic_s())
        if is_new:
            self._follow(key, router)
        scraper = self._scrapers.get(key)
        if scraper is not None:
            scraper.follow(resources.endpoints)
        self.claims.reads_conversation = self.pools.has_choices
        if self.hub is not None:
            self.hub.announce_resources(resources)
        self._metrics.resources_applied(router)
        logger.info(
            "resources applied pool=%s endpoints=%d objectives=%d",
            key, len(resources.endpoints), len(resources.objectives),
        )  # fmt: skip
        self._tell_if_empty(key)
        self._on_change()

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        """Serve the pool with the endpoints that it has now."""
        self.pools.apply_endpoints(key, changes, monotonic_s())
        scraper = self._scrapers.get(key)
        if scraper is not None:
            scraper.follow_changes(changes)
        if self.hub is not None:
            self.hub.announce_endpoints(key, changes)
        logger.debug(
            "endpoints changed pool=%s present=%d gone=%d",
            key, len(changes.present), len(changes.gone),
        )  # fmt: skip
        self._tell_if_empty(key)

    def pool_gone(self, key: str) -> None:
        """Serve the pool no more."""
        self.pools.remove(key, monotonic_s())
        self._metrics.forget_pool(key)
        self._empty.discard(key)
        scraper = self._scrapers.pop(key, None)
        if scraper is not None:
            self._retire(scraper)
        if self.hub is not None:
            self.hub.announce_gone(key)
        self.claims.reads_conversation = self.pools.has_choices
        logger.info("pool gone pool=%s", key)
        self._on_change()

    def rejected(self) -> None:
        """Count what is no good."""
        self._metrics.resources_rejected()

    def _tell_if_empty(self, key: str) -> None:
        """Say when a pool has no endpoint, and when it has some again."""
        router = self.pools.routers.get(key)
        count = 0 if router is None else len(router.pool)
        if count == 0 and key not in self._empty:
            self._empty.add(key)
            logger.warning("no endpoint is ready, requests wait for one pool=%s", key)
        elif count > 0 and key in self._empty:
            self._empty.discard(key)
            logger.info("endpoints are ready again pool=%s endpoints=%d", key, count)

    def _follow(self, key: str, router: Router) -> None:
        options = self._options.scrape
        scraper = None
        if options is not None:
            scraper = Scraper(
                options,
                router,
                clock=monotonic_s,
                rng=random.Random(),
                credentials=self._credentials,
            )
            scraper.start()
            self._scrapers[key] = scraper
        self._metrics.follow_pool(router, scraper)

    def _retire(self, scraper: Scraper) -> None:
        task = asyncio.create_task(scraper.stop(), name="stop scraping")
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    # What is made, and made anew

    def _new_router(self, key: str) -> Router:
        options = self._options
        return Router(
            scheduler=self._new_scheduler(options),
            options=options.flow,
            make_detector=partial(make_detector, options.saturation),
            timers=self._timers,
            rng=random.Random(),
            recorder=self._metrics.recorder(key.partition("/")[2]),
        )

    def reconfigure(self, options: ServeOptions) -> None:
        """Go by another configuration, as a whole: nothing runs in between.

        Raises UsageError, and changes nothing, for files that it names and that cannot be used.
        """
        schedulers = {key: self._new_scheduler(options) for key in self.pools.routers}
        if options.scrape is not None and options.scrape != self._options.scrape:
            self._credentials = _credentials(options)
            for scraper in self._scrapers.values():
                scraper.reconfigure(options.scrape, self._credentials)
        is_same_detector = options.saturation == self._options.saturation
        for key, router in self.pools.routers.items():
            router.reconfigure(
                scheduler=schedulers[key],
                options=options.flow,
                make_detector=(
                    None if is_same_detector else partial(make_detector, options.saturation)
                ),
                now=monotonic_s(),
            )
        self.claims = ClaimsReader(options.claims)
        self.claims.reads_conversation = self.pools.has_choices
        self._options = options
        if self.hub is not None:
            self.hub.announce_configuration()

    def _new_scheduler(self, options: ServeOptions) -> Scheduler:
        scheduler = options.new_scheduler()
        if isinstance(scheduler, ProfileScheduler):
            scheduler.on_failure = self._plugin_failed
        return scheduler

    def _plugin_failed(self, error: Exception) -> None:
        """A plugin has raised: count it, and log it unless it is the same as the last time."""
        self._metrics.plugin_failed()
        failure = f"{type(error).__name__}: {error}"
        if failure != self._plugin_failure:
            self._plugin_failure = failure
            text = "a scheduling plugin has failed, the least used endpoint is picked: %s"
            logger.error(text, failure, exc_info=error)


def _credentials(options: ServeOptions) -> Credentials | None:
    scrape = options.scrape
    return None if scrape is None else Credentials(scrape, monotonic_s())
