"""The benchmark of the pick runs and says what it should say."""

import json
import subprocess

from .scripts import run_script

_LITTLE = ("--rounds", "2", "--requests", "20", "--endpoints", "3", "12", "--body-kb", "1", "20")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("pick.py", *_LITTLE, *arguments)


def test_every_pool_is_measured_with_every_body() -> None:
    answer = run("--json")
    assert answer.returncode == 0, answer.stderr
    costs = json.loads(answer.stdout)["costs"]
    sizes = [(each["endpoints"], each["body_kb"]) for each in costs]
    assert sizes == [(3, 1), (3, 20), (12, 1), (12, 20)]
    for each in costs:
        for step in ("read_us", "decide_us", "least_us"):
            assert 0 < each[step]["min"] <= each[step]["median"] <= each[step]["max"]


def test_people_get_one_table() -> None:
    answer = run()
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[2].startswith("| endpoints | body, KB | read")
    assert len(lines) == 2 + 2 + 4
