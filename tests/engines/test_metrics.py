"""What is exported of the scrapes."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.engines import ScrapeMetrics, Scraper
from epp.engines.fetch import Failure

from ..core.support import destination, endpoint
from .virtual_engines import Engines, router_of, run


def test_metrics_of_the_scrapes(engines: Engines) -> None:
    router = router_of(range(1, 3))
    samples: dict[str, float] = {}

    async def answer(asked: str) -> bytes:
        return await (engines.busy if asked == destination(1) else engines.failing)(asked)

    engines.answer = answer

    async def scenario(scraper: Scraper) -> None:
        clock = asyncio.get_running_loop().time
        registry = CollectorRegistry()
        registry.register(ScrapeMetrics(scraper, router, clock))
        await asyncio.sleep(0.5)
        for family in text_string_to_metric_families(generate_latest(registry).decode()):
            for sample in family.samples:
                samples[sample.name + "".join(sample.labels.values())] = sample.value

    run(router, scenario)
    labels = endpoint(1).name + "pool" + destination(1)
    asked_s = engines.asked[destination(1)][0]
    counts = {each.value: 0.0 for each in Failure} | {"ok": 1.0, "timeout": 1.0}
    assert samples == {
        **{f"llm_d_epp_engine_scrapes_total{name}": count for name, count in counts.items()},
        f"llm_d_epp_engine_waiting_requests{labels}": 2.0,
        f"llm_d_epp_engine_running_requests{labels}": 3.0,
        f"llm_d_epp_engine_kv_cache_usage_ratio{labels}": 0.5,
        f"llm_d_epp_scrape_age_seconds{labels}": pytest.approx(0.5 - asked_s),
    }
