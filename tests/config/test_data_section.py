"""What is fetched of engines, and what is read of requests."""

from pathlib import Path

import pytest

from epp.config.metric_spec import MetricSpec
from epp.config.scrape import AttributeMetric, EngineMap, ScrapeOptions

from .support import parse, problems, refused


def scrape(parameters: str) -> ScrapeOptions | None:
    return parse(f"plugins: [{{type: metrics-data-source, parameters: {{{parameters}}}}}]").scrape


def extractor(parameters: str) -> str:
    return f"plugins:\n- type: core-metrics-extractor\n  parameters: {parameters}\n"


# ---- the source ----


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("", ScrapeOptions()),
        ("interval: 1s", ScrapeOptions()),
        ("interval: 2s", ScrapeOptions(interval_s=2, idle_interval_s=10, busy_interval_s=0.5)),
        ("interval: 50ms", ScrapeOptions(interval_s=0.05, idle_interval_s=0.25,
         busy_interval_s=0.05)),
        ("scheme: https, path: /m, port: 9100, insecureSkipVerify: true, serverName: engine,"
         " caCertPath: /ca, clientCertPath: /c, clientKeyPath: /k, bearerTokenPath: /t,"
         " timeout: 3s",
         ScrapeOptions(scheme="https", path="/m", port=9100, insecure_skip_verify=True,
         server_name="engine", ca_file=Path("/ca"), client_cert_file=Path("/c"),
         client_key_file=Path("/k"), bearer_token_file=Path("/t"), deadline_s=3)),
    ],
)  # fmt: skip
def test_the_source_says_how_pages_are_fetched(parameters: str, options: ScrapeOptions) -> None:
    assert scrape(parameters) == options


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("interval: 49ms", ': found an interval of 0.049s; expected "50ms" at least'),
        ("timeout: 0s", ": found a timeout of 0; expected a duration above 0"),
        ("clientCertPath: /c", ": a client certificate and its key only go together"),
        ("port: 0", ".port: found 0; expected a whole number from 1 to 65535"),
        ("path: metrics", '.path: found "metrics"; expected a path that begins with "/", such as'
         ' "/metrics"'),
        ("scheme: ftp", '.scheme: found "ftp"; expected "http" or "https"'),
    ],
)  # fmt: skip
def test_wrong_parameters_of_the_source(parameters: str, problem: str) -> None:
    text = f"plugins: [{{type: metrics-data-source, parameters: {{{parameters}}}}}]"
    assert refused(text) == f"config.yaml:1: plugins[0].parameters{problem}"


# ---- the extractor ----


