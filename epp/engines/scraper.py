"""When which engine is asked for its load.

One task per endpoint sleeps, waits for its turn, fetches the page and tells the router. The sleeps
are jittered, so the endpoints of a pool spread over the time by themselves.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from epp.config.scrape import ScrapeOptions
from epp.core.pool import EngineLoad
from epp.core.router import Router
from epp.engines.fetch import Failure, FetchError, PageClient
from epp.engines.parse import engine_load

__all__ = ["OK", "Scraper"]

logger = logging.getLogger(__name__)

OK: Final = "ok"
_JITTER: Final = 0.2
_FIRST_WITHIN_S: Final = 0.2
"""The first scrapes of endpoints that come together are spread over so many seconds."""


class Scraper:
    """Keeps a router informed of the load of its engines.

    ``clock`` is the one of the router's ``now``. :attr:`results` counts the scrapes, by ``ok`` or
    what failed. To be started in a running loop, and stopped there.
    """

    def __init__(
        self,
        options: ScrapeOptions,
        router: Router,
        *,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._options = options
        self._router = router
        self._clock = clock
        self._rng = rng
        self._client: PageClient | None = None
        self._turns = asyncio.Semaphore(options.concurrency)
        self._targets: dict[str, _Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.results: Counter[str] = Counter({OK: 0, **{each.value: 0 for each in Failure}})

    def start(self) -> None:
        """Begin; nothing is scraped before :meth:`follow` says what."""
        self._client = PageClient(self._options)
        self._router.pool.on_busy = self._hurry

    async def stop(self) -> None:
        """Scrape nothing any more."""
        self._router.pool.on_busy = lambda slot: None
        self.follow(())
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.close()
            self._client = None

    def follow(self, destinations: Iterable[str]) -> None:
        """Make these ``ip:port`` the ones that are scraped."""
        wanted = set(destinations)
        for destination in self._targets.keys() - wanted:
            self._targets.pop(destination).task.cancel()
        if wanted and self._client is None:
            raise AssertionError("the scraper was not started")
        for destination in wanted - self._targets.keys():
            target = self._targets[destination] = _Target(destination)
            target.task = asyncio.create_task(self._watch(target), name=f"scrape {destination}")
            self._tasks.add(target.task)
            target.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s has failed and goes on no more", task.get_name(), exc_info=error)

    async def _watch(self, target: "_Target") -> None:
        await target.sleep(self._rng.random() * _FIRST_WITHIN_S)
        while True:
            async with self._turns:
                target.began_s = self._clock()
                load = await self._scrape(target)
            if load is None:
                await target.sleep(self._backoff_s(target))
            elif load.running or load.waiting or self._is_used(target.destination):
                await target.sleep(self._jittered(self._options.interval_s))
            else:
                idle_s = max(self._options.interval_s, self._options.idle_interval_s)
                await target.sleep(self._jittered(idle_s), is_idle=True)

    async def _scrape(self, target: "_Target") -> EngineLoad | None:
        """Scrape once and tell the router; None where it failed."""
        if self._client is None:
            raise AssertionError("the scraper was not started")
        try:
            load = engine_load(await self._client.fetch(target.destination))
            failure = Failure.UNREADABLE if load is None else None
        except FetchError as error:
            load, failure = None, error.failure
        self.results[OK if failure is None else failure.value] += 1
        self._log_change(target, failure)
        if load is not None:
            self._router.scraped(target.destination, load, self._clock())
        return load

    def _log_change(self, target: "_Target", failure: Failure | None) -> None:
        if failure is None:
            if target.failures:
                logger.info("engine metrics are back endpoint=%s", target.destination)
            target.failures = 0
            return
        if not target.failures:
            logger.warning(
                "engine metrics failed endpoint=%s cause=%s", target.destination, failure.value
            )
        target.failures += 1

    def _backoff_s(self, target: "_Target") -> float:
        """Return how long to leave an endpoint alone: twice as long with each failure on end."""
        options = self._options
        longest_s = max(options.max_backoff_s, options.interval_s)
        doublings = min(target.failures, 30)  # as a number it has bounds
        return self._jittered(min(longest_s, options.interval_s * 2.0**doublings))

    def _jittered(self, delay_s: float) -> float:
        return delay_s * (1.0 + _JITTER * (2.0 * self._rng.random() - 1.0))

    def _is_used(self, destination: str) -> bool:
        """Tell whether requests run at an endpoint, or wait."""
        router = self._router
        slot = router.pool.slot_of(destination)
        return router.flow.requests > 0 or (slot is not None and router.pool.in_flight[slot] > 0)

    def _hurry(self, slot: int) -> None:
        """A request goes to an endpoint that had none: what it said while idle is history."""
        target = self._targets.get(self._router.pool.endpoint(slot).destination)
        if target is not None and target.is_idle:
            target.is_idle = False
            target.wake_in(target.began_s + self._options.interval_s - self._clock())


class _Target:
    """One endpoint: how its scrapes went, and its sleep."""

    __slots__ = ("_alarm", "_awake", "began_s", "destination", "failures", "is_idle", "task")

    task: asyncio.Task[None]

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.failures = 0
        self.began_s = 0.0
        self.is_idle = False
        self._awake: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def sleep(self, delay_s: float, *, is_idle: bool = False) -> None:
        """Sleep for so long, or until :meth:`wake_in` says."""
        self.is_idle = is_idle
        self._awake = asyncio.get_running_loop().create_future()
        self.wake_in(delay_s)
        try:
            await self._awake
        finally:
            self.is_idle = False
            if self._alarm is not None:
                self._alarm.cancel()

    def wake_in(self, delay_s: float) -> None:
        """End the sleep so many seconds from now."""
        if self._alarm is not None:
            self._alarm.cancel()
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(max(0.0, delay_s), self._wake)

    def _wake(self) -> None:
        if self._awake is not None and not self._awake.done():
            self._awake.set_result(None)
