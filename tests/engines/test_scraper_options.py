"""Which engine an endpoint has, where its page is, and options that change."""

import asyncio

import pytest
from msgspec.structs import replace

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import EngineMap, ScrapeOptions
from epp.engines import Credentials, Scraper
from epp.engines import scraper as module
from epp.errors import UsageError

from ..core.support import destination, endpoint
from .pages import LOAD_PAGE
from .virtual_engines import Engines, for_s, router_of, run

TWO_ENGINES = LOAD_PAGE + b"sglang:num_queue_reqs 7\nsglang:num_running_reqs 8\n"
OUR_LABEL = "llm-d.ai/engine-type"
THEIR_LABEL = "inference.networking.k8s.io/engine-type"


@pytest.mark.parametrize(
    ("labels", "options", "waiting"),
    [
        ({}, ScrapeOptions(), 2.0),
        ({OUR_LABEL: "sglang"}, ScrapeOptions(), 7.0),
        ({THEIR_LABEL: "sglang"}, ScrapeOptions(), 7.0),
        ({OUR_LABEL: "vllm", THEIR_LABEL: "sglang"}, ScrapeOptions(), 2.0),
        ({OUR_LABEL: "other", THEIR_LABEL: "sglang"}, ScrapeOptions(), 7.0),
        ({"mine": "sglang", OUR_LABEL: "vllm"}, ScrapeOptions(engine_label="mine"), 7.0),
        ({}, ScrapeOptions(default_engine="sglang"), 7.0),
        ({OUR_LABEL: "other"}, ScrapeOptions(default_engine="sglang"), 7.0),
        ({OUR_LABEL: "vllm"}, ScrapeOptions(default_engine="sglang"), 2.0),
    ],
)
def test_which_engine_it_is(
    engines: Engines, labels: dict[str, str], options: ScrapeOptions, waiting: float
) -> None:
    async def two(_: str) -> bytes:
        return TWO_ENGINES

    engines.answer = two
    router = router_of(range(1, 2))

    async def scenario(scraper: Scraper) -> None:
        scraper.follow([replace(endpoint(1), labels=labels)])
        await asyncio.sleep(1.0)
        assert scraper.engine_at(destination(1)) == ("vllm" if waiting == 2.0 else "sglang")
        assert scraper.engine_at(destination(2)) == ""

    run(router, scenario, options)
    assert router.pool.waiting[0] == waiting


def test_a_label_that_changes_changes_what_is_read(engines: Engines) -> None:
    async def two(_: str) -> bytes:
        return TWO_ENGINES

    engines.answer = two
    router = router_of(range(1, 2))

    async def scenario(scraper: Scraper) -> None:
        await asyncio.sleep(1.0)
        assert router.pool.waiting[0] == 2.0
        scraper.follow([replace(endpoint(1), labels={OUR_LABEL: "sglang"})])
        await asyncio.sleep(1.0)
        assert router.pool.waiting[0] == 7.0

    run(router, scenario)
    assert len(engines.asked) == 1


def test_an_engine_whose_page_is_another_ones_is_unreadable(engines: Engines) -> None:
    results = run(router_of(range(1, 2)), for_s(1.0), ScrapeOptions(default_engine="sglang"))
    assert (results["ok"], results["unreadable"]) == (0, 1)


def test_the_page_may_be_at_another_port(engines: Engines) -> None:
    router = router_of(range(1, 2))

    async def scenario(scraper: Scraper) -> None:
        scraper.follow([endpoint(1), replace(endpoint(1), address="2001:db8::1", port=9)])
        await asyncio.sleep(1.0)

    run(router, scenario, ScrapeOptions(port=8002))
    assert engines.asked.keys() == {"10.0.0.1:8002", "[2001:db8::1]:8002"}
    assert router.pool.running[0] == 3.0


def test_other_options_count_from_the_next_scrape_on(engines: Engines) -> None:
    router = router_of(range(1, 2))

    async def scenario(scraper: Scraper) -> None:
        scraper.reconfigure(ScrapeOptions())
        assert not engines.closed
        await asyncio.sleep(10.0)
        scraper.reconfigure(ScrapeOptions(interval_s=4.0, default_engine="sglang"))
        await asyncio.sleep(0.9)
        assert not engines.closed  # a fetch that began before may still go on
        await asyncio.sleep(9.2)
        assert engines.closed
        assert scraper.results["unreadable"] >= 1
        scraper.reconfigure(ScrapeOptions(interval_s=4.0))
        engines.closed = False
        await asyncio.sleep(60.0)

    run(router, scenario)
    assert engines.closed
    assert all(3.2 <= gap_s <= 4.8 for gap_s in engines.gaps_s()[-8:])


def test_a_scraper_that_stops_right_after_a_change_closes_everything(engines: Engines) -> None:
    async def scenario(scraper: Scraper) -> None:
        scraper.reconfigure(ScrapeOptions(interval_s=2.0))
        await scraper.stop()
        assert asyncio.get_running_loop().time() == 0.0  # at once

    run(router_of(range(1, 2)), scenario)
    assert engines.closes == 2


def test_engines_and_their_number_at_a_time_change_with_the_options(engines: Engines) -> None:
    async def slow(_: str) -> bytes:
        await asyncio.sleep(0.3)
        return TWO_ENGINES

    engines.answer = slow
    queue, batch = (MetricSpec(f"sglang:num_{name}_reqs") for name in ("running", "queue"))
    mine = EngineMap(name="mine", waiting=(queue,), running=(batch,))
    router = router_of(range(1, 5))

    async def scenario(scraper: Scraper) -> None:
        await asyncio.sleep(5.0)
        assert engines.most_running > 1
        scraper.reconfigure(ScrapeOptions(concurrency=1, engines=(mine,), default_engine="mine"))
        await asyncio.sleep(0.3)
        engines.most_running = 0
        await asyncio.sleep(5.0)
        assert engines.most_running == 1
        assert scraper.engine_at(destination(1)) == "mine"

    run(router, scenario)
    assert (router.pool.waiting[0], router.pool.running[0]) == (8.0, 7.0)


def test_options_whose_files_are_not_there_change_nothing(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(options: ScrapeOptions, credentials: Credentials | None = None) -> None:
        raise UsageError("no such file")

    async def scenario(scraper: Scraper) -> None:
        monkeypatch.setattr(module, "PageClient", refuse)
        with pytest.raises(UsageError):
            scraper.reconfigure(ScrapeOptions(interval_s=9.0))
        await asyncio.sleep(30.0)

    run(router_of(range(1, 2)), scenario)
    assert all(0.8 <= gap_s <= 1.2 for gap_s in engines.gaps_s())
