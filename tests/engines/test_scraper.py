"""When engines are asked, in virtual time; and against real servers that come and go."""

import asyncio
import logging
import math
import random
from collections import Counter

import pytest
from aiohttp import web

from epp.clock import monotonic_s
from epp.config.scrape import ScrapeOptions
from epp.core.pool import EngineLoad
from epp.core.resources import EndpointChanges
from epp.core.router import Router
from epp.engines import Scraper
from epp.engines import scraper as module

from ..core.support import destination, endpoint
from .pages import LOAD_PAGE, endpoint_at, raw_server, web_server
from .virtual_engines import RUNNING_PAGE, Engines, for_s, router_of, run


def test_an_engine_that_runs_some_is_asked_every_interval_or_so_and_the_router_told(
    engines: Engines,
) -> None:
    router = router_of(range(1, 2))
    results = run(router, for_s(100.0))
    gaps_s = engines.gaps_s()
    assert 80 <= len(gaps_s) <= 125
    assert all(0.8 <= gap_s <= 1.2 for gap_s in gaps_s)
    assert len(set(gaps_s)) > 50  # jitter
    assert results["ok"] == sum(results.values()) == len(gaps_s) + 1
    slot = router.pool.slot_of(destination(1))
    assert slot is not None
    pool = router.pool
    assert (pool.waiting[slot], pool.running[slot], pool.kv_ratio[slot]) == (0.0, 3.0, 0.5)
    assert pool.scraped_s[slot] == engines.asked[destination(1)][-1]
    assert engines.closed


def test_the_time_of_a_scrape_is_that_of_its_end(engines: Engines) -> None:
    async def slow(_: str) -> bytes:
        await asyncio.sleep(0.5)
        return RUNNING_PAGE

    engines.answer = slow
    router = router_of(range(1, 2))
    run(router, for_s(1.0))
    (asked_s,) = engines.asked[destination(1)]
    slot = router.pool.slot_of(destination(1))
    assert slot is not None
    assert router.pool.scraped_s[slot] == pytest.approx(asked_s + 0.5)


def test_the_endpoints_are_spread(engines: Engines) -> None:
    run(router_of(range(1, 101)), for_s(60.0))
    first = [times[0] for times in engines.asked.values()]
    assert len(first) == 100
    assert max(first) <= 0.2
    assert len(set(first)) == 100
    last = [math.floor(times[-1] * 10) for times in engines.asked.values()]
    assert max(Counter(last).values()) < 30  # of 100 in a tenth of a second


def test_an_idle_engine_is_asked_less_often(engines: Engines) -> None:
    engines.answer = engines.idle
    run(router_of(range(1, 2)), for_s(100.0))
    assert all(4.0 <= gap_s <= 6.0 for gap_s in engines.gaps_s())


def test_an_engine_with_requests_of_ours_is_not_idle_whatever_it_says(engines: Engines) -> None:
    engines.answer = engines.idle
    router = router_of(range(1, 3))
    slot = router.pool.slot_of(destination(1))
    assert slot is not None
    router.pool.lease(slot)
    run(router, for_s(100.0))
    assert all(0.8 <= gap_s <= 1.2 for gap_s in engines.gaps_s(1))
    assert all(4.0 <= gap_s <= 6.0 for gap_s in engines.gaps_s(2))


def test_an_engine_in_which_requests_wait_is_asked_more_often(engines: Engines) -> None:
    engines.answer = engines.queueing
    run(router_of(range(1, 2)), for_s(30.0))
    assert all(0.2 <= gap_s <= 0.3 for gap_s in engines.gaps_s())
    engines.asked.clear()
    run(router_of(range(1, 2)), for_s(30.0), ScrapeOptions(interval_s=0.1))
    assert all(0.08 <= gap_s <= 0.12 for gap_s in engines.gaps_s())


def test_an_engine_near_its_limit_is_asked_more_often(engines: Engines) -> None:
    router = router_of(range(1, 3))
    for number, share in ((1, 0.5), (2, 0.75)):
        slot = router.pool.slot_of(destination(number))
        assert slot is not None
        router.pool.set_limit(slot, 4, "inflight")
        for _ in range(int(4 * share)):
            router.pool.lease(slot)
    run(router, for_s(30.0))
    assert all(0.8 <= gap_s <= 1.2 for gap_s in engines.gaps_s(1))
    assert all(0.2 <= gap_s <= 0.3 for gap_s in engines.gaps_s(2))


