"""What the metrics of the engines are called that are known without configuration."""

from collections.abc import Iterable
from typing import Final

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import AttributeMetric, EngineMap

__all__ = ["BUILT_IN", "known_engines", "metrics_of"]


def _specs(*texts: str) -> tuple[MetricSpec, ...]:
    return tuple(map(MetricSpec.parse, texts))


def _attribute(name: str, metric: str) -> AttributeMetric:
    return AttributeMetric(attribute=name, metric=MetricSpec.parse(metric))


BUILT_IN: Final = (
    EngineMap(
        name="vllm",
        waiting=_specs("vllm:num_requests_waiting"),
        running=_specs("vllm:num_requests_running"),
        # The latter before 0.10.
        kv_ratio=_specs("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        adapters=_specs("vllm:lora_requests_info"),
        cache_info=_specs("vllm:cache_config_info"),
        attributes=(
            _attribute("prefix-cache-queried-tokens", "vllm:prefix_cache_queries"),
            _attribute("prefix-cache-hit-tokens", "vllm:prefix_cache_hits"),
        ),
    ),
    EngineMap(
        name="sglang",
        waiting=_specs("sglang:num_queue_reqs"),
        running=_specs("sglang:num_running_reqs"),
        kv_ratio=_specs("sglang:token_usage"),
        cache_info=_specs("sglang:cache_config_info"),
        block_tokens_label="page_size",
        cache_blocks_label="num_pages",
    ),
    EngineMap(
        name="trtllm-serve",
        waiting=_specs("trtllm_num_requests_waiting"),
        running=_specs("trtllm_num_requests_running"),
        kv_ratio=_specs("trtllm_kv_cache_utilization"),
        block_tokens=_specs("trtllm_kv_cache_tokens_per_block"),
        cache_blocks=_specs("trtllm_kv_cache_max_blocks"),
    ),
    # Before triton, whose metrics its pages have as well.
    EngineMap(
        name="triton-tensorrt-llm",
        waiting=_specs("nv_trt_llm_request_metrics{request_type=waiting}"),
        running=_specs("nv_trt_llm_request_metrics{request_type=scheduled}"),
        kv_ratio=_specs("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"),
        block_tokens=_specs("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"),
        cache_blocks=_specs("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"),
    ),
    # Triton tells of no requests that run: nv_inference_exec_count counts all that ever did.
    EngineMap(name="triton", waiting=_specs("nv_inference_pending_request_count")),
    EngineMap(
        name="llamacpp",
        waiting=_specs("llamacpp:requests_deferred"),
        running=_specs("llamacpp:requests_processing"),
        kv_ratio=_specs("llamacpp:kv_cache_usage_ratio"),  # newer versions do not tell
    ),
)
"""In the order in which a page is tried on them. The attributes of vLLM count since its start: the
tokens of prompts that were looked for in its prefix cache, and those that were found there."""


def known_engines(configured: Iterable[EngineMap]) -> dict[str, EngineMap]:
    """Return the engines by name: those of the configuration, then the built-in ones that they do
    not replace."""
    known = {engine.name: engine for engine in configured}
    for engine in BUILT_IN:
        known.setdefault(engine.name, engine)
    return known


def metrics_of(engine: EngineMap) -> list[str]:
    """Return the names of all metrics that an engine's map mentions."""
    specs = (
        *engine.waiting,
        *engine.running,
        *engine.kv_ratio,
        *engine.adapters,
        *engine.cache_info,
        *engine.block_tokens,
        *engine.cache_blocks,
        *engine.started,
        *(each.metric for each in engine.attributes),
    )
    return [spec.name for spec in specs]
