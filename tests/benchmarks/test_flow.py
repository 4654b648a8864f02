"""The benchmark of the queue runs and says what it should say."""

import json
import subprocess

from .scripts import run_script

_LITTLE = ("--rounds", "2", "--steps", "40", "--burst", "200")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("flow.py", *_LITTLE, *arguments)


def test_every_step_is_measured_at_every_size() -> None:
    answer = run("--queued", "10", "50", "--flows", "1", "7", "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    costs = document["costs"]
    sizes = [(each["queued"], each["flows"]) for each in costs]
    assert sizes == [(10, 1), (10, 7), (50, 1), (50, 7)]
    for each in costs:
        for step in ("enqueue_us", "end_us", "dispatch_us"):
            assert 0 < each[step]["min"] <= each[step]["median"] <= each[step]["max"]
        assert each["bytes_each"] > 0
    assert document["burst"] == 200
    assert document["burst_s"]["min"] > 0
    assert document["idle_cpu_ms"] >= 0


def test_people_get_one_table() -> None:
    answer = run("--queued", "10", "--flows", "3")
    assert answer.returncode == 0, answer.stderr
    table = [line for line in answer.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table] == ["waiting", "-" * 7, "10"]
    assert "A burst of 200" in answer.stdout
    assert "10 waiting requests of 3 flows" in answer.stderr
