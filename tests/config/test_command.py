from pathlib import Path

import pytest

from epp.cli import main

CONFIG = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
plugins: [{type: priority-holdback-policy, name: h, parameters: {minCeiling: 0.5}}]
flowControl:
  maxRequests: 100
  maxBytes: 0
  defaultRequestTTL: 90s
  noEndpointRequestTTL: 0s
  enableEviction: true
  usageLimitPolicyPluginRef: h
  saturationDetector: {pluginRef: concurrency-detector}
  defaultNegativePriorityBand: {orderingPolicyRef: edf-ordering-policy}
  priorityBands:
  - {priority: -5, maxWait: 1m, requestTTL: 0s}
  - {priority: 10, minShare: 0.25, fairnessPolicyRef: round-robin-fairness-policy}
  fairness: {idSources: [{type: jwtClaim}, {type: model}]}
"""


def test_a_good_file_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"note: {path}: apiVersion ")
    assert lines[1:] == [
        "profile default: first-token-scorer 1 → max-score-picker",
        "scraping: http, the endpoint's port, /metrics, every 1 s",
        "queue: 100 requests, any number of bytes; waits 90 s, without end while the pool is empty",
        "detector: concurrency",
        "usage limit: priority-holdback",
        "eviction: on",
        "fairness ids from: jwt, model",
        "band 10: round-robin; fcfs; 5,000 requests, 1,000,000,000 bytes; at least 25% of"
        " dispatches",
        "band -5: weighted-fair; fcfs; 5,000 requests, 1,000,000,000 bytes; goes next after 60 s;"
        " waits without end",
        "other bands below 0: weighted-fair; edf; 5,000 requests, 1,000,000,000 bytes",
        "other bands: weighted-fair; fcfs; 5,000 requests, 1,000,000,000 bytes",
    ]


@pytest.mark.parametrize("detector", ["adaptive", "concurrency", "utilization"])
def test_the_detector_is_named(
    detector: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"saturationDetector: {{pluginRef: {detector}-detector}}")
    assert main(["check", str(path)]) == 0
    assert f"detector: {detector}" in capsys.readouterr().out.splitlines()


def test_what_nothing_is_said_of_is_the_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("flowControl: {fairness: {idSources: []}}")
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "detector: the default of epp serve" in lines
    assert "fairness ids from: nowhere" in lines


def test_profiles_and_scraping_are_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("""
plugins:
- type: header-profile-handler
- {type: metrics-data-source, parameters: {scheme: https, port: 9100, path: /m, interval: 500ms}}
requestHandler: {parsers: [{pluginRef: passthrough-parser}]}
schedulingProfiles:
- name: decode
  plugins:
  - {pluginRef: decode-filter}
  - {pluginRef: queue-scorer, weight: 0.5}
  - {pluginRef: kv-cache-utilization-scorer}
- name: any
  plugins: [{pluginRef: random-picker}]
""")
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [
        "profile decode: decode-filter → queue-scorer 0.5 + kv-cache-utilization-scorer 1 →"
        " max-score-picker",
        "profile any: random-picker",
        "scraping: https, port 9100, /m, every 0.5 s",
        "bodies: not looked into",
    ]
    path.write_text("dataLayer: {injectDefaults: false}")
    assert main(["check", str(path)]) == 0
    assert "scraping: off" in capsys.readouterr().out.splitlines()


def test_all_problems_of_a_bad_file_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("plugin: []\nflowControl: {maxRequests: -1}\n")
    assert main(["check", str(path)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    first, second = output.err.splitlines()
    assert first.startswith(f"epp: {path}:1: plugin: unknown field")
    assert second.startswith(f"epp: {path}:2: flowControl.maxRequests: found -1")


def test_a_missing_file_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == f"epp: cannot read {path}: No such file or directory\n"
