"""What the scraping of the engines can be told."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from epp.config.metric_spec import MetricSpec

__all__ = [
    "BUILT_IN_ENGINES",
    "Aggregation",
    "AttributeMetric",
    "EngineMap",
    "ScrapeOptions",
    "ScrapeScheme",
]

ScrapeScheme = Literal["http", "https"]
Aggregation = Literal["sum", "mean", "max"]

BUILT_IN_ENGINES: Final = (
    "vllm",
    "sglang",
    "trtllm-serve",
    "triton-tensorrt-llm",
    "triton",
    "llamacpp",
)
"""The engines whose metrics are known without configuration, in the order in which a page is
tried on them."""

_RESERVED: Final = "default"
_PROCESS_START: Final = (MetricSpec("process_start_time_seconds"),)


class AttributeMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A further number of an engine: ``attribute`` is what plugins call it.

    Where several series match, ``aggregation`` makes one number of them. Add up what counts
    something; a share or a temperature wants the mean, or the largest.
    """

    attribute: str
    metric: MetricSpec
    aggregation: Aggregation = "sum"


class EngineMap(msgspec.Struct, frozen=True, kw_only=True):
    """What the metrics of one kind of engine are called.

    Of several specs the first that a page has counts; none means that the engine does not tell.
    ``waiting``, ``running`` and ``kv_ratio`` are the quantities of
    :class:`epp.core.pool.EngineLoad`. ``adapters`` is a series whose labels
    ``running_lora_adapters``, ``waiting_lora_adapters`` and ``max_lora`` tell of LoRA adapters.
    The size and number of KV cache blocks are in the labels ``block_tokens_label`` and
    ``cache_blocks_label`` of ``cache_info``, or are the values of ``block_tokens`` and
    ``cache_blocks``. ``started`` is when the process began, in seconds since 1970.
    """

    name: str
    waiting: tuple[MetricSpec, ...] = ()
    running: tuple[MetricSpec, ...] = ()
    kv_ratio: tuple[MetricSpec, ...] = ()
    adapters: tuple[MetricSpec, ...] = ()
    cache_info: tuple[MetricSpec, ...] = ()
    block_tokens_label: str = "block_size"
    cache_blocks_label: str = "num_gpu_blocks"
    block_tokens: tuple[MetricSpec, ...] = ()
    cache_blocks: tuple[MetricSpec, ...] = ()
    started: tuple[MetricSpec, ...] = _PROCESS_START
    attributes: tuple[AttributeMetric, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a name that cannot be used, and for an attribute named twice."""
        if not self.name:
            raise ValueError("an engine has no name")
        if self.name == _RESERVED:
            raise ValueError(f"an engine cannot be named {_RESERVED!r}: that name is reserved")
        names = [each.attribute for each in self.attributes]
        if "" in names:
            raise ValueError(f"the engine {self.name!r} has an attribute without a name")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the engine {self.name!r} has the attribute {twice!r} twice")


class ScrapeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How often the metrics pages of the engines are fetched, and what a fetch may take.

    Each endpoint's page, ``scheme://ip:port`` and ``path``, is fetched about every ``interval_s``
    seconds; every ``idle_interval_s`` while the engine has nothing to do, and every
    ``busy_interval_s`` while requests wait in it or it is near its limit. ``port`` is the page's
    port at every endpoint where it is not the endpoint's own. A fetch may last for ``deadline_s``
    and bring ``max_page_bytes``; after one that failed the next is put off, longer each time, up
    to ``max_backoff_s``. No more than ``concurrency`` run at a time.

    Which engine an endpoint runs is told by its label ``engine_label``, or its label
    ``inference.networking.k8s.io/engine-type``; else it is ``default_engine``, and where that is
    empty, the page itself tells. ``engines`` are known besides the built-in ones, and before them;
    one with the name of a built-in one takes its place.

    With ``https`` certificates are verified unless ``insecure_skip_verify``, whose default is to
    do so where ``ca_file`` says by whom they must be signed: an endpoint is known by its address,
    which certificates rarely name. ``server_name`` is the name that they must have instead of the
    address. ``client_cert_file`` and ``client_key_file`` (PEM) are shown to engines that ask for
    them; the content of ``bearer_token_file`` goes with every request. Files that change are read
    again.
    """

    interval_s: float = 1.0
    idle_interval_s: float = 5.0
    busy_interval_s: float = 0.25
    deadline_s: float = 1.0
    max_backoff_s: float = 30.0
    max_page_bytes: int = 4 << 20
    concurrency: int = 32
    path: str = "/metrics"
    scheme: ScrapeScheme = "http"
    port: int | None = None
    engine_label: str = "llm-d.ai/engine-type"
    default_engine: str = ""
    engines: tuple[EngineMap, ...] = ()
    insecure_skip_verify: bool | None = None
    server_name: str | None = None
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    bearer_token_file: Path | None = None

    def __post_init__(self) -> None:
        """Raise ValueError, with a sentence for users, for values that do not go together."""
        names = [engine.name for engine in self.engines]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the engine {twice!r} is there twice")
        known = dict.fromkeys((*names, *BUILT_IN_ENGINES))
        if self.default_engine and self.default_engine not in known:
            raise ValueError(
                f"the default engine {self.default_engine!r} is not known; expected one of "
                + ", ".join(known)
            )
        if (self.client_cert_file is None) != (self.client_key_file is None):
            raise ValueError("a client certificate and its key only go together")

    @property
    def verifies_certificates(self) -> bool:
        """Whether an engine must show a certificate that was signed by somebody known."""
        if self.insecure_skip_verify is None:
            return self.ca_file is not None
        return not self.insecure_skip_verify
