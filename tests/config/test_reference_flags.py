"""The flags of the Go EPP: all are accepted, and do what docs/command-line.md says."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from epp.cli import main
from epp.config import ServeOptions
from epp.config.reference_flags import METRIC_NAMES
from epp.core.exchange import ExchangeLimits
from epp.errors import UsageError

PAGE = (Path(__file__).parents[2] / "docs/command-line.md").read_text()

# Every flag that the Go EPP has, with a value in its syntax, and a word of the note that the log
# has of it, empty where there is none.
FLAGS = {
    "grpc-port": ("9102", ""),
    "ha-enable-leader-election": ("false", ""),
    "drain-timeout": ("1m30s", ""),
    "grpc-max-recv-msg-size": ("100MiB", ""),
    "grpc-max-send-msg-size": ("25MB", "no message to the gateway"),
    "pool-group": ("inference.networking.k8s.io", ""),
    "pool-namespace": ("ns", ""),
    "pool-name": ("llm", ""),
    "endpoint-selector": ("app=llm", ""),
    "endpoint-target-ports": ("8000,8001", ""),
    "disable-endpoint-subset-filter": ("true", ""),
    "emit-endpoint-scores": ("true", "explain-pick"),
    "refresh-metrics-interval": ("20ms", "raised to 0.05"),
    "refresh-prometheus-metrics-interval": ("5s", "whenever /metrics is read"),
    "metrics-staleness-threshold": ("2s", "scrape_age_seconds"),
    "total-queued-requests-metric": ("vllm:num_requests_waiting", ""),
    "total-running-requests-metric": ("vllm:num_requests_running", ""),
    "kv-cache-usage-percentage-metric": ("vllm:kv_cache_usage_perc", ""),
    "lora-info-metric": ("vllm:lora_requests_info", ""),
    "cache-info-metric": ("vllm:cache_config_info", ""),
    "v": ("4", ""),
    "zap-devel": ("true", "--log-format"),
    "zap-encoder": ("json", ""),
    "zap-log-level": ("debug", ""),
    "zap-stacktrace-level": ("error", "a stack"),
    "zap-time-encoding": ("iso8601", "ISO 8601"),
    "tracing": ("true", "not exported"),
    "health-checking": ("false", "always served"),
    "metrics-port": ("9190", ""),
    "grpc-health-port": ("9103", ""),
    "enable-pprof": ("true", "not served"),
    "cert-path": ("/certs", ""),
    "enable-cert-reload": ("false", "always read again"),
    "enable-grpc-stream-metrics": ("true", "extproc_streams_inflight"),
    "secure-serving": ("true", ""),
    "tls-min-version": ("VersionTLS13", ""),
    "tls-cipher-suites": ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", ""),
    "metrics-endpoint-auth": ("true", ""),
    "metrics-client-ca-file": ("/ca", ""),
    "metrics-cert-dir": ("/certs", ""),
    "config-file": ("{config}", ""),
    "config-text": ("{}", ""),
    "allow-experimental-plugins": ("true", "may be used"),
}
NEEDS = {
    "endpoint-selector": ["--endpoint-target-ports=1"],
    "endpoint-target-ports": ["--endpoint-selector=a"],
    "metrics-client-ca-file": ["--metrics-cert-dir=/certs"],
}

Serve = Callable[..., ServeOptions]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Returns what the service is made of by a command line."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def options_of(*arguments: str) -> ServeOptions:
        seen: list[ServeOptions] = []

        def refuse(options: ServeOptions, *_: object) -> None:
            seen.append(options)
            raise UsageError("not really")

        monkeypatch.setattr("epp.service.Service", refuse)
        assert main(["serve", *arguments]) == 2
        return seen[0]

    yield options_of
    root.handlers[:] = handlers
    root.setLevel(level)


def flag_and_needs(name: str) -> list[str]:
    has_pools = name in ("pool-name", "endpoint-selector", "endpoint-target-ports")
    return [*NEEDS.get(name, []), *([] if has_pools else ["--pool-name=llm"])]


@pytest.mark.parametrize("form", ["--{}={}", "-{}={}", "--{} {}", "-{} {}"])
@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_accepted_and_what_it_does_not_do_is_told(
    name: str, form: str, serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("{}")
    value, note = FLAGS[name]
    arguments = form.format(name, value.replace("{config}", str(config))).split()
    serve(*flag_and_needs(name), *arguments)
    notes = [line for line in capfd.readouterr().err.splitlines() if "configuration: " in line]
    assert len(notes) == bool(note)
    assert all(note in line for line in notes)


# Those that are empty by default in the Go EPP, where a chart may well write them all out.
EMPTY = [
    *("grpc-max-recv-msg-size", "grpc-max-send-msg-size", "pool-namespace", "endpoint-selector"),
    *("endpoint-target-ports", "cert-path", "tls-min-version", "tls-cipher-suites", "kubeconfig"),
    *("metrics-client-ca-file", "metrics-cert-dir", "config-file", "config-text", "pool-name"),
]


def test_a_flag_that_is_given_empty_says_nothing(serve: Serve) -> None:
    def shown(options: ServeOptions) -> ServeOptions:
        cluster = options.cluster and replace(options.cluster, identity="")
        new_scheduler = ServeOptions(manifests=()).new_scheduler
        return replace(options, cluster=cluster, self_signed=None, new_scheduler=new_scheduler)

    plain = shown(serve("--pool-name=llm"))
    assert shown(serve("--pool-name=llm", *(f"--{name}=" for name in EMPTY))) == plain
    both = [text for name in EMPTY for text in (f"-{name}", "")]
    assert shown(serve(*both, "--pool-name=llm")) == plain


def test_the_page_has_every_flag_and_no_other() -> None:
    table = PAGE.partition("| flag | what it does here |")[2]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line[:3] == "| `")
    named = re.findall(r"`--?([a-z-]+)`", first_cells)
    assert sorted(named) == sorted(FLAGS)
    in_vain = {
        name
        for line in table.splitlines()
        if re.search(r"changes? nothing: |not supported", line)
        for name in re.findall(r"`--?([a-z-]+)`", line.split("|")[1])
    }
    assert in_vain == {name for name, (_, note) in FLAGS.items() if note} - {
        "refresh-metrics-interval"
    }


@pytest.mark.parametrize(
    "argument",
    ["--emit-endpoint-scores=false", "--enable-grpc-stream-metrics=false", "--health-checking",
     "--enable-cert-reload", "--enable-pprof=false", "--tracing=false", "--zap-devel=false",
     "--allow-experimental-plugins=false"],
)  # fmt: skip
def test_a_flag_that_asks_for_what_is_here_anyway_needs_no_word(
    argument: str, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    serve("--pool-name=llm", argument)
    assert "configuration: " not in capfd.readouterr().err


def test_the_arguments_of_a_chart_that_switches_over(serve: Serve) -> None:
    options = serve(
        *("--pool-name", "llm", "--pool-namespace", "prod", "--pool-group"),
        *("inference.networking.k8s.io", "--zap-encoder", "json", "--config-text", "{}"),
        *("--tracing=false", "-v=1", "--ha-enable-leader-election", "-grpc-health-port=9104"),
        *("--drain-timeout=45s", "--refresh-metrics-interval", "200ms"),
        "--disable-endpoint-subset-filter",
    )
    assert options.cluster is not None
    assert options.cluster.pool_names == ("llm",)
    assert options.cluster.lease_name == "epp-prod-llm.llm-d.ai"
    assert options.self_signed is not None
    assert options.metrics_auth
    assert options.health_port == 9104
    assert options.drain_timeout_s == 45
    assert options.scrape is not None
    assert options.scrape.interval_s == 0.2
    assert not options.claims.heeds_subset


def test_scrapes_are_as_our_own_option_says(serve: Serve) -> None:
    options = serve("--pool-name=a", "--refresh-metrics-interval=2s", "--metrics-scrape-interval=3")
    assert options.scrape is not None
    assert options.scrape.interval_s == 3


@pytest.mark.parametrize(
    ("arguments", "most_bytes"),
    [
        ("", 64 << 20),
        ("--grpc-max-recv-msg-size=10MiB", 64 << 20),
        ("--grpc-max-recv-msg-size=100MB", 100_000_000),
        ("--grpc-max-recv-msg-size=100Mi", 100 << 20),
        ("--grpc-max-recv-msg-size=100MB --max-body-bytes=5", 5),
    ],
)
def test_the_largest_body(arguments: str, most_bytes: int, serve: Serve) -> None:
    assert ExchangeLimits().max_body_bytes == 64 << 20
    options = serve("--pool-name=a", *arguments.split())
    assert options.exchange.max_body_bytes == most_bytes


@pytest.mark.parametrize(
    ("arguments", "level", "form"),
    [
        ("", "info", "text"),
        ("-v=3", "info", "text"),
        ("-v 4", "debug", "text"),
        ("--v=9 --log-level=error", "error", "text"),
        ("--zap-log-level=warn -v=9", "warning", "text"),
        ("--zap-log-level=3", "debug", "text"),
        ("--zap-log-level=fatal --zap-encoder=console", "error", "text"),
        ("--zap-encoder=json --log-format=text", "info", "text"),
        ("--log-format=json", "info", "json"),
    ],
)
def test_the_log(
    arguments: str, level: str, form: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr("epp.serve.set_up_logging", lambda level, form: calls.append((level, form)))
    serve("--pool-name=a", *arguments.split())
    assert calls == [(level, form)]


@pytest.mark.parametrize("flag", METRIC_NAMES)
def test_names_of_metrics_are_for_the_configuration(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--pool-name=a", f"{flag}=mine:metric"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"epp: {flag}: found 'mine:metric'; expected its default, 'vllm:")


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--tracing=yes", "'yes' is neither true nor false"),
        ("--grpc-max-recv-msg-size=-1", "'-1' is not a size"),
        ("--grpc-max-recv-msg-size=10MBB", "'10MBB' is not a size"),
        ("--grpc-max-recv-msg-size=99999999999999999999", "is not a size"),
        ("--refresh-metrics-interval=1x", "'1x' is not a number of seconds"),
        ("-v=x", "'x' is not a whole number"),
        ("--zap-log-level=loud", "'loud' is not a level"),
        ("--zap-encoder=xml", "invalid choice: 'xml'"),
        ("--grpc-po=1", "--grpc-po=1"),
    ],
)
def test_wrong_values(argument: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["serve", "--pool-name=a", argument])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_help_has_our_own_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    text = capsys.readouterr().out
    usage = text.partition("\n\n")[0]
    assert len(usage.splitlines()) < 5
    ours, _, theirs = text.partition("\nflags of the Go EPP:")
    assert "--pool-name" in ours
    assert "--tracing" not in ours
    assert "--tracing" in theirs
