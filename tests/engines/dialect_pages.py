"""Metrics pages as the engines write them, and what they say.

Those of the engines that are written in Python come from prometheus_client, as theirs do. Each has
the metrics that routing wants among others with similar names, in the engine's order and labels.
"""

import math
from collections.abc import Iterable, Mapping

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from epp.core.pool import EngineLoad

__all__ = ["CASES", "Case"]

_MODEL = "meta-llama/Llama-3.1-8B-Instruct"
_BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0)
_STARTED_S = 1763782765.43


class Case(msgspec.Struct, frozen=True):
    """A page, which engine wrote it, and the load that is in it."""

    name: str
    engine: str
    page: bytes
    load: EngineLoad


class _Page:
    """A registry of prometheus_client in which every series has some labels in common."""

    def __init__(self, **common: str) -> None:
        self._registry = CollectorRegistry()
        self._common = common

    def gauge(self, name: str, value: float, **labels: str) -> None:
        labels |= self._common
        found = self._registry._names_to_collectors.get(name)
        gauge = found or Gauge(name, f"The {name}.", list(labels), registry=self._registry)
        (gauge.labels(**labels) if labels else gauge).set(value)  # type: ignore[attr-defined]

    def counter(self, name: str, value: float) -> None:
        counter = Counter(name, f"All {name}.", list(self._common), registry=self._registry)
        counter.labels(**self._common).inc(value)

    def histogram(self, name: str) -> None:
        histogram = Histogram(
            name, f"Of {name}.", list(self._common), buckets=_BUCKETS, registry=self._registry
        )
        histogram.labels(**self._common).observe(0.25)

    def written(self) -> bytes:
        """Return the page without the times at which its counters were made, which differ from run
        to run; prometheus_client can leave them out as well."""
        lines = generate_latest(self._registry).splitlines(keepends=True)
        return b"".join(line for line in lines if b"_created" not in line)


def _vllm(
    *,
    engines: int = 1,
    kv_name: str = "vllm:kv_cache_usage_perc",
    adapters: Iterable[tuple[str, str, float]] = (),
    histograms: int = 2,
) -> bytes:
    page = _Page()
    page.gauge("process_virtual_memory_bytes", 3.58e9)
    page.gauge("process_start_time_seconds", _STARTED_S)
    for engine in map(str, range(engines)):
        labels = {"engine": engine, "model_name": _MODEL}
        step = float(engine)
        page.gauge("vllm:num_requests_running", 12.0 + step, **labels)
        page.gauge("vllm:num_requests_waiting", 9.0 + step, **labels)
        page.gauge("vllm:engine_sleep_state", 0.0, **labels)
        page.gauge(kv_name, 0.75 - step / 2, **labels)
        for reason in ("capacity", "deferred"):
            name = "vllm:num_requests_waiting_by_reason"
            page.gauge(name, 4.0, **labels, reason=reason)
        page.gauge(
            "vllm:cache_config_info",
            1.0,
            block_size="16",
            cache_dtype="auto",
            engine=engine,
            mamba_block_size="None",
            num_cpu_blocks="None",
            num_gpu_blocks="27913",
            num_gpu_blocks_override="None",
            swap_space_bytes="4294967296.0",
        )
    for running, waiting, told_s in adapters:
        page.gauge(
            "vllm:lora_requests_info",
            told_s,
            max_lora="4",
            waiting_lora_adapters=waiting,
            running_lora_adapters=running,
        )
    common = _Page(engine="0", model_name=_MODEL)
    common.counter("vllm:prefix_cache_queries", 1656973.0)
    common.counter("vllm:prefix_cache_hits", 55397.0)
    common.counter("vllm:external_prefix_cache_hits", 7.0)
    for number in range(histograms):
        common.histogram(f"vllm:request_phase_{number}_seconds")
    created = b"".join(
        b'vllm:prefix_cache_%b_created{engine="0"} 1.7e+09\n' % each
        for each in (b"hits", b"queries")
    )
    return page.written() + common.written() + created


def _sglang() -> bytes:
    page = _Page()
    for dp_rank in "01":
        for tp_rank in "01":
            labels = {
                "model_name": _MODEL,
                "engine_type": "unified",
                "tp_rank": tp_rank,
                "pp_rank": "0",
                "dp_rank": dp_rank,
            }
            step = float(dp_rank)
            for priority, waiting in (("", 5.0), ("0", 2.0), ("7", 3.0)):
                page.gauge("sglang:num_running_reqs", 8.0 + step, **labels, priority=priority)
                page.gauge("sglang:num_queue_reqs", waiting + step, **labels, priority=priority)
            page.gauge("sglang:num_grammar_queue_reqs", 2.0, **labels)
            page.gauge("sglang:token_usage", 0.28 + step / 2, **labels)
            page.gauge("sglang:swa_token_usage", 0.9, **labels)
            page.gauge("sglang:cache_hit_rate", 0.75, **labels)
            page.gauge("sglang:cache_config_info", 1.0, **labels, page_size="64", num_pages="1114")
    common = _Page(model_name=_MODEL)
    common.counter("sglang:prompt_tokens", 8128902.0)
    common.histogram("sglang:time_to_first_token_seconds")
    return page.written() + common.written()