def test_an_engine_that_does_not_tell_what_runs_can_be_idle_all_the_same(engines: Engines) -> None:
    async def triton(_: str) -> bytes:
        return b"nv_inference_pending_request_count 0\n"

    engines.answer = triton
    router = router_of(range(1, 2))
    run(router, for_s(100.0))
    assert all(4.0 <= gap_s <= 6.0 for gap_s in engines.gaps_s())
    slot = router.pool.slot_of(destination(1))
    assert slot is not None
    assert (router.pool.waiting[slot], math.isnan(router.pool.running[slot])) == (0.0, True)


def test_traffic_ends_the_long_sleep_at_once(engines: Engines) -> None:
    engines.answer = engines.idle
    router = router_of(range(1, 3))
    slot = router.pool.slot_of(destination(1))
    assert slot is not None

    async def scenario(_: Scraper) -> None:
        await asyncio.sleep(3.0)
        router.pool.lease(slot)
        router.pool.lease(slot)
        await asyncio.sleep(0.001)

    run(router, scenario)
    assert len(engines.asked[destination(1)]) == 2
    assert engines.asked[destination(1)][1] == 3.0
    assert len(engines.asked[destination(2)]) == 1


def test_traffic_soon_after_a_scrape_waits_for_the_interval(engines: Engines) -> None:
    engines.answer = engines.idle
    router = router_of(range(1, 2))
    slot = router.pool.slot_of(destination(1))
    assert slot is not None

    async def scenario(_: Scraper) -> None:
        await asyncio.sleep(0.4)
        for _ in range(20):
            router.pool.lease(slot).release()
        await asyncio.sleep(1.0)

    run(router, scenario)
    assert engines.gaps_s() == [pytest.approx(1.0)]


def test_traffic_does_not_end_a_short_sleep(engines: Engines) -> None:
    router = router_of(range(1, 2))
    slot = router.pool.slot_of(destination(1))
    assert slot is not None

    async def scenario(_: Scraper) -> None:
        await asyncio.sleep(0.5)
        for _ in range(20):
            router.pool.lease(slot).release()
            await asyncio.sleep(0.5)

    run(router, scenario)
    assert all(gap_s >= 0.8 for gap_s in engines.gaps_s())


def test_a_failing_engine_is_left_alone_for_longer_and_longer(
    engines: Engines, caplog: pytest.LogCaptureFixture
) -> None:
    engines.answer = engines.failing
    router = router_of(range(1, 2))

    async def scenario(scraper: Scraper) -> None:
        await asyncio.sleep(300.0)
        assert scraper.results["timeout"] == len(engines.asked[destination(1)])
        engines.answer = engines.running_some
        await asyncio.sleep(60.0)

    with caplog.at_level(logging.INFO):
        run(router, scenario)
    gaps_s = engines.gaps_s()
    for gap_s, expected_s in zip(gaps_s, (2, 4, 8, 16, 30, 30, 30), strict=False):
        assert 0.8 * expected_s <= gap_s <= 1.2 * expected_s
    assert all(0.8 <= gap_s <= 1.2 for gap_s in gaps_s[-20:])
    said = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert said == [
        f"engine metrics failed endpoint={destination(1)} cause=timeout",
        f"engine metrics are back endpoint={destination(1)}",
    ]


def test_traffic_does_not_end_the_sleep_after_a_failure(engines: Engines) -> None:
    engines.answer = engines.failing
    router = router_of(range(1, 2))
    slot = router.pool.slot_of(destination(1))
    assert slot is not None

    async def scenario(_: Scraper) -> None:
        await asyncio.sleep(1.0)
        router.pool.lease(slot)
        await asyncio.sleep(0.5)

    run(router, scenario)
    assert len(engines.asked[destination(1)]) == 1


def test_a_page_without_the_gauges_is_a_failure(engines: Engines) -> None:
    async def other(_: str) -> bytes:
        return b"<html>"

    engines.answer = other
    router = router_of(range(1, 2))
    results = run(router, for_s(1.0))
    assert results["unreadable"] == 1
    slot = router.pool.slot_of(destination(1))
    assert math.isnan(router.pool.scraped_s[slot])


def test_only_so_many_at_a_time(engines: Engines) -> None:
    async def slow(_: str) -> bytes:
        await asyncio.sleep(0.9)
        return LOAD_PAGE

    engines.answer = slow
    run(router_of(range(1, 51)), for_s(30.0), ScrapeOptions(concurrency=4))
    assert engines.most_running == 4
    assert len(engines.asked) == 50