def test_the_extractor_says_what_metrics_are_called() -> None:
    config = parse(
        extractor("""
    engineLabelKey: engine
    defaultEngine: mine
    engineConfigs:
    - name: mine
      queuedRequestsSpec: q{state=waiting}
      runningRequestsSpec: r
      kvUsageSpec: k
      loraSpec: l
      cacheInfoSpec: c
      cacheBlockSizeLabelName: size
      cacheNumBlocksLabelName: blocks
      customMetrics: [{attributeKey: heat, metricSpec: 't{a="b"}', aggregation: max}]
    - {name: other, cacheBlockSizeSpec: s, cacheNumBlocksSpec: n}
""")
    )
    assert config.scrape == ScrapeOptions(
        engine_label="engine",
        default_engine="mine",
        engines=(
            EngineMap(
                name="mine",
                waiting=(MetricSpec("q", (("state", "waiting"),)),),
                running=(MetricSpec("r"),),
                kv_ratio=(MetricSpec("k"),),
                adapters=(MetricSpec("l"),),
                cache_info=(MetricSpec("c"),),
                block_tokens_label="size",
                cache_blocks_label="blocks",
                attributes=(
                    AttributeMetric(
                        attribute="heat", metric=MetricSpec("t", (("a", "b"),)), aggregation="max"
                    ),
                ),
            ),
            EngineMap(
                name="other",
                block_tokens=(MetricSpec("s"),),
                cache_blocks=(MetricSpec("n"),),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("{engineConfigs: [{name: a}, {name: a}]}", "the engine 'a' is there twice"),
        ("{engineConfigs: [{name: default}]}", "an engine cannot be named 'default'"),
        ("{defaultEngine: vlm}", "the default engine 'vlm' is not known; expected one of vllm"),
        ("{engineConfigs: [{name: a, kvUsageSpec: 'x{'}]}", "engineConfigs[0].kvUsageSpec: 'x{'"
         " names no metric"),
        ("{engineConfigs: [{name: a, customMetrics: [{attributeKey: b, metricSpec: '1'}]}]}",
         "engineConfigs[0].customMetrics[0].metricSpec: '1' names no metric"),
    ],
)  # fmt: skip
def test_wrong_parameters_of_the_extractor(parameters: str, problem: str) -> None:
    found = refused(extractor(parameters))
    assert found.startswith(f"config.yaml:3: plugins[0].parameters: {problem}")


# ---- dataLayer ----


def test_a_source_of_any_name_is_the_only_one() -> None:
    config = parse("""
        plugins:
        - {name: s, type: metrics-data-source, parameters: {path: /s}}
        - {name: e, type: core-metrics-extractor, parameters: {engineLabelKey: e}}
        dataLayer: {sources: [{pluginRef: s, extractors: [{pluginRef: e}]}]}
        """)
    assert config.scrape == ScrapeOptions(path="/s", engine_label="e")
    assert config.notes == ()


def test_a_source_without_an_extractor_has_the_one_of_the_default_name() -> None:
    config = parse("""
        plugins: [{type: core-metrics-extractor, parameters: {engineLabelKey: e}}]
        dataLayer: {injectDefaults: false, sources: [{pluginRef: metrics-data-source}]}
        """)
    assert config.scrape == ScrapeOptions(engine_label="e")


def test_without_sources_and_defaults_nothing_is_fetched() -> None:
    config = parse("dataLayer: {injectDefaults: false}")
    assert config.scrape is None
    assert config.notes == ()
    assert parse("dataLayer: {injectDefaults: true}").scrape == ScrapeOptions()


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("discovery: {pluginRef: file-discovery}", "discovery: this version has no such part; epp"
         " serve --manifests DIR says where endpoints come from"),
        ("peerDiscovery: {pluginRef: x}", "peerDiscovery: this version has no such part; it has no"
         " plugins for it"),
        ("crossReplicaSyncerPluginRef: x", "crossReplicaSyncerPluginRef: this version has no such"
         " part; it has no plugins for it"),
        ("crossReplicaSyncInterval: 1s", "crossReplicaSyncInterval: this version has no such part;"
         " it has no plugins for it"),
        ("sources: [{pluginRef: dcgm-data-source}]", "sources[0].pluginRef: this version has no"
         ' "dcgm-data-source"'),
        ("sources: [{pluginRef: queue-scorer}]", 'sources[0].pluginRef: found "queue-scorer", a'
         " scorer; expected a data source"),
        ("sources: [{pluginRef: s}, {pluginRef: metrics-data-source}]", "sources[1].pluginRef:"
         " found another data source; expected one metrics-data-source"),
        ("sources: [{pluginRef: s, extractors: [{pluginRef: s}]}]",
         'sources[0].extractors[0].pluginRef: found "s", a data source; expected an extractor'),
        ("sources: [{pluginRef: s, extractors: [{pluginRef: e}, {pluginRef:"
         " core-metrics-extractor}]}]", "sources[0].extractors[1].pluginRef: found another"
         " extractor; expected one core-metrics-extractor"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_data_layer(section: str, problem: str) -> None:
    text = f"""
        plugins: [{{name: s, type: metrics-data-source}}, {{name: e, type: core-metrics-extractor}}]
        dataLayer: {{{section}}}
        """
    assert refused(text) == f"config.yaml:3: dataLayer.{problem}"


# ---- parsers, tokens ----


def test_parsers_are_accepted_with_a_note() -> None:
    assert parse("{}").reads_bodies
    note = (
        "config.yaml: requestHandler.parsers: a body is read as its path and fields tell, so all"
        " parsers are always on"
    )
    config = parse("""
        plugins: [{name: p, type: openai-parser}]
        requestHandler: {parsers: [{pluginRef: p}, {pluginRef: passthrough-parser}]}
        """)
    assert config.reads_bodies
    assert config.notes == (note,)
    config = parse("parser: {pluginRef: anthropic-parser}")
    assert config.notes == ("config.yaml: parser is deprecated; use requestHandler.parsers", note)


def test_where_all_is_passed_through_no_body_is_read() -> None:
    config = parse("requestHandler: {parsers: [{pluginRef: passthrough-parser}]}")
    assert not config.reads_bodies
    assert config.notes == ()
    assert not parse("parser: {pluginRef: passthrough-parser}").reads_bodies


@pytest.mark.parametrize(
    ("parser", "problem"),
    [
        ("vllmgrpc-parser", 'this version has no "vllmgrpc-parser"'),
        ("vertexai-parser", 'this version has no "vertexai-parser"'),
        ("open-parser", 'found "open-parser"; did you mean "openai-parser"?'),
        ("queue-scorer", 'found "queue-scorer", a scorer; expected a parser'),
    ],
)
def test_other_parsers_are_refused(parser: str, problem: str) -> None:
    found = problems(f"requestHandler: {{parsers: [{{pluginRef: {parser}}}]}}")
    assert found == (f"config.yaml:1: requestHandler.parsers[0].pluginRef: {problem}",)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ("{vllm: {url: 'http://a'}}", "this version has no vllm backend of token-producer; it"
         " estimates tokens"),
        ("{udsTokenizerConfig: {}}", "this version has no udsTokenizerConfig backend of"
         " token-producer; it estimates tokens"),
        ("{estimate: {image: {mode: static}}}", "found image in estimate; expected nothing there:"
         " there is one way"),
    ],
)  # fmt: skip
def test_tokens_are_only_estimated(parameters: str, problem: str) -> None:
    text = f"plugins: [{{type: token-producer, parameters: {parameters}}}]"
    assert refused(text) == f"config.yaml:1: plugins[0].parameters: {problem}"
    assert parse("plugins: [{type: token-producer, parameters: {modelName: m, estimate: {}}}]")
