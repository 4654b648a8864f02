import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.modelserver.stats import Histogram

from .conftest import SLOW, Client, eventually

Start = Callable[..., Awaitable[Client]]


async def page(client: Client) -> dict[str, float]:
    """Return the samples whose only labels are the usual ones, by name."""
    usual = {"engine": "0", "model_name": "base"}
    families = text_string_to_metric_families(await client.text("/metrics"))
    samples = [sample for family in families for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.labels == usual}


async def labels(client: Client, name: str) -> dict[str, str]:
    families = text_string_to_metric_families(await client.text("/metrics"))
    (labels,) = [s.labels for family in families for s in family.samples if s.name == name]
    return labels


async def test_every_series_is_there_from_the_start(start: Start) -> None:
    client = await start(models=("base",))
    samples = await page(client)
    assert samples == dict.fromkeys(samples, 0.0)
    assert {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_sum",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:request_queue_time_seconds_count",
        "epp_modelserver:aborted_requests_total",
    } <= set(samples)
    text = await client.text("/metrics")
    for reason in ("stop", "length"):
        assert f'vllm:request_success_total{{engine="0",finished_reason="{reason}"' in text


async def test_finished_work_is_counted(start: Start) -> None:
    client = await start(models=("base",), num_kv_blocks=100)
    for _ in range(2):
        async with client.complete(model="base", prompt="x" * 400, max_tokens=10) as response:
            await response.read()
    samples = await page(client)
    assert samples["vllm:prompt_tokens_total"] == 200
    assert samples["vllm:generation_tokens_total"] == 20
    assert samples["vllm:prefix_cache_queries_total"] == 200
    assert samples["vllm:prefix_cache_hits_total"] == 96
    assert samples["vllm:time_to_first_token_seconds_count"] == 2
    assert samples["vllm:inter_token_latency_seconds_count"] == 18
    assert samples["vllm:e2e_request_latency_seconds_count"] == 2
    assert samples["vllm:e2e_request_latency_seconds_sum"] > 0
    config = await labels(client, "vllm:cache_config_info")
    assert (config["block_size"], config["num_gpu_blocks"]) == ("16", "100")


async def test_running_work_is_shown(start: Start) -> None:
    client = await start(
        SLOW, models=("base",), loras=("a", "b"), max_num_seqs=1, num_kv_blocks=100, max_loras=3
    )
    asked = [
        asyncio.ensure_future(client.complete(model=model, prompt="x" * 400).__aenter__())
        for model in ("a", "b", "base")
    ]
    state = client.server.state
    await eventually(lambda: (state().running, state().waiting) == (1, 2))
    samples = await page(client)
    assert samples["vllm:num_requests_running"] == 1
    assert samples["vllm:num_requests_waiting"] == 2
    assert samples["vllm:kv_cache_usage_perc"] == pytest.approx(0.07)
    assert await labels(client, "vllm:lora_requests_info") in [
        {"max_lora": "3", "running_lora_adapters": "a", "waiting_lora_adapters": "b"},
        {"max_lora": "3", "running_lora_adapters": "b", "waiting_lora_adapters": "a"},
        {"max_lora": "3", "running_lora_adapters": "", "waiting_lora_adapters": "a,b"},
    ]
    for task in asked:
        task.cancel()


async def test_the_start_is_told_so_that_a_restart_can_be(start: Start) -> None:
    before_s = time.time()
    first, second = await start(), await start()
    began_s, later_s = [
        sample.value
        for client in (first, second)
        for family in text_string_to_metric_families(await client.text("/metrics"))
        for sample in family.samples
        if sample.name == "process_start_time_seconds"
    ]
    assert before_s <= began_s < later_s <= time.time()


async def test_without_slots_there_is_no_lora_info(start: Start) -> None:
    client = await start(max_loras=0)
    assert "lora_requests_info" not in await client.text("/metrics")


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 2.5))
    for value in (0.5, 1.0, 2.0, 9.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("1.0", 2), ("2.5", 3), ("+Inf", 4)]
    assert histogram.sum == 12.5
