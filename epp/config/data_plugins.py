"""The plugin types of the data layer and of parsing: what is fetched from engines, and what is read
of requests.

None of them becomes an object of its own here. What a data source and an extractor are told becomes
:class:`epp.config.scrape.ScrapeOptions`.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, field

from epp.config.metric_spec import MetricSpec
from epp.config.plugin_type import PluginType
from epp.config.quantities import Duration
from epp.config.scrape import AttributeMetric, EngineMap, ScrapeOptions
from epp.core.scheduling.definition import NoParameters, Parameters

__all__ = [
    "DATA_TYPES",
    "EXTRACTOR",
    "PASSTHROUGH",
    "SHORTEST_INTERVAL_S",
    "SOURCE",
    "scrape_intervals",
]

SOURCE: Final = "metrics-data-source"
EXTRACTOR: Final = "core-metrics-extractor"
PASSTHROUGH: Final = "passthrough-parser"

_SCRAPE: Final = ScrapeOptions()
SHORTEST_INTERVAL_S: Final = 0.05

Text: TypeAlias = Annotated[str, Meta(min_length=1, description="text")]
Spec: TypeAlias = Annotated[
    str, Meta(description='a metric, as "name" or "name{label=value}"; "" for none')
]
PathText: TypeAlias = Annotated[
    str, Meta(pattern="^/[!-~]*$", description='a path that begins with "/", such as "/metrics"')
]
Port: TypeAlias = Annotated[
    int, Meta(ge=1, le=65_535, description="a whole number from 1 to 65535")
]
Flag: TypeAlias = Annotated[bool, Meta(description="true or false")]
Scheme: TypeAlias = Annotated[Literal["http", "https"], Meta(description='"http" or "https"')]
Interval: TypeAlias = Annotated[
    Duration, Meta(description='a duration from "50ms" on, such as "500ms" or "1s"')
]
Timeout: TypeAlias = Annotated[
    Duration, Meta(description='a duration above 0, such as "500ms" or "1s"')
]
Aggregation: TypeAlias = Annotated[
    Literal["sum", "mean", "max"], Meta(description='"sum", "mean" or "max"')
]


class MetricsSourceParameters(Parameters, frozen=True, kw_only=True):
    """Of ``metrics-data-source``."""

    scheme: Scheme = _SCRAPE.scheme
    path: PathText = _SCRAPE.path
    port: Port | None = None
    insecure_skip_verify: Flag | None = None
    ca_cert_path: Text | None = None
    client_cert_path: Text | None = None
    client_key_path: Text | None = None
    interval: Interval = Duration(_SCRAPE.interval_s)
    # Ours:
    server_name: Text | None = None
    bearer_token_path: Text | None = None
    timeout: Timeout = Duration(_SCRAPE.deadline_s)


class CustomMetric(Parameters, frozen=True, kw_only=True):
    """An item of ``customMetrics``."""

    attribute_key: Text
    metric_spec: Annotated[str, Meta(min_length=1, description='a metric, such as "name{a=b}"')]
    # Ours:
    aggregation: Aggregation = "sum"


class EngineConfig(Parameters, frozen=True, kw_only=True):
    """An item of ``engineConfigs``."""

    name: Text
    queued_requests_spec: Spec = ""
    running_requests_spec: Spec = ""
    kv_usage_spec: Spec = ""
    lora_spec: Spec = ""
    cache_info_spec: Spec = ""
    cache_block_size_label_name: Text = "block_size"
    cache_num_blocks_label_name: Text = "num_gpu_blocks"
    cache_block_size_spec: Spec = ""
    cache_num_blocks_spec: Spec = ""
    custom_metrics: tuple[CustomMetric, ...] = ()


class ExtractorParameters(Parameters, frozen=True, kw_only=True):
    """Of ``core-metrics-extractor``."""

    engine_label_key: Text = _SCRAPE.engine_label
    default_engine: Annotated[str, Meta(description="text")] = _SCRAPE.default_engine
    engine_configs: tuple[EngineConfig, ...] = ()


class TokenProducerParameters(Parameters, frozen=True, kw_only=True):
    """Of ``token-producer``."""

    model_name: Text | None = None
    estimate: dict[str, Any] = field(default_factory=dict)
    vllm: dict[str, Any] | None = None
    uds_tokenizer_config: dict[str, Any] | None = None


def scrape_intervals(interval_s: float) -> dict[str, float]:
    """Return how often pages are fetched, as fields of ScrapeOptions, by what is usual there."""
    factor = interval_s / _SCRAPE.interval_s
    return {
        "interval_s": interval_s,
        "idle_interval_s": factor * _SCRAPE.idle_interval_s,
        "busy_interval_s": max(SHORTEST_INTERVAL_S, factor * _SCRAPE.busy_interval_s),
    }


def _source(parameters: MetricsSourceParameters) -> dict[str, Any]:
    """Return fields of ScrapeOptions."""
    if parameters.interval < SHORTEST_INTERVAL_S:
        raise ValueError(f'found an interval of {parameters.interval:g}s; expected "50ms" at least')
    if not parameters.timeout:
        raise ValueError("found a timeout of 0; expected a duration above 0")

    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    found: dict[str, Any] = {
        "scheme": parameters.scheme,
        "path": parameters.path,
        "port": parameters.port,
        "insecure_skip_verify": parameters.insecure_skip_verify,
        "server_name": parameters.server_name,
        "ca_file": path(parameters.ca_cert_path),
        "client_cert_file": path(parameters.client_cert_path),
        "client_key_file": path(parameters.client_key_path),
        "bearer_token_file": path(parameters.bearer_token_path),
        "deadline_s": float(parameters.timeout),
    }
    if parameters.interval != _SCRAPE.interval_s:
        found |= scrape_intervals(float(parameters.interval))
    ScrapeOptions(**found)  # which raises what does not go together
    return found


def _extractor(parameters: ExtractorParameters) -> dict[str, Any]:
    """Return fields of ScrapeOptions."""
    found: dict[str, Any] = {
        "engine_label": parameters.engine_label_key,
        "default_engine": parameters.default_engine,
        "engines": tuple(
            _engine(config, f"engineConfigs[{index}]")
            for index, config in enumerate(parameters.engine_configs)
        ),
    }
    ScrapeOptions(**found)
    return found


def _engine(config: EngineConfig, path: str) -> EngineMap:
    def specs(text: str, name: str) -> tuple[MetricSpec, ...]:
        return (_spec(text, f"{path}.{name}"),) if text.strip() else ()

    return EngineMap(
        name=config.name,
        waiting=specs(config.queued_requests_spec, "queuedRequestsSpec"),
        running=specs(config.running_requests_spec, "runningRequestsSpec"),
        kv_ratio=specs(config.kv_usage_spec, "kvUsageSpec"),
        adapters=specs(config.lora_spec, "loraSpec"),
        cache_info=specs(config.cache_info_spec, "cacheInfoSpec"),
        block_tokens_label=config.cache_block_size_label_name,
        cache_blocks_label=config.cache_num_blocks_label_name,
        block_tokens=specs(config.cache_block_size_spec, "cacheBlockSizeSpec"),
        cache_blocks=specs(config.cache_num_blocks_spec, "cacheNumBlocksSpec"),
        attributes=tuple(
            AttributeMetric(
                attribute=each.attribute_key,
                metric=_spec(each.metric_spec, f"{path}.customMetrics[{index}].metricSpec"),
                aggregation=each.aggregation,
            )
            for index, each in enumerate(config.custom_metrics)
        ),
    )


def _spec(text: str, path: str) -> MetricSpec:
    try:
        return MetricSpec.parse(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _tokens(parameters: TokenProducerParameters) -> None:
    for name, given in (
        ("vllm", parameters.vllm),
        ("udsTokenizerConfig", parameters.uds_tokenizer_config),
    ):
        if given is not None:
            raise ValueError(
                f"this version has no {name} backend of token-producer; it estimates tokens"
            )
    if parameters.estimate:
        known = " and ".join(parameters.estimate)
        raise ValueError(f"found {known} in estimate; expected nothing there: there is one way")


def _parser(type_: str, what: str) -> PluginType:
    return PluginType(
        type=type_,
        kind="parser",
        summary=f"Reads {what}. Always on: what a body is, its path and fields tell.",
        parameters=NoParameters,
        make=lambda _: type_,
    )


_SOURCE_TYPE: Final = PluginType(
    type=SOURCE,
    kind="data source",
    summary="Fetches the metrics page of every endpoint.",
    parameters=MetricsSourceParameters,
    make=_source,
    explains={
        "scheme": "How it is fetched.",
        "path": "Where it is.",
        "port": "Its port at every endpoint, where it is not the endpoint's own.",
        "insecureSkipVerify": "Whether certificates are taken unseen: by default where there is no"
        " caCertPath.",
        "caCertPath": "A file of the authorities that sign the engines' certificates (PEM).",
        "clientCertPath": "A file of the certificate that engines are shown (PEM).",
        "clientKeyPath": "A file of its key (PEM).",
        "interval": "How often: a fifth as often where nothing runs or waits, four times as often"
        " where requests wait in the engine.",
        "serverName": "Ours: the name in the engines' certificates, instead of the address.",
        "bearerTokenPath": "Ours: a file of the token that goes with each fetch.",
        "timeout": "Ours: how long a fetch may take.",
    },
)

_ENGINE_EXPLAINS: Final = {
    "name": "What endpoints' labels call it.",
    "queuedRequestsSpec": "Requests in the engine's own queue.",
    "runningRequestsSpec": "Requests in its batch.",
    "kvUsageSpec": "Use of its KV cache, 0 to 1.",
    "loraSpec": "A series whose labels tell of LoRA adapters: running_lora_adapters,"
    " waiting_lora_adapters and max_lora.",
    "cacheInfoSpec": "A series whose labels tell of the KV cache.",
    "cacheBlockSizeLabelName": "Its label with the tokens of a block.",
    "cacheNumBlocksLabelName": "Its label with the number of blocks.",
    "cacheBlockSizeSpec": "The tokens of a block, as a value.",
    "cacheNumBlocksSpec": "The number of blocks, as a value.",
    "customMetrics": "More numbers, for plugins that ask for them by name.",
    "customMetrics[].attributeKey": "What plugins call it.",
    "customMetrics[].metricSpec": "The metric.",
    "customMetrics[].aggregation": "Ours: what is made of several series.",
}

_EXTRACTOR_TYPE: Final = PluginType(
    type=EXTRACTOR,
    kind="extractor",
    summary="Reads the load of an engine out of its metrics page.",
    parameters=ExtractorParameters,
    make=_extractor,
    explains={
        "engineLabelKey": "The endpoints' label that tells which engine they run.",
        "defaultEngine": "The engine of endpoints without the label; empty: the page itself tells.",
        "engineConfigs": "Engines, besides the built-in ones or in their place, and what their"
        " metrics are called.",
        **{f"engineConfigs[].{name}": text for name, text in _ENGINE_EXPLAINS.items()},
    },
)

_TOKENS_TYPE: Final = PluginType(
    type="token-producer",
    kind="producer",
    summary="Estimates the tokens of prompts, as is always done.",
    parameters=TokenProducerParameters,
    make=_tokens,
    explains={
        "modelName": "Accepted and not needed: nothing is asked for an estimate.",
        "estimate": "Accepted where it is empty.",
        "vllm": "Not in this version.",
        "udsTokenizerConfig": "Not in this version.",
    },
)

DATA_TYPES: Final = (
    _SOURCE_TYPE,
    _EXTRACTOR_TYPE,
    _TOKENS_TYPE,
    _parser("openai-parser", "what OpenAI's API knows"),
    _parser("anthropic-parser", "what Anthropic's API knows"),
    _parser("vllmhttp-parser", "vLLM's generate requests"),
    _parser("sglanghttp-parser", "SGLang's generate requests"),
    PluginType(
        type=PASSTHROUGH,
        kind="parser",
        summary="Reads nothing: where it is the only parser, bodies are not looked into.",
        parameters=NoParameters,
        make=lambda _: PASSTHROUGH,
    ),
)
