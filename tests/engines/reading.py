"""Pages in a few words, and what they say."""

from epp.config.metric_spec import MetricSpec
from epp.core.pool import EngineLoad
from epp.engines.parse import Dialects, PageReader

__all__ = ["DIALECTS", "SGLANG", "VLLM", "engine_load", "page", "spec"]

DIALECTS = Dialects()
VLLM = ("vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc")
SGLANG = ("sglang:num_queue_reqs", "sglang:num_running_reqs", "sglang:token_usage")


def engine_load(page: bytes, engine: str = "") -> EngineLoad | None:
    """Return what a reader says that knows no page before this one."""
    return PageReader(DIALECTS).read(page, engine)


def page(*lines: str) -> bytes:
    """Return the page with these lines; "\\udcff" is the byte FF, which is no UTF-8."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def spec(text: str) -> tuple[MetricSpec, ...]:
    """Return a map's entry for the one metric that this names."""
    return (MetricSpec.parse(text),)