def test_endpoints_that_leave_are_not_asked_any_more_and_newcomers_are(engines: Engines) -> None:
    async def hang(_: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    router = router_of(range(1, 3))

    async def scenario(scraper: Scraper) -> None:
        await asyncio.sleep(1.0)
        engines.answer = hang  # the next scrapes run when their endpoints leave
        await asyncio.sleep(2.0)
        assert engines.running == 2
        scraper.follow([endpoint(2), endpoint(3)])
        engines.answer = engines.running_some
        await asyncio.sleep(2.0)
        assert engines.running == 1
        asked = len(engines.asked[destination(1)])
        await asyncio.sleep(5.0)
        assert len(engines.asked[destination(1)]) == asked

    run(router, scenario)
    assert engines.asked[destination(3)][0] < 3.5


def test_changes_leave_the_other_endpoints_as_they_are(engines: Engines) -> None:
    async def scenario(scraper: Scraper) -> None:
        await asyncio.sleep(1.0)
        before = {number: len(engines.asked[destination(number)]) for number in (1, 2, 3)}
        router.pool.update([endpoint(4)], [destination(1)])
        scraper.follow_changes(
            EndpointChanges(
                present=(endpoint(3), endpoint(4)),
                gone=(destination(1), destination(2), destination(9)),
            )
        )
        scraper.follow_changes(EndpointChanges(present=(endpoint(2),)))
        await asyncio.sleep(0.0)
        assert len(engines.asked[destination(3)]) == before[3]
        await asyncio.sleep(2.0)
        asked = {number: len(engines.asked[destination(number)]) for number in (1, 2, 3, 4)}
        assert asked[1] == before[1]
        assert all(asked[number] > before.get(number, 0) for number in (2, 3, 4))
        assert scraper.engine_at(destination(1)) == ""

    router = router_of(range(1, 4))
    run(router, scenario)


def test_an_unknown_endpoint_that_becomes_busy_is_nobodys_business(engines: Engines) -> None:
    router = router_of(range(1, 3))

    async def scenario(scraper: Scraper) -> None:
        scraper.follow([endpoint(1)])
        await asyncio.sleep(1.0)
        for slot in (0, 1):
            router.pool.lease(slot)

    run(router, scenario)
    assert destination(2) not in engines.asked


def test_a_scraper_that_was_not_started_follows_nothing() -> None:
    scraper = Scraper(ScrapeOptions(), router_of(range(1)), clock=monotonic_s, rng=random.Random(2))
    with pytest.raises(AssertionError, match="not started"):
        scraper.follow([endpoint(1)])


def test_a_mistake_in_this_program_is_no_secret(
    engines: Engines, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = router_of(range(1, 3))

    def scraped(asked: str, load: EngineLoad, now: float) -> None:
        assert asked != destination(1), "a mistake"

    monkeypatch.setattr(router, "scraped", scraped)
    run(router, for_s(10.0))
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == f"scrape {destination(1)} has failed and goes on no more"
    assert len(engines.asked[destination(2)]) >= 8


async def test_real_servers_good_broken_hanging_and_gone() -> None:
    """One bad engine does not keep the others from being asked."""

    async def good(request: web.Request) -> web.Response:
        return web.Response(body=LOAD_PAGE)

    told: asyncio.Queue[tuple[str, EngineLoad]] = asyncio.Queue()

    class Told:
        def __init__(self, router: Router) -> None:
            self.pool, self.flow = router.pool, router.flow

        def scraped(self, destination: str, load: EngineLoad, now: float) -> None:
            told.put_nowait((destination, load))

    options = ScrapeOptions(interval_s=0.01, deadline_s=0.05, max_backoff_s=0.02)
    scraper = Scraper(
        options,
        Told(router_of(range(1))),  # type: ignore[arg-type]
        clock=monotonic_s,
        rng=random.Random(2),
    )
    scraper.start()
    async with (
        asyncio.timeout(20),
        raw_server(b"", then_close=False) as hanging,
        raw_server(b"no http") as broken,
        web_server(good) as stays,
    ):
        async with web_server(good) as leaves:
            scraper.follow(map(endpoint_at, (hanging, broken, stays, leaves)))
            heard = {(await told.get())[0] for _ in range(20)}
            assert heard == {stays, leaves}
        while not (
            scraper.results["timeout"]
            and scraper.results["broken"]
            and scraper.results["unreachable"]
        ):
            assert (await told.get())[1] == EngineLoad(2.0, 3.0, 0.5)
        await scraper.stop()
