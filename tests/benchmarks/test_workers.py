"""The benchmark of several processes runs and says what it should say."""

import json
import subprocess

import pytest

from .scripts import run_script


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("workers.py", *arguments)


def test_one_process_and_two_workers_side_by_side() -> None:
    answer = run("--requests", "200", "--rounds", "2", "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert (document["workers"], document["rounds"]) == (2, 2)
    assert len(document["rows"]) == 3
    for row in document["rows"]:
        assert len(row["rounds"]) == 2
        for each in row["rounds"]:
            assert each["one"]["requests"] == pytest.approx(200, abs=row["clients"])
            assert each["several"]["requests"] == pytest.approx(200, abs=row["clients"])
            assert each["one"]["core_us"] == 0
            assert each["several"]["core_us"] > 0
            assert each["several"]["rest_us"] > 0
        assert row["ratio"]["min"] > 0


def test_one_worker_is_nothing_to_compare() -> None:
    answer = run("--workers", "1")
    assert answer.returncode == 2
    expected = "--workers 1: expected at least 2, to be compared with one process\n"
    assert answer.stderr == f"workers.py: {expected}"
