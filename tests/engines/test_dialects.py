"""Engines: which one a page is of, and what those of the configuration may be."""

import math

import msgspec
import pytest
from prometheus_client import generate_latest

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import AttributeMetric, EngineMap
from epp.core.pool import EngineLoad
from epp.engines.dialects import BUILT_IN
from epp.engines.parse import Dialects, PageReader
from epp.modelserver.engine import Engine, EngineOptions
from epp.modelserver.metrics import EngineCollector

from .dialect_pages import CASES, Case
from .reading import DIALECTS, VLLM, engine_load, page, spec


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_engine_is_known_by_its_page_and_understood(case: Case) -> None:
    reader = PageReader(DIALECTS)
    assert reader.read(case.page) == case.load
    assert reader.engine == case.engine
    assert engine_load(case.page, case.engine) == case.load


def test_an_engine_that_was_named_reads_no_other_page() -> None:
    for case in CASES:
        for engine in BUILT_IN:
            is_triton = case.engine.startswith("triton") and engine.name == "triton"
            if engine.name != case.engine and not is_triton:
                assert engine_load(case.page, engine.name) is None


def test_triton_counts_no_executions_as_requests_that_run() -> None:
    assert engine_load(page('nv_inference_exec_count{model="m",version="1"} 90')) is None


def test_the_simulated_model_server_is_understood() -> None:
    engine = Engine(EngineOptions(max_loras=3))
    written = generate_latest(EngineCollector(engine, "m", lambda: 0).registry())
    load = engine_load(written)
    assert load is not None
    assert (load.waiting, load.running, load.kv_ratio, load.max_adapters) == (0.0, 0.0, 0.0, 3)
    assert load.block_tokens == engine.options.block_size
    assert load.cache_blocks == engine.options.num_kv_blocks


def test_the_newer_name_of_the_kv_cache_counts_where_both_are_there() -> None:
    lines = ("vllm:gpu_cache_usage_perc 0.9", "vllm:kv_cache_usage_perc 0.1")
    load = engine_load(page(*lines, "vllm:num_requests_running 1", "vllm:num_requests_waiting 0"))
    assert load == EngineLoad(waiting=0.0, running=1.0, kv_ratio=0.1)


CUSTOM = EngineMap(
    name="mine",
    waiting=spec('load{kind="queued"}'),
    running=spec("load{kind=active}"),
    kv_ratio=spec("cache{unit=share}"),
    adapters=spec("loras{engine=a}"),
    cache_info=spec("sizes"),
    block_tokens_label="tokens",
    cache_blocks_label="blocks",
    attributes=(
        AttributeMetric(attribute="watts", metric=MetricSpec("power")),
        AttributeMetric(attribute="hottest", metric=MetricSpec("heat"), aggregation="max"),
        AttributeMetric(attribute="warmth", metric=MetricSpec("heat"), aggregation="mean"),
        AttributeMetric(attribute="absent", metric=MetricSpec("absent")),
    ),
)
CUSTOM_PAGE = page(
    'load{kind="queued",zone="x"} 3',
    'load{zone="x",kind="active"} 4',
    'load{zone="y",kind="active"} 5',
    'load{kind="other"} NaN',
    'cache{unit="bytes"} 7e9',
    'cache{unit="share"} 0.5',
    'loras{engine="b",running_lora_adapters="no"} 9',
    'loras{engine="a",running_lora_adapters=" yes ,",max_lora="2"} 8',
    'sizes{tokens="32",blocks="100"} 1',
    'power_total{gpu="0"} 200',
    'power_total{gpu="1"} 300.5',
    'heat{gpu="0"} 60',
    'heat{gpu="1"} 80',
)


def test_an_engine_of_the_configuration() -> None:
    reader = PageReader(Dialects([CUSTOM]))
    load = reader.read(CUSTOM_PAGE)
    assert reader.engine == "mine"
    assert load == EngineLoad(
        waiting=3.0,
        running=9.0,
        kv_ratio=0.5,
        active_adapters=frozenset({"yes"}),
        max_adapters=2,
        block_tokens=32,
        cache_blocks=100,
        attributes={"watts": 500.5, "hottest": 80.0, "warmth": 70.0},
    )


def test_one_of_the_name_of_a_built_in_one_takes_its_place() -> None:
    mine = EngineMap(name="vllm", waiting=spec("queue"), running=spec("batch"))
    reader = PageReader(Dialects([mine]))
    assert reader.read(page("queue 1", "batch 2"), "vllm") == EngineLoad(1.0, 2.0, math.nan)
    assert reader.read(page(f"{VLLM[0]} 1", f"{VLLM[1]} 2"), "vllm") is None


def test_an_engine_of_the_configuration_is_tried_first() -> None:
    mine = EngineMap(name="mine", waiting=spec(VLLM[0]), running=spec("vllm:num_requests_swapped"))
    case = CASES[0]
    reader = PageReader(Dialects([mine]))
    assert reader.read(case.page + b"vllm:num_requests_swapped 3\n") == msgspec.structs.replace(
        EngineLoad(9.0, 3.0, math.nan), started_s=case.load.started_s
    )
    # But whoever finds both quantities goes before whoever finds one.
    reader = PageReader(Dialects([mine]))
    assert reader.read(case.page) == case.load


def test_an_engine_is_found_out_once_and_again_when_its_page_is_another_engines() -> None:
    (triton,) = (case for case in CASES if case.engine == "triton")
    (tensorrt,) = (case for case in CASES if case.engine == "triton-tensorrt-llm")
    reader = PageReader(DIALECTS)
    assert reader.read(triton.page) == triton.load
    assert reader.read(tensorrt.page) == EngineLoad(5.0, math.nan, math.nan)  # still triton's
    assert reader.read(CASES[0].page) == CASES[0].load
    assert reader.engine == "vllm"
    assert reader.read(b"<html>") is None
    assert reader.engine == ""
    assert reader.read(tensorrt.page) == tensorrt.load


def test_another_engine_may_be_named_from_page_to_page() -> None:
    case = next(case for case in CASES if case.name == "vllm, large")
    mine = EngineMap(name="mine", waiting=spec(VLLM[1]))
    reader = PageReader(Dialects([mine]))
    for _ in range(2):
        assert reader.read(case.page, "vllm") == case.load
    load = reader.read(case.page, "mine")
    assert load is not None
    assert load.waiting == case.load.running


def test_the_same_series_may_mean_something_else_to_another_engine() -> None:
    one = EngineMap(name="one", waiting=spec("a"), running=spec("b"))
    other = EngineMap(name="other", waiting=spec("b"), running=spec("a"))
    reader = PageReader(Dialects([one, other]))
    assert reader.read(page("a 1", "b 2"), "one") == EngineLoad(1.0, 2.0, math.nan)
    assert reader.read(page("a 1", "b 2"), "other") == EngineLoad(2.0, 1.0, math.nan)
