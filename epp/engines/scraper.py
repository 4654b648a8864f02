"""When which engine is asked for its load.

One task per endpoint sleeps, waits for its turn, fetches the page and tells the router. The sleeps
are jittered, so the endpoints of a pool spread over the time by themselves.
"""

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import Final

from epp.config.scrape import ScrapeOptions
from epp.core.pool import EngineLoad
from epp.core.resources import Endpoint, EndpointChanges, join_host_port
from epp.core.router import Router
from epp.engines.credentials import Credentials
from epp.engines.fetch import Failure, FetchError, PageClient
from epp.engines.parse import Dialects, PageReader

__all__ = ["OK", "UNTOLD", "Scraper"]

logger = logging.getLogger(__name__)

OK: Final = "ok"
UNTOLD: Final = ("waiting", "running", "kv-cache-usage")
"""What a page may leave out and still be of use."""

_JITTER: Final = 0.2
_FIRST_WITHIN_S: Final = 0.2
"""The first scrapes of endpoints that come together are spread over so many seconds."""

_BUSY_RATIO: Final = 0.75
"""With so much of its limit in use, an endpoint is near it."""

_FALLBACK_LABEL: Final = "inference.networking.k8s.io/engine-type"


class Scraper:
    """Keeps a router informed of the load of its engines.

    ``clock`` is the one of the router's ``now``. ``credentials`` are those of the options; where
    they are None, as for :meth:`reconfigure`, the options' files are read.

    :attr:`results` counts the scrapes, by ``ok`` or what failed, :attr:`untold` those that were ok
    and left something out, by what that was; :attr:`page_bytes` and :attr:`fetch_s` are the sizes
    of all pages and what all fetches took. To be started in a running loop, and stopped there.
    """

    def __init__(
        self,
        options: ScrapeOptions,
        router: Router,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        credentials: Credentials | None = None,
    ) -> None:
        self._options = options
        self._credentials = credentials
        self._router = router
        self._clock = clock
        self._rng = rng
        self._client: PageClient | None = None
        self._retired: list[PageClient] = []
        self._turns = asyncio.Semaphore(options.concurrency)
        self._dialects = Dialects(options.engines)
        self._targets: dict[str, _Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.results: Counter[str] = Counter({OK: 0, **{each.value: 0 for each in Failure}})
        self.untold: Counter[str] = Counter(dict.fromkeys(UNTOLD, 0))
        self.page_bytes = 0
        self.fetch_s = 0.0

    def start(self) -> None:
        """Begin; nothing is scraped before :meth:`follow` says what.

        Raises UsageError for files of the options that cannot be used.
        """
        self._client = PageClient(self._options, self._credentials)
        self._router.pool.on_busy = self._hurry

    async def stop(self) -> None:
        """Scrape nothing any more."""
        self._router.pool.on_busy = lambda slot: None
        self.follow(())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            self._retired.append(self._client)
            self._client = None
        while self._retired:
            await self._retired.pop().close()

    def reconfigure(self, options: ScrapeOptions, credentials: Credentials | None = None) -> None:
        """Go by other options from each endpoint's next scrape on.

        Raises UsageError, and changes nothing, where their files cannot be used.
        """
        if options == self._options:
            return
        if self._client is not None:
            client = PageClient(options, credentials)
            self._retired.append(self._client)
            closing = self._close_later(self._client, self._options.deadline_s)
            self._keep(closing, "close connections")
            self._client = client
        self._options, self._credentials = options, credentials
        self._turns = asyncio.Semaphore(options.concurrency)
        self._dialects = Dialects(options.engines)
        for target in self._targets.values():
            target.reader = PageReader(self._dialects)

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Make these the endpoints that are scraped. Those that stay may have other labels now."""
        wanted = {endpoint.destination: endpoint for endpoint in endpoints}
        gone = tuple(self._targets.keys() - wanted.keys())
        self.follow_changes(EndpointChanges(present=tuple(wanted.values()), gone=gone))

    def follow_changes(self, changes: EndpointChanges) -> None:
        """Do so for some endpoints, and leave the others as they are: what is gone is scraped no
        more, what is present is. What is both is another engine at the same address."""
        for destination in changes.gone:
            target = self._targets.pop(destination, None)
            if target is not None:
                target.task.cancel()
        if changes.present and self._client is None:
            raise AssertionError("the scraper was not started")
        for endpoint in changes.present:
            destination = endpoint.destination
            target = self._targets.get(destination)
            if target is not None:
                target.endpoint = endpoint
                continue
            target = self._targets[destination] = _Target(endpoint, PageReader(self._dialects))
            target.task = self._keep(self._watch(target), f"scrape {destination}")

    def engine_at(self, destination: str) -> str:
        """Return whose page the endpoint's last one was, empty where that is not known."""
        target = self._targets.get(destination)
        return "" if target is None else target.reader.engine

    async def _close_later(self, client: PageClient, delay_s: float) -> None:
        """Close a client that is used no more, once its last fetches are over."""
        await asyncio.sleep(delay_s)
        self._retired.remove(client)
        await client.close()

    def _keep(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

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
            interval_s = self._options.interval_s
            if load is None:
                await target.sleep(self._backoff_s(target))
            elif load.waiting > 0 or self._used_ratio(target.destination) >= _BUSY_RATIO:
                await target.sleep(self._jittered(min(interval_s, self._options.busy_interval_s)))
            elif load.running > 0 or self._is_used(target.destination):
                await target.sleep(self._jittered(interval_s))
            else:
                idle_s = max(interval_s, self._options.idle_interval_s)
                await target.sleep(self._jittered(idle_s), is_idle=True)

    async def _scrape(self, target: "_Target") -> EngineLoad | None:
        """Scrape once and tell the router; None where it failed."""
        if self._client is None:
            raise AssertionError("the scraper was not started")
        load = failure = None
        try:
            page = await self._client.fetch(self._address(target.endpoint))
        except FetchError as error:
            failure = error.failure
        else:
            self.page_bytes += len(page)
            load = target.reader.read(page, self._engine(target.endpoint))
            if load is None:
                failure = Failure.UNREADABLE
        now = self._clock()
        self.fetch_s += now - target.began_s
        self.results[OK if failure is None else failure.value] += 1
        self._log_change(target, failure)
        if load is not None:
            self._count_untold(load)
            self._router.scraped(target.destination, load, now)
        return load

    def _address(self, endpoint: Endpoint) -> str:
        port = self._options.port
        return endpoint.destination if port is None else join_host_port(endpoint.address, port)

    def _engine(self, endpoint: Endpoint) -> str:
        """Return which engine the endpoint runs, empty where its page is to tell."""
        for label in (self._options.engine_label, _FALLBACK_LABEL):
            engine = endpoint.labels.get(label, "")
            if engine in self._dialects.engines:
                return engine
        return self._options.default_engine

    def _count_untold(self, load: EngineLoad) -> None:
        for what, value in zip(UNTOLD, (load.waiting, load.running, load.kv_ratio), strict=True):
            if math.isnan(value):
                self.untold[what] += 1

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

    def _used_ratio(self, destination: str) -> float:
        """Return how much of an endpoint's limit is in use."""
        slot = self._router.pool.slot_of(destination)
        return 0.0 if slot is None else float(self._router.pool.used_ratio[slot])

    def _is_used(self, destination: str) -> bool:
        """Tell whether requests run at an endpoint, or wait for any."""
        return self._router.flow.requests > 0 or self._used_ratio(destination) > 0

    def _hurry(self, slot: int) -> None:
        """A request goes to an endpoint that had none: what it said while idle is history."""
        target = self._targets.get(self._router.pool.endpoint(slot).destination)
        if target is not None and target.is_idle:
            target.is_idle = False
            target.wake_in(target.began_s + self._options.interval_s - self._clock())


class _Target:
    """One endpoint: how its scrapes went, and its sleep."""

    __slots__ = (
        "_alarm",
        "_awake",
        "began_s",
        "destination",
        "endpoint",
        "failures",
        "is_idle",
        "reader",
        "task",
    )

    task: asyncio.Task[None]

    def __init__(self, endpoint: Endpoint, reader: PageReader) -> None:
        self.endpoint = endpoint
        self.destination = endpoint.destination
        self.reader = reader
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
