import argparse
from pathlib import Path

import pytest
from msgspec.structs import replace

from epp.config.arguments import add_flow_arguments, add_scrape_arguments, picker_config
from epp.config.picker_config import PickerConfig
from epp.config.scrape import ScrapeOptions
from epp.core.flow import BandOptions, FlowLimits
from epp.core.flow.saturation import ConcurrencyOptions, UtilizationOptions
from epp.errors import UsageError

FILE = """
plugins:
- {type: utilization-detector, name: u}
- {type: concurrency-detector, name: c, parameters: {concurrencyMode: hybrid, maxConcurrency: 9}}
flowControl:
  maxRequests: 20
  maxBytes: 2000
  defaultRequestTTL: 20s
  noEndpointRequestTTL: 30s
  rejectHopeless: false
  saturationDetector: {pluginRef: %s}
  defaultPriorityBand: {maxRequests: 3}
  priorityBands: [{priority: 1}]
"""


def config(*arguments: str) -> PickerConfig:
    parser = argparse.ArgumentParser()
    add_flow_arguments(parser)
    add_scrape_arguments(parser)
    return picker_config(parser.parse_args(arguments))


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(FILE % "u")
    return str(path)


def test_nothing_given_is_the_defaults() -> None:
    assert config() == PickerConfig()


def test_a_file_or_a_text(file: str) -> None:
    found = config("--config-file", file)
    assert found.flow.limits.max_requests == 20
    assert found.saturation == UtilizationOptions()
    assert found.notes == (f"{file}: plugins: nothing refers to c, so it does nothing",)
    text = config("--config-text", FILE % "u")
    assert replace(found, notes=()) == replace(text, notes=())


def test_both_are_refused(file: str) -> None:
    with pytest.raises(UsageError, match=r"^found both --config-file and --config-text; expected"):
        config("--config-file", file, "--config-text", "{}")


def test_problems_name_the_file_or_the_option(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: 1")
    with pytest.raises(UsageError, match=rf"^{path}:1: a: unknown field"):
        config("--config-file", str(path))
    with pytest.raises(UsageError, match=r"^--config-text:1: a: unknown field"):
        config("--config-text", "a: 1")
    with pytest.raises(UsageError, match=r"^--config-text: empty"):
        config("--config-text", "")


@pytest.mark.parametrize("with_file", [False, True])
@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--max-queued-requests", "7"], "max_requests", 7),
        (["--max-queued-bytes", "7"], "max_bytes", 7),
        (["--request-ttl", "7.5"], "wait_limit_s", 7.5),
        (["--request-ttl", "0"], "wait_limit_s", None),
        (["--no-endpoint-ttl", "7"], "no_endpoint_wait_limit_s", 7),
        (["--no-endpoint-ttl", "0s"], "no_endpoint_wait_limit_s", None),
        (["--reject-hopeless"], "reject_hopeless", True),
        (["--no-reject-hopeless"], "reject_hopeless", False),
    ],
)
def test_an_option_wins_and_the_rest_stays(
    arguments: list[str], field: str, value: object, with_file: bool, file: str
) -> None:
    before = ["--config-file", file] if with_file else []
    expected = config(*before).flow.limits
    found = config(*before, *arguments).flow.limits
    assert getattr(found, field) == value
    for other in FlowLimits.__struct_fields__:
        if other != field:
            assert getattr(found, other) == getattr(expected, other)


def test_bounds_of_the_queue_hold_for_bands_that_name_none(file: str) -> None:
    given = ["--max-queued-requests", "50000", "--max-queued-bytes", "7"]
    assert config(*given).flow.band == BandOptions(max_requests=50_000, max_bytes=7)
    found = config("--config-file", file, *given).flow
    assert found.band == BandOptions(max_requests=3, max_bytes=7)
    assert found.bands[1] == BandOptions(max_requests=50_000, max_bytes=7)


def test_a_fixed_concurrency_wins_over_the_detector(file: str) -> None:
    given = ["--max-concurrency", "4"]
    assert config(*given).saturation == ConcurrencyOptions(max_requests=4)
    found = config("--config-file", file, *given).saturation
    assert found == ConcurrencyOptions(max_requests=4)
    found = config("--config-text", FILE % "c", *given).saturation
    assert found == ConcurrencyOptions(max_requests=4, max_tokens=1_000_000)


SOURCE = """
plugins: [{type: metrics-data-source, parameters: {scheme: https, path: /m, interval: 2s}}]
"""


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--metrics-scrape-interval", "4"], {"interval_s": 4, "idle_interval_s": 20,
         "busy_interval_s": 1}),
        (["--metrics-scrape-interval", "0.05s"], {"interval_s": 0.05, "idle_interval_s": 0.25,
         "busy_interval_s": 0.05}),
        (["--metrics-scrape-path", "/other"], {"path": "/other"}),
        (["--metrics-scrape-scheme", "http"], {"scheme": "http"}),
        (["--scrape"], {}),
    ],
)  # fmt: skip
def test_an_option_wins_over_the_data_layer(
    arguments: list[str], changed: dict[str, object]
) -> None:
    configured = config("--config-text", SOURCE).scrape
    assert configured is not None
    found = config("--config-text", SOURCE, *arguments).scrape
    assert found == replace(configured, **changed)
    assert config(*arguments).scrape == replace(ScrapeOptions(), **changed)


def test_scraping_is_switched_on_and_off() -> None:
    off = "dataLayer: {injectDefaults: false}"
    assert config("--config-text", off).scrape is None
    assert config("--config-text", off, "--metrics-scrape-interval", "4").scrape is None
    assert config("--config-text", off, "--scrape").scrape == ScrapeOptions()
    assert config("--config-text", SOURCE, "--no-scrape").scrape is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--metrics-scrape-interval", "0.04"], "'0.04' is less than 0.05 seconds"),
        (["--metrics-scrape-interval", "x"], "'x' is not a number of seconds"),
        (["--metrics-scrape-path", "x"], "'x' is not a path that begins with /"),
        (["--metrics-scrape-path", "/x y"], "'/x y' is not a path that begins with /"),
    ],
)
def test_wrong_options_of_scraping(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        config(*arguments)
    assert problem in capsys.readouterr().err
