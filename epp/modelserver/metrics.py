"""The ``/metrics`` page: the engine's numbers under the names that vLLM gives them."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from epp.modelserver.engine import Engine
from epp.modelserver.stats import Histogram

__all__ = ["EngineCollector"]

_LABELS = ("engine", "model_name")


class EngineCollector(Collector):
    """Reads the engine when the page is asked for; between two pages it costs nothing."""

    def __init__(self, engine: Engine, model_name: str, aborted: Callable[[], int]) -> None:
        self._engine = engine
        self._values = ("0", model_name)
        self._aborted = aborted
        self._started_s = time.time()

    def registry(self) -> CollectorRegistry:
        """Return a registry of its own with nothing else in it."""
        registry = CollectorRegistry()
        registry.register(self)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Yield every metric family."""
        engine, stats = self._engine, self._engine.stats
        yield self._gauge("num_requests_running", "Requests in the batch.", engine.num_running)
        yield self._gauge("num_requests_waiting", "Requests waiting.", engine.num_waiting)
        yield self._gauge(
            "kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.", engine.kv_usage_ratio
        )
        for name, text, count in (
            ("prompt_tokens", "Prompt tokens processed.", stats.prompt_tokens),
            ("generation_tokens", "Tokens generated.", stats.generation_tokens),
            (
                "prefix_cache_queries",
                "Prompt tokens looked up in the prefix cache.",
                stats.prefix_cache_queried_tokens,
            ),
            (
                "prefix_cache_hits",
                "Prompt tokens found in the prefix cache.",
                stats.prefix_cache_hit_tokens,
            ),
            ("num_preemptions", "Sequences that lost their blocks.", stats.preemptions),
        ):
            yield self._counter(f"vllm:{name}", text, count)
        yield self._counter(
            "epp_modelserver:aborted_requests", "Requests whose client went away.", self._aborted()
        )
        yield self._finished()
        for name, histogram in (
            ("time_to_first_token_seconds", stats.first_token_s),
            ("inter_token_latency_seconds", stats.inter_token_s),
            ("e2e_request_latency_seconds", stats.request_s),
            ("request_queue_time_seconds", stats.queue_s),
        ):
            yield self._histogram(name, histogram)
        yield self._cache_config()
        yield GaugeMetricFamily(
            "process_start_time_seconds",
            "When the server was made, in seconds since the epoch.",
            self._started_s,
        )
        if engine.options.max_loras:
            yield self._lora_info()

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _histogram(self, name: str, histogram: Histogram) -> Metric:
        family = HistogramMetricFamily(f"vllm:{name}", f"{name}, in seconds.", labels=_LABELS)
        family.add_metric(self._values, histogram.cumulative(), histogram.sum)
        return family

    def _finished(self) -> Metric:
        family = CounterMetricFamily(
            "vllm:request_success", "Requests finished.", labels=(*_LABELS, "finished_reason")
        )
        for reason, count in self._engine.stats.finished.items():
            family.add_metric((*self._values, reason), count)
        return family

    def _cache_config(self) -> Metric:
        options = self._engine.options
        labels = {
            "block_size": str(options.block_size),
            "enable_prefix_caching": str(options.prefix_caching),
            "engine": "0",
            "num_gpu_blocks": str(options.num_kv_blocks),
        }
        family = GaugeMetricFamily(
            "vllm:cache_config_info", "The KV cache, in its labels.", labels=tuple(labels)
        )
        family.add_metric(tuple(labels.values()), 1)
        return family

    def _lora_info(self) -> Metric:
        labels = {
            "max_lora": str(self._engine.options.max_loras),
            "running_lora_adapters": ",".join(self._engine.running_adapters()),
            "waiting_lora_adapters": ",".join(self._engine.waiting_adapters()),
        }
        family = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "The adapters in its labels, the time in seconds since the epoch as its value.",
            labels=tuple(labels),
        )
        family.add_metric(tuple(labels.values()), time.time())
        return family
