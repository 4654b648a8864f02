"""Engines that answer in virtual time, and scrapers that ask them."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from itertools import pairwise
from typing import Any

from epp.config.scrape import ScrapeOptions
from epp.core.flow import FlowOptions
from epp.core.router import Router
from epp.core.scheduling import LeastLoaded
from epp.core.timers import Timers
from epp.engines import Credentials, Scraper
from epp.engines.fetch import Failure, FetchError

from ..core.support import CountingRecorder, at_most, destination, resources
from .pages import LOAD_PAGE
from .virtual_time import run_virtual

__all__ = ["IDLE_PAGE", "RUNNING_PAGE", "Engines", "for_s", "router_of", "run"]

RUNNING_PAGE = LOAD_PAGE.replace(b"2.0", b"0.0")
IDLE_PAGE = b"vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n"
Fetch = Callable[[str], Awaitable[bytes]]


class Engines:
    """In place of the client: notes who is asked when, and answers what it is told."""

    def __init__(self) -> None:
        self.asked: dict[str, list[float]] = {}
        self.running = 0
        self.most_running = 0
        self.closes = 0
        self.closed = False
        self.answer: Fetch = self.running_some

    def __call__(self, options: ScrapeOptions, credentials: Credentials | None = None) -> "Engines":
        return self

    async def fetch(self, destination: str) -> bytes:
        self.asked.setdefault(destination, []).append(asyncio.get_running_loop().time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.answer(destination)
        finally:
            self.running -= 1

    async def close(self) -> None:
        assert not self.running
        self.closes += 1
        self.closed = True

    def gaps_s(self, number: int = 1) -> list[float]:
        return [after - before for before, after in pairwise(self.asked[destination(number)])]

    async def running_some(self, _: str) -> bytes:
        return RUNNING_PAGE

    async def queueing(self, _: str) -> bytes:
        return LOAD_PAGE

    async def idle(self, _: str) -> bytes:
        return IDLE_PAGE

    async def failing(self, _: str) -> bytes:
        raise FetchError(Failure.TIMEOUT)


def router_of(numbers: range) -> Router:
    router = Router(
        scheduler=LeastLoaded(),
        options=FlowOptions(),
        make_detector=at_most(2),
        timers=Timers(),
        rng=random.Random(1),
        recorder=CountingRecorder(),
    )
    router.apply(resources(numbers), 0.0)
    return router


def run(
    router: Router,
    scenario: Callable[[Scraper], Coroutine[Any, Any, None]],
    options: ScrapeOptions | None = None,
) -> Counter[str]:
    """Run a scenario in virtual time with all of the router's endpoints followed."""
    results: Counter[str] = Counter()

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        scraper = Scraper(options or ScrapeOptions(), router, clock=clock, rng=random.Random(2))
        scraper.start()
        scraper.follow(each for each, _, _ in router.pool)
        await scenario(scraper)
        await scraper.stop()
        results.update(scraper.results)

    run_virtual(main())
    return results


def for_s(seconds: float) -> Callable[[Scraper], Coroutine[Any, Any, None]]:
    async def scenario(_: Scraper) -> None:
        await asyncio.sleep(seconds)

    return scenario
