"""The benchmark runs and says what it should say. What the figures are is not tested."""

import json
import subprocess

import pytest

from .scripts import run_script

_SCENARIOS = ["small", "small-duplex", "chat", "large-duplex", "stream", "contended"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("load.py", *arguments)


def test_every_scenario_gives_figures_and_no_request_fails() -> None:
    answer = run("--clients", "2", "--requests", "2", "--rounds", "2", "--json")
    assert answer.returncode == 0, answer.stderr  # 1 if any request failed
    document = json.loads(answer.stdout)

    machine = document["machine"]
    assert machine["cpu_model"]
    assert machine["cores"] >= 1
    assert "1.40.0" in machine["envoy"]
    assert {"grpcio", "uvloop"} <= machine["packages"].keys()
    settings = document["settings"]
    assert (settings["clients"], settings["requests"], settings["rounds"]) == ([2], 2, 2)

    results = document["results"]
    assert [result["scenario"] for result in results] == _SCENARIOS
    for result in results:
        assert len(result["rounds"]) == 2
        for each in result["rounds"]:
            assert (each["off"]["requests"], each["on"]["requests"]) == (2, 2)
        for spread in result["summary"].values():
            assert spread["min"] <= spread["median"] <= spread["max"]
        assert result["summary"]["requests_per_s_on"]["min"] > 0
        # Request and response each have headers and an end at the least.
        assert result["summary"]["ext_proc_messages"]["min"] >= 3
    assert [cost["clients"] for cost in document["event_costs"]] == [2]
    assert results[-1]["summary"]["queued_share"]["max"] > 0  # it was contended indeed


def test_without_json_there_is_a_table() -> None:
    answer = run("--clients", "1", "--requests", "1", "--rounds", "1", "--scenario", "small")
    assert answer.returncode == 0, answer.stderr
    assert "| small" in answer.stdout
    assert "small, clients 1, round 1 of 1" in answer.stderr


def test_what_cannot_be_measured_is_said_in_one_line() -> None:
    answer = run("--clients", "1", "--scenario", "contended")
    assert answer.returncode == 2
    assert answer.stderr == "load.py: --clients 1: with one client nothing waits; expected more\n"


@pytest.mark.parametrize("arguments", [["--clients", "0"], ["--duration", "-1"]])
def test_wrong_numbers_are_refused(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2
