import json
from pathlib import Path

import pytest

from epp.cli import main
from epp.simulation.scenario_file import shipped_scenarios

_SCENARIO = """
duration_s: 30
measure_from_s: 10
seeds: 2
policies: [weighted-fair, oracle]
tenants:
  - {name: a, arrivals: {process: closed-loop, clients: 50}, output_tokens: 50}
  - {name: b, arrivals: {process: poisson, rate_per_s: 1}, output_tokens: 50}
pool: [{name: gpu}]
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(_SCENARIO)
    return str(path)


def test_it_runs_what_the_scenario_names_and_prints_tables(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", scenario]) == 0
    out, err = capsys.readouterr()
    tables = out.split("\n\n")
    assert tables[0].startswith("own, weighted-fair: median of 2 seeds [least, most]\ntenant ")
    assert tables[1].startswith("own, oracle: median of 2 seeds")
    assert tables[2].startswith("scenario  policy ")
    assert len(tables) == 3
    assert [line.split(":")[0] for line in err.splitlines()] == [f"{n} of 4" for n in (1, 2, 3, 4)]


def test_the_same_command_prints_the_same(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for _ in range(2):
        main(["simulate", scenario, "--json"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_policies_seeds_and_duration_can_be_chosen(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--policy", "round-robin", "--policy", "configured", "--seeds", "1"]
    assert main(["simulate", scenario, *arguments, "--duration", "15", "--json"]) == 0
    runs = [run["summary"] for run in json.loads(capsys.readouterr().out)]
    assert [(run["policy"], run["seed"]) for run in runs] == [("round-robin", 1), ("configured", 1)]
    assert {(run["duration_s"], run["measure_from_s"]) for run in runs} == {(15.0, 5.0)}


def test_ways_of_routing_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--endpoints", "2", "--load", "0.5", "--duration", "60"]
    ways = ["--routing", "random", "--routing", "oracle"]
    assert main(["simulate", "routing-prefixes", *arguments, *ways]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["scenario", "policy", "TTFT"]
    assert [row.split()[:2] for row in rows] == [
        ["routing-prefixes", "random"],
        ["routing-prefixes", "oracle"],
    ]
    assert main(["simulate", "routing-prefixes", *arguments, "--routing", "oracle", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run["routing"]["policy"] == run["summary"]["policy"] == "oracle"
    assert run["routing"]["hit_ratio"] > 0.5
    # 90 in a second for 16 endpoints, the rate growing all the minute long; 2/7 are left out.
    expected = 90 / 16 * (1 - (2 / 7) ** 2) * 60 / 2
    assert run["routing"]["requests"] == pytest.approx(expected, rel=0.2)


def test_several_scenarios_run_one_after_the_other(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["slow-endpoint", "--seeds", "1", "--policy", "configured", "--duration", "20"]
    assert main(["simulate", scenario, *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith("own, configured\n")
    assert "\n\nslow-endpoint, configured\n" in out
    assert "policy" not in out  # there is nothing to compare


def test_a_trace_runs_on_the_default_pool_or_on_that_of_a_scenario(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "day.csv"
    rows = [f"{number / 2},100,20,tenant-{number % 2},0" for number in range(100)]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens,tenant,priority", *rows]))
    assert main(["simulate", "--trace", str(trace), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)[0]["summary"]
    assert (summary["scenario"], summary["total"]["requests"]) == ("day", 100)
    assert [flow["tenant"] for flow in summary["flows"]] == ["tenant-0", "tenant-1"]
    assert main(["simulate", scenario, "--trace", str(trace), "--seeds", "1", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert [run["summary"]["scenario"] for run in runs] == ["own day", "own day"]
    assert runs[0]["summary"]["total"]["requests"] == 80  # without those of the warm-up


def test_it_writes_a_report(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    assert main(["simulate", scenario, "--seeds", "1", "--report", str(report)]) == 0
    assert "own" in report.read_text()


def test_the_list_has_all_that_ship(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == list(shipped_scenarios())
    assert all(line.startswith("    ") for line in lines[1::2])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "nothing to simulate; expected SCENARIO, --trace FILE, or --list"),
        (["nosy"], "there is no scenario 'nosy'; expected a file, or one of batch-trickle, "),
        (["slow-endpoint", "--report", "/"], "--report /: cannot be written; expected a file in"),
        (["slow-endpoint", "--report", "/no/x.html"], "--report /no/x.html: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"epp: {problem}")


def test_a_scenario_without_tenants_needs_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text("pool: [{name: gpu}]")
    assert main(["simulate", str(path)]) == 2
    assert "there are no tenants; expected some, or --trace FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--seeds", "0"], "'0' is not a whole number of at least 1"),
        (["--duration", "0"], "'0' is not a number of seconds above 0"),
        (["--duration", "long"], "'long' is not a number of seconds above 0"),
        (["--policy", "kind"], "invalid choice: 'kind'"),
        (["--routing", "best"], "invalid choice: 'best'"),
        (["--endpoints", "0"], "'0' is not a whole number of at least 1"),
        (["--load", "-1"], "'-1' is not a number above 0"),
        (["--load", "much"], "'much' is not a number above 0"),
    ],
)
def test_options_are_checked(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["simulate", "slow-endpoint", *arguments])
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err
