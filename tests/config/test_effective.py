"""The effective configuration is one that stands for the same, with an origin for every value."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.config.effective import effective
from epp.config.entries import Entry
from epp.config.picker_config import PickerConfigError, Reading, parse_reading
from epp.config.plugin_types import OWN_TYPES
from epp.config.rendering import as_json, as_yaml

from .support import same

_PROJECT = Path(__file__).parents[2]
_FILES = sorted(
    [*(_PROJECT / "config/picker").iterdir(), *(Path(__file__).parent / "examples").iterdir()]
)

CONFIG = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
plugins:
- type: prefix-cache-scorer
- name: limits
  type: concurrency-detector
  parameters:
    maxConcurrency: 64
    maxConcurrencyByLabel: {big: 128}
    label: size
- type: core-metrics-extractor
  parameters:
    engineConfigs: [{name: mine, queuedRequestsSpec: 'q{a="b"}'}]
schedulingProfiles:
- plugins:
  - pluginRef: decode-filter
  - pluginRef: prefix-cache-scorer
  name: mine
saturationDetector: {pluginRef: limits}
parser: {pluginRef: passthrough-parser}
flowControl:
  maxRequests: 5k
  maxBytes: 0
  defaultRequestTTL: 30s
  priorityBands:
  - {priority: 1, requestTTL: 0s}
  - {priority: -1}
  defaultNegativePriorityBand: {minShare: 0.1}
  fairness:
    weights: {"a b": 2}
    idSources: [{type: header, header: x-a}]
"""


def explained(text: str) -> Entry:
    return effective("c.yaml", parse_reading("c.yaml", text.encode()))


def leaves(entry: Entry, path: str = "") -> dict[str, tuple[object, str]]:
    if isinstance(entry.value, dict) and entry.value:
        nested = [leaves(child, f"{path}.{name}") for name, child in entry.value.items()]
    elif isinstance(entry.value, list) and entry.value:
        nested = [leaves(child, f"{path}[{i}]") for i, child in enumerate(entry.value)]
    else:
        return {path[1:]: (entry.value, entry.origin)}
    return {key: value for each in nested for key, value in each.items()}


@pytest.mark.parametrize("text", ["{}", CONFIG], ids=["nothing", "much"])
def test_read_again_it_stands_for_the_same(text: str) -> None:
    again = parse_reading("again", as_yaml(explained(text)).encode())
    assert same(again.config) == same(parse_reading("c.yaml", text.encode()).config)
    assert as_json(effective("c", again)).keys() == as_json(explained(text)).keys()


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.stem)
def test_so_do_all_examples(path: Path) -> None:
    try:
        reading = parse_reading(path.name, path.read_bytes())
    except PickerConfigError:
        assert path.parent.name == "examples"
        return
    again = parse_reading("again", as_yaml(effective(path.name, reading)).encode())
    assert same(again.config) == same(reading.config)


@pytest.mark.parametrize(
    ("path", "value", "origin"),
    [
        ("apiVersion", "inference.networking.x-k8s.io/v1alpha1", "c.yaml:1"),
        ("kind", "EndpointPickerConfig", "default"),
        ("plugins[0].name", "prefix-cache-scorer", "implied by its type"),
        ("plugins[0].type", "prefix-cache-scorer", "c.yaml:3"),
        ("plugins[0].parameters.matchLengthScaleTokens", 8192, "default"),
        ("plugins[1].name", "limits", "c.yaml:4"),
        ("plugins[1].parameters.maxConcurrency", 64, "c.yaml:7"),
        ("plugins[1].parameters.maxConcurrencyByLabel.big", 128, "c.yaml:8"),
        ("plugins[1].parameters.inFlightLoadProducerName", None, "default"),
        ("plugins[2].parameters.engineConfigs[0].queuedRequestsSpec", 'q{a="b"}', "c.yaml:12"),
        ("plugins[2].parameters.engineConfigs[0].cacheNumBlocksLabelName", "num_gpu_blocks",
         "default"),
        ("plugins[3].type", "approx-prefix-cache-producer", "implied by prefix-cache-scorer"),
        ("plugins[4].type", "decode-filter", "implied by schedulingProfiles"),
        ("schedulingProfiles[0].name", "mine", "c.yaml:17"),
        ("schedulingProfiles[0].plugins[0].pluginRef", "decode-filter", "c.yaml:15"),
        ("schedulingProfiles[0].plugins[1].weight", 1.0, "default"),
        ("schedulingProfiles[0].plugins[2].pluginRef", "max-score-picker",
         "implied, as the profile has no picker"),
        ("dataLayer.sources[0].extractors[0].pluginRef", "core-metrics-extractor", "default"),
        ("requestHandler.parsers[0].pluginRef", "passthrough-parser", "implied by parser"),
        ("flowControl.maxRequests", "5k", "c.yaml:21"),
        ("flowControl.maxBytes", 0, "c.yaml:22"),
        ("flowControl.noEndpointRequestTTL", "30s", "implied by flowControl.defaultRequestTTL"),
        ("flowControl.saturationDetector.pluginRef", "limits", "implied by saturationDetector"),
        ("flowControl.priorityBands[0].requestTTL", "0s", "c.yaml:25"),
        ("flowControl.priorityBands[1].requestTTL", None,
         "that of flowControl.defaultRequestTTL"),
        ("flowControl.priorityBands[1].fairnessPolicyRef", "weighted-fair-fairness-policy",
         "default"),
        ("flowControl.defaultNegativePriorityBand.minShare", 0.1, "c.yaml:27"),
        ("flowControl.defaultPriorityBand.maxBytes", 10**9, "default"),
        ("flowControl.fairness.weights.a b", 2, "c.yaml:29"),
        ("flowControl.fairness.idSources[0].header", "x-a", "c.yaml:30"),
        ("trust.slo", True, "default"),
    ],
)  # fmt: skip
def test_every_value_says_where_it_comes_from(path: str, value: object, origin: str) -> None:
    assert leaves(explained(CONFIG))[path] == (value, origin)


