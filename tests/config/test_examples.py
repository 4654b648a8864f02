"""Configurations such as the llm-d router ships: those that need only what there is can be used,
others are refused with the name of what is missing."""

from pathlib import Path

import pytest

from epp.config.absent_plugins import ABSENT
from epp.config.picker_config import PickerConfigError, read_picker_config
from epp.config.plugin_types import OWN_TYPES

_EXAMPLES = Path(__file__).parent / "examples"
_SUMS = {
    "chart-default-plugins": "queue-scorer 2, kv-cache-utilization-scorer 2, prefix-cache-scorer 3",
    "chart-payload-agnostic": "active-request-scorer 1, session-affinity-scorer 1",
    "epp-config": "prefix-cache-scorer 2",
    "epp-estimate-prefix-cache": "prefix-cache-scorer 1, load-aware-scorer 1",
    "integration-all-equal": "queue-scorer 1, kv-cache-utilization-scorer 1,"
    " prefix-cache-scorer 1, lora-affinity-scorer 1",
    "perf-optimized-baseline": "queue-scorer 2, kv-cache-utilization-scorer 2,"
    " prefix-cache-scorer 3, no-hit-lru-scorer 2",
    "perf-random-only": "",
    "perf-random-passthrough": "",
    "sim-epp-config": "prefix-cache-scorer 2",
    "soft-reflective-ceiling": "queue-scorer 2, kv-cache-utilization-scorer 2,"
    " prefix-cache-scorer 3",
}
_MISSING = {
    "chart-latency-predictor": "predicted-latency-producer slo-headroom-tier-filter latency-scorer"
    " latency-slo-admitter",
    "chart-vllm-grpc": "vllmgrpc-parser",
    "dp-epp-config": "data-parallel-profile-handler",
    "epp-burst-prefix-cache": "token-producer burst-prefix-cache-producer",
    "epp-mm-embeddings-cache": "token-producer endpoint-notification-source"
    " mm-embeddings-cache-producer mm-embeddings-cache-scorer precise-prefix-cache-producer",
    "epp-precise-prefix-cache": "token-producer endpoint-notification-source"
    " precise-prefix-cache-producer",
    "pd-epp-config": "prefix-based-pd-decider disagg-profile-handler",
    "pd-topology-epp-config": "prefix-based-pd-decider disagg-profile-handler topology-extractor"
    " topology-affinity-filter topology-affinity-scorer",
    "perf-precise-prefix": "precise-prefix-cache-producer",
    "probabilistic-admitter": "probabilistic-admitter",
    "sim-e-p-d": "always-disagg-multimodal-decider prefix-based-pd-decider disagg-profile-handler",
    "sim-e-pd": "always-disagg-multimodal-decider disagg-profile-handler",
    "sim-epp-gpu": "dcgm-data-source dcgm-extractor",
    "sim-epp-kvcache": "token-producer precise-prefix-cache-producer",
    "sim-epp-no-hit-lru": "precise-prefix-cache-producer",
    "sim-epp-tokenizer-vllm-http": "token-producer precise-prefix-cache-producer",
    "sim-pd": "prefix-based-pd-decider disagg-profile-handler",
    "sim-program-aware": "program-aware-fairness",
}
# What else is wrong in one of them, as a consequence.
_FOLLOWING = ('ttftSource "latencyPredictor"', 'producer "dcgm-extractor"')


def test_every_example_is_known() -> None:
    assert {path.stem for path in _EXAMPLES.iterdir()} == _SUMS.keys() | _MISSING.keys()


@pytest.mark.parametrize("name", _SUMS)
def test_an_example_of_what_there_is_can_be_used(name: str) -> None:
    config = read_picker_config(_EXAMPLES / f"{name}.yaml")
    [profile] = config.new_scheduler().profiles.values()
    found = ", ".join(f"{each.name} {each.weight:g}" for each in profile.scorers)
    assert found == _SUMS[name]


@pytest.mark.parametrize("name", _MISSING)
def test_an_example_of_what_there_is_not_is_refused_with_the_name_of_that(name: str) -> None:
    with pytest.raises(PickerConfigError) as caught:
        read_picker_config(_EXAMPLES / f"{name}.yaml")
    missing = [each for each in caught.value.problems if "this version has no " in each]
    for each, named in zip(missing, _MISSING[name].split(), strict=True):
        assert named in each
    others = set(caught.value.problems) - set(missing)
    assert all(any(text in each for text in _FOLLOWING) for each in others)


def test_nothing_is_said_to_be_missing_that_is_there() -> None:
    assert not ABSENT.keys() & OWN_TYPES.keys()
