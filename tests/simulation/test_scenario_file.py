from pathlib import Path

import pytest

from epp.core.flow import BandOptions
from epp.core.flow.saturation import ConcurrencyOptions
from epp.errors import UsageError
from epp.simulation.scenario import ClosedLoop, Lognormal, Scenario
from epp.simulation.scenario_file import read_scenario, shipped_scenarios

_GOOD = """
duration_s: 60
tenants:
  - name: a
    weight: 2
    arrivals: {process: closed-loop, clients: 3}
    output_tokens: {distribution: lognormal, mean: 200}
pool:
  - {name: gpu, count: 2, engine: {max_num_seqs: 8}}
flow:
  weights: {b: 3}
  bands: {-10: {min_share: 0.1}}
saturation: {detector: concurrency, max_requests: 8}
"""


def _read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return read_scenario(str(path))


def test_a_file_is_read_and_named_after_itself(tmp_path: Path) -> None:
    scenario = _read(tmp_path, _GOOD)
    assert scenario.name == "own"
    assert scenario.tenants[0].arrivals == ClosedLoop(clients=3)
    assert scenario.tenants[0].output_tokens == Lognormal(mean=200.0)
    assert scenario.flow.bands == {-10: BandOptions(min_share=0.1)}
    assert scenario.saturation == ConcurrencyOptions(max_requests=8)
    assert scenario.weights == {"a": 2.0, "b": 3.0}
    assert _read(tmp_path, f"name: other\n{_GOOD}").name == "other"


def test_those_that_ship_can_all_be_read_by_name() -> None:
    assert set(shipped_scenarios()) == {
        "batch-trickle",
        "heterogeneous-gpus",
        "metrics-outage",
        "noisy-neighbour-output-heavy",
        "noisy-neighbour-prompt-heavy",
        "overload-retry",
        "priority-burst",
        "routing-chat",
        "routing-documents",
        "routing-lora",
        "routing-prefixes",
        "routing-random",
        "scale-from-zero",
        "slow-endpoint",
    }
    for name in shipped_scenarios():
        scenario = read_scenario(name)
        assert scenario.name == name
        assert scenario.description
        assert scenario.tenants


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": 0 YAML documents; expected one, a scenario"),
        ("duration_s: 1\n---\nduration_s: 2", ": 2 YAML documents; expected one, a scenario"),
        ("a: [", ":2:1: not valid YAML"),
        ("duration_s: 0", ":1: duration_s: 0; expected more than 0.0"),
        ("measure_from_s: 600", ": measure_from_s: 600; expected less than duration_s, which is"),
        ("pool: []", ": pool: no group of endpoints; expected at least one"),
        ("pool: [{name: a}, {name: a}]", ": pool[1].name: 'a' is there before; expected a name"),
        (
            "pool: [{name: a, leave_s: 3, join_s: 3}]",
            ": pool[0].leave_s: 3; expected more than join",
        ),
        (
            "pool: [{name: a, engine: {max_num_batched_tokens: 8}}]",
            ": pool[0].engine.max_num_batched_tokens: 8; expected at least max_num_seqs, which is",
        ),
        (
            "pool: [{name: a, engine: {max_model_len: 1}}]",
            ": pool[0].engine: 1 tokens for prompt and output; expected at least 2",
        ),
        ("pool: [{name: a, engine: {max_num_seqs: 0}}]", ": pool[0].engine.max_num_seqs: 0; exp"),
        (
            "pool: [{name: a, engine: {latency: {decode_step_s: 0}}}]",
            ": pool[0].engine.latency.decode_step_s: 0; expected more than 0",
        ),
        (
            "scrapes: {outages: [{from_s: 1, to_s: 2, groups: [gpu]}]}",
            ": scrapes.outages[0].groups: there is no group 'gpu'; expected one of engine",
        ),
        (
            "tenants: [{name: a, arrivals: {process: poisson, rate_per_s: 1},"
            " prompt_tokens: {distribution: uniform, low: 3, high: 2}}]",
            ": tenants[0].prompt_tokens.high: 2; expected at least low, which is 3",
        ),
        (
            "tenants: [{name: a, arrivals: {process: poisson, rate_per_s: 1}, content: {kind:"
            " chat, prefix_tokens: {distribution: uniform, low: 3, high: 2}}}]",
            ": tenants[0].content.prefix_tokens.high: 2; expected at least low, which is 3",
        ),
        (
            "tenants: [{name: a, arrivals: {process: poisson, rate_per_s: 1}, content: {kind:"
            " document, documents: 1, document_tokens: {distribution: uniform, low: 3, high: 2}}}]",
            ": tenants[0].content.document_tokens.high: 2; expected at least low, which is 3",
        ),
        (
            "{tenants: [{name: a, arrivals: {process: poisson, rate_per_s: 1},"
            " adapters: {count: 3}}], pool: [{name: a, engine: {max_loras: 0}}]}",
            ": tenants[0].adapters: 0 slots in an engine; expected at least one, for an adapter",
        ),
        (
            "pool: [{name: a, engine: {latency: {lora_load_s: -1}}}]",
            ": pool[0].engine.latency.lora_load_s: -1; expected at least 0",
        ),
        (
            "routing: [best]",
            ":1: routing[0]: 'best'; expected one of random, round-robin, least-in-flight, ",
        ),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}{problem}")


def test_a_name_or_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no scenario 'nosy'; expected a file, or one of"):
        read_scenario("nosy")
    with pytest.raises(UsageError, match=r"no\.yaml: No such file or directory; expected a scen"):
        read_scenario(str(tmp_path / "no.yaml"))
