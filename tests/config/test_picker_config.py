import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.picker_config import (
    PickerConfig,
    PickerConfigError,
    parse_picker_config,
    read_picker_config,
)
from epp.core.claims import ClaimsOptions
from epp.core.flow import BandOptions, FlowOptions
from epp.core.flow.saturation import AdaptiveOptions, ConcurrencyOptions, UtilizationOptions
from epp.errors import UsageError

from .support import parse, problems, refused

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


# ---- the envelope ----


@pytest.mark.parametrize("text", [HEAD, "{}", HEAD + "plugins: []\nflowControl: {}\n", "plugins:"])
def test_nothing_said_is_the_defaults(text: str) -> None:
    config = parse(text)
    assert config == PickerConfig()
    assert config.flow == FlowOptions()
    assert config.claims == ClaimsOptions()
    assert config.saturation is None


def test_json_is_as_good_as_yaml() -> None:
    document = {"kind": "EndpointPickerConfig", "flowControl": {"maxRequests": "2k"}}
    config = parse_picker_config("c.json", json.dumps(document).encode())
    assert config.flow.limits.max_requests == 2000


def test_the_deprecated_api_version_is_accepted_with_a_note() -> None:
    config = parse("apiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig")
    assert config.notes == (
        "config.yaml: apiVersion inference.networking.x-k8s.io/v1alpha1 is deprecated;"
        " use llm-d.ai/v1alpha1",
    )
    assert parse(HEAD).notes == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "config.yaml: empty; expected an EndpointPickerConfig"),
        ("# x\n", "config.yaml: found 0 documents; expected one EndpointPickerConfig"),
        ("a: 1\n---\nb: 1", "config.yaml: found 2 documents; expected one EndpointPickerConfig"),
        ("- a", "config.yaml:1: found a list; expected a mapping"),
        (
            "apiVersion: llm-d.ai/v1alpha2",
            'config.yaml:1: apiVersion: found "llm-d.ai/v1alpha2"; did you mean'
            ' "llm-d.ai/v1alpha1"?',
        ),
        (
            "kind: InferencePool",
            'config.yaml:1: kind: found "InferencePool"; expected EndpointPickerConfig',
        ),
        ("plugin: []", 'config.yaml:1: plugin: unknown field; did you mean "plugins"?'),
        (
            "plugins: []\nplugins: []",
            "config.yaml:2: plugins: the key stands here again; expected it once",
        ),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, problem: str) -> None:
    assert refused(text) == problem


def test_what_is_no_yaml_is_refused_with_its_place() -> None:
    assert refused("a: 1\nb: [").startswith("config.yaml:3:1: not valid YAML: ")
    with pytest.raises(PickerConfigError, match=r"^c:2: byte 2 is not UTF-8; expected UTF-8 text$"):
        parse_picker_config("c", b"a\n\xff")


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"{}\n#".ljust(4 << 20))
    assert read_picker_config(path) == PickerConfig()
    path.write_bytes(b"{}\n#".ljust((4 << 20) + 1))
    with pytest.raises(PickerConfigError, match=r"c\.yaml: larger than 4194304 bytes"):
        read_picker_config(path)


def test_all_problems_are_told_and_the_error_is_one_line() -> None:
    text = "flowControl:\n  maxRequest: 5\n  priorityBands:\n  - {priority: 1, maxRequests: '-5'}\n"
    found = problems(text)
    assert found == (
        'config.yaml:2: flowControl.maxRequest: unknown field; did you mean "maxRequests"?',
        'config.yaml:4: flowControl.priorityBands[0].maxRequests: found "-5"; expected a quantity'
        ' of at least 0, such as 100, "5k" or "1Gi"',
    )
    assert str(PickerConfigError(found)) == f"{found[0]} (and 1 more)"
    assert str(PickerConfigError(found[:1])) == found[0]


@given(
    st.binary(max_size=200) | st.text(":-[]{}\n abflowControl'\"&*", max_size=60).map(str.encode)
)
def test_any_bytes_are_a_configuration_or_refused(data: bytes) -> None:
    with suppress(PickerConfigError):
        assert isinstance(parse_picker_config("c", data), PickerConfig)


# ---- feature gates ----


@pytest.mark.parametrize(
    "gate", ["flowControl", "flowControl=true", "flowControl=T", "flowControl=1"]
)
def test_flow_control_may_be_switched_on(gate: str) -> None:
    assert parse(f"featureGates: ['{gate}']") == PickerConfig()


def test_a_gate_that_means_nothing_here_is_noted() -> None:
    config = parse("featureGates: ['haPopulateNonLeaderDatastore=false']")
    assert config.notes == (
        "config.yaml: featureGates: haPopulateNonLeaderDatastore means nothing here and is ignored",
    )


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ("flowControl=false", "expected none: flow control is always on here"),
        ("flowControl=0", "expected none: flow control is always on here"),
        ("flowControl=on", 'expected "flowControl", "flowControl=true" or "flowControl=false"'),
        ("flowcontrol", 'did you mean "flowControl"?'),
        ("prefixSharing", "known: flowControl, haPopulateNonLeaderDatastore"),
    ],
)
def test_other_gates_are_refused(gate: str, problem: str) -> None:
    text = f"featureGates:\n- flowControl\n- {gate}\n"
    assert refused(text) == f'config.yaml:3: featureGates[1]: found "{gate}"; {problem}'


# ---- the saturation detector ----


def test_the_detector_is_the_one_that_is_referred_to() -> None:
    config = parse("""
        plugins: [{type: concurrency-detector, name: c, parameters: {maxConcurrency: 7}}]
        flowControl: {saturationDetector: {pluginRef: c}}
        saturationDetector: {pluginRef: utilization-detector}
        """)
    assert config.saturation == ConcurrencyOptions(max_requests=7)


def test_the_deprecated_place_counts_where_the_present_one_is_empty() -> None:
    config = parse("saturationDetector: {pluginRef: concurrency-detector}")
    assert config.saturation == ConcurrencyOptions()
    assert config.notes == (
        "config.yaml: saturationDetector is deprecated; use flowControl.saturationDetector",
    )


def test_a_detector_needs_no_entry() -> None:
    config = parse("flowControl: {saturationDetector: {pluginRef: adaptive-detector}}")
    assert config.saturation == AdaptiveOptions()


def test_a_declared_utilization_detector_is_meant_as_in_the_reference() -> None:
    config = parse("plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 9}}]")
    assert config.saturation == UtilizationOptions(max_waiting=9)
    config = parse("plugins: [{type: utilization-detector, name: other}]")
    assert config.saturation is None


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("flowControl: {saturationDetector: {pluginRef: x}}", "flowControl.saturationDetector"),
        ("saturationDetector: {pluginRef: x}", "saturationDetector"),
    ],
)
def test_a_detector_that_does_not_exist_is_refused(text: str, path: str) -> None:
    assert refused(text) == (
        f'config.yaml:1: {path}.pluginRef: found "x"; known: adaptive-detector,'
        " concurrency-detector, utilization-detector"
    )


# ---- files ----


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("flowControl: {maxRequests: 5}")
    band = BandOptions(max_requests=3)
    config = read_picker_config(path, band=band)
    assert config.flow.limits.max_requests == 5
    assert config.flow.band == band


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^cannot read .*/c\.yaml: No such file or directory$"):
        read_picker_config(tmp_path / "c.yaml")