@pytest.mark.parametrize(
    ("text", "path", "value", "origin"),
    [
        ("{}", "schedulingProfiles[0].plugins[0].pluginRef", "first-token-scorer", "default"),
        ("{}", "plugins[0].type", "approx-prefix-cache-producer", "implied by first-token-scorer"),
        ("{}", "plugins[1].type", "first-token-scorer", "implied by the default profile"),
        ("plugins: [{type: queue-scorer}]", "schedulingProfiles[0].plugins[0].pluginRef",
         "queue-scorer", "implied by plugins, as there are no schedulingProfiles"),
        ("plugins: [{type: utilization-detector}]", "flowControl.saturationDetector.pluginRef",
         "utilization-detector", "implied by plugins"),
        ("dataLayer: {injectDefaults: false}", "dataLayer.sources", [], "default"),
        ("dataLayer: {sources: [{pluginRef: metrics-data-source}]}",
         "dataLayer.sources[0].extractors[0].pluginRef", "core-metrics-extractor", "default"),
        ("plugins: [{type: concurrency-detector, parameters: {inFlightLoadProducerName: !x y}}]",
         "plugins[0].parameters.inFlightLoadProducerName", "a value with the YAML tag !x",
         "c.yaml:1"),
        ("plugins: [{type: concurrency-detector, parameters: {inFlightLoadProducerName: [a, 2]}}]",
         "plugins[0].parameters.inFlightLoadProducerName[1]", 2, "c.yaml:1"),
    ],
)  # fmt: skip
def test_what_is_implied_says_by_what(text: str, path: str, value: object, origin: str) -> None:
    assert leaves(explained(text))[path] == (value, origin)


_GOOD = [yaml.safe_load(path.read_text()) for path in _FILES]
_VALUES = [None, "", 0, -1, 1.5, True, [], {}, "x", "5s", [None], {"a": 1}, *OWN_TYPES]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """All containers of a document, each with every key or index of it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        yield value, key
        if isinstance(child, dict | list):
            yield from places(child)


@settings(max_examples=60)
@given(st.data())
def test_whatever_stands_somewhere_is_refused_or_stands_for_the_same_again(
    data: st.DataObject,
) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(_GOOD)))
    container, key = data.draw(st.sampled_from(list(places(document))))
    container[key] = data.draw(st.sampled_from(_VALUES))
    text = json.dumps(document).encode()
    with suppress(PickerConfigError):
        reading = parse_reading("c", text)
        again = parse_reading_again(as_yaml(effective("c", reading)))
        assert same(again.config) == same(reading.config)


def parse_reading_again(text: str) -> Reading:
    try:
        return parse_reading("again", text.encode())
    except PickerConfigError as error:
        raise AssertionError(text) from error


def test_plugins_are_explained() -> None:
    text = as_yaml(explained("{}"))
    assert "    # How many tokens of prompt an engine computes in a second.\n" in text
    assert "# Prefers the endpoint that will probably give the first token soonest" in text