def _trtllm() -> bytes:
    page = _Page(model_name=_MODEL, engine_type="trtllm")
    for name, value in (
        ("kv_cache_hit_rate", 0.25),
        ("kv_cache_utilization", 0.125),
        ("num_requests_running", 7.0),
        ("num_requests_waiting", 3.0),
        ("max_num_active_requests", 256.0),
        ("kv_cache_max_blocks", 10240.0),
        ("kv_cache_free_blocks", 8960.0),
        ("kv_cache_tokens_per_block", 32.0),
    ):
        page.gauge(f"trtllm_{name}", value)
    page.counter("trtllm_num_requests_completed", 21.0)
    page.histogram("trtllm_request_queue_time_seconds")
    return page.written()


def _written(families: Mapping[str, Iterable[tuple[str, str]]]) -> bytes:
    lines = []
    for name, samples in families.items():
        lines += [f"# HELP {name} The {name}", f"# TYPE {name} gauge"]
        lines += [f"{name}{labels} {value}" for labels, value in samples]
    return "".join(f"{line}\n" for line in lines).encode()


def _triton_models(name: str, values: Iterable[str]) -> tuple[str, list[tuple[str, str]]]:
    models = ("ensemble", "preprocessing", "tensorrt_llm")
    return name, [
        (f'{{model="{model}",version="1"}}', value)
        for model, value in zip(models, values, strict=True)
    ]


def _triton(*, with_tensorrt_llm: bool) -> bytes:
    families = dict(
        [
            _triton_models("nv_inference_request_success", ("90", "91", "92")),
            _triton_models("nv_inference_count", ("90", "91", "92")),
            _triton_models("nv_inference_exec_count", ("90", "91", "92")),
            _triton_models("nv_inference_pending_request_count", ("0", "1", "4")),
        ]
    )
    if with_tensorrt_llm:
        families["nv_trt_llm_request_metrics"] = [
            (f'{{model="tensorrt_llm",request_type="{kind}",version="1"}}', value)
            for kind, value in (
                ("waiting", "2.000000"),
                ("context", "1.000000"),
                ("scheduled", "6.000000"),
                ("max", "512.000000"),
                ("active", "8.000000"),
            )
        ]
        families["nv_trt_llm_kv_cache_block_metrics"] = [
            (f'{{kv_cache_block_type="{kind}",model="tensorrt_llm",version="1"}}', value)
            for kind, value in (
                ("fraction", "0.062500"),
                ("tokens_per", "64"),
                ("used", "384"),
                ("free", "5760"),
                ("max", "6.144e+03"),
            )
        ]
    families["nv_gpu_utilization"] = [('{gpu_uuid="GPU-1"}', "0.97")]
    return _written(families)


def _llamacpp(*, with_kv_cache: bool) -> bytes:
    families: dict[str, list[tuple[str, str]]] = {
        "llamacpp:prompt_tokens_total": [("", "1.23457e+06")],
        "llamacpp:predicted_tokens_seconds": [("", "54.25")],
    }
    if with_kv_cache:
        families["llamacpp:kv_cache_usage_ratio"] = [("", "0.5")]
        families["llamacpp:kv_cache_tokens"] = [("", "4096")]
    families["llamacpp:requests_processing"] = [("", "4")]
    families["llamacpp:requests_deferred"] = [("", "46")]
    families["llamacpp:n_busy_slots_per_decode"] = [("", "3.85")]
    return _written(families)


_VLLM = EngineLoad(
    waiting=9.0,
    running=12.0,
    kv_ratio=0.75,
    block_tokens=16,
    cache_blocks=27913,
    started_s=_STARTED_S,
    attributes={"prefix-cache-queried-tokens": 1656973.0, "prefix-cache-hit-tokens": 55397.0},
)
_TWO_VLLM = msgspec.structs.replace(
    _VLLM, waiting=19.0, running=25.0, kv_ratio=0.5, cache_blocks=55826
)
_ADAPTERS = (("a,b", "", 1763782999.25), ("b", "c, d", 1763783000.5), ("", "a", 1763782765.0))

CASES = (
    Case("vllm", "vllm", _vllm(), _VLLM),
    Case("vllm, large", "vllm", _vllm(histograms=20), _VLLM),
    Case("vllm before 0.10", "vllm", _vllm(kv_name="vllm:gpu_cache_usage_perc"), _VLLM),
    Case("vllm, data parallel", "vllm", _vllm(engines=2), _TWO_VLLM),
    Case(
        "vllm with LoRA",
        "vllm",
        _vllm(adapters=_ADAPTERS),
        msgspec.structs.replace(
            _VLLM,
            active_adapters=frozenset("b"),
            waiting_adapters=frozenset("cd"),
            max_adapters=4,
            base_models=frozenset([_MODEL]),
        ),
    ),
    Case(
        "sglang",
        "sglang",
        _sglang(),
        EngineLoad(11.0, 17.0, 0.53, block_tokens=64, cache_blocks=2228),
    ),
    Case(
        "trtllm-serve",
        "trtllm-serve",
        _trtllm(),
        EngineLoad(3.0, 7.0, 0.125, block_tokens=32, cache_blocks=10240),
    ),
    Case(
        "triton with TensorRT-LLM",
        "triton-tensorrt-llm",
        _triton(with_tensorrt_llm=True),
        EngineLoad(2.0, 6.0, 0.0625, block_tokens=64, cache_blocks=6144),
    ),
    Case("triton", "triton", _triton(with_tensorrt_llm=False), EngineLoad(5.0, math.nan, math.nan)),
    Case("llama.cpp", "llamacpp", _llamacpp(with_kv_cache=False), EngineLoad(46.0, 4.0, math.nan)),
    Case("llama.cpp, older", "llamacpp", _llamacpp(with_kv_cache=True), EngineLoad(46, 4, 0.5)),
)
