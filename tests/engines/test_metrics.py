"""What is exported of the scrapes."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.config.scrape import ScrapeOptions
from epp.engines import Scraper
from epp.engines.fetch import Failure
from epp.observability.scrapes import ScrapeMetrics

from ..core.support import destination, endpoint
from .pages import LOAD_PAGE
from .virtual_engines import IDLE_PAGE, Engines, router_of, run


def test_metrics_of_the_scrapes(engines: Engines) -> None:
    router = router_of(range(1, 4))
    samples: dict[str, object] = {}

    async def answer(asked: str) -> bytes:
        await asyncio.sleep(0.01)
        number = 1 if asked == destination(1) else 2 if asked == destination(2) else 3
        return await {1: engines.queueing, 2: engines.failing, 3: engines.idle}[number](asked)

    engines.answer = answer

    async def scenario(scraper: Scraper) -> None:
        clock = asyncio.get_running_loop().time
        registry = CollectorRegistry()
        registry.register(ScrapeMetrics(lambda: [(router, scraper)], clock))
        await asyncio.sleep(0.5)
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for sample in family.samples:
                engine = sample.labels.pop("engine", None)
                samples[sample.name + "".join(sample.labels.values())] = engine or sample.value

    run(router, scenario, ScrapeOptions(busy_interval_s=1.0))
    labels, idle = (endpoint(n).name + "pool" + destination(n) for n in (1, 3))
    told_s = {n: engines.asked[destination(n)][0] + 0.01 for n in (1, 3)}
    counts = {each.value: 0.0 for each in Failure} | {"ok": 2.0, "timeout": 1.0}
    assert samples == {
        **{f"llm_d_epp_engine_scrapes_total{name}": count for name, count in counts.items()},
        f"llm_d_epp_engine_waiting_requests{labels}": 2.0,
        f"llm_d_epp_engine_running_requests{labels}": 3.0,
        f"llm_d_epp_engine_kv_cache_usage_ratio{labels}": 0.5,
        f"llm_d_epp_scrape_age_seconds{labels}": pytest.approx(0.5 - told_s[1]),
        f"llm_d_epp_engine_waiting_requests{idle}": 0.0,
        f"llm_d_epp_engine_running_requests{idle}": 0.0,
        f"llm_d_epp_scrape_age_seconds{idle}": pytest.approx(0.5 - told_s[3]),
        "llm_d_epp_engine_values_missing_totalwaiting": 0.0,
        "llm_d_epp_engine_values_missing_totalrunning": 0.0,
        "llm_d_epp_engine_values_missing_totalkv-cache-usage": 1.0,
        "llm_d_epp_engine_scrape_bytes_total": float(len(LOAD_PAGE) + len(IDLE_PAGE)),
        "llm_d_epp_engine_scrape_seconds_total": pytest.approx(0.03),
        f"llm_d_epp_engine_info{labels}": "vllm",
        f"llm_d_epp_engine_info{idle}": "vllm",
    }
