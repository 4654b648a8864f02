"""The benchmark of the prefix index runs and says what it should say."""

import json
import subprocess

from .scripts import run_script

_LITTLE = ("--calls", "50", "--memory-blocks", "2000", "--full-blocks", "20000")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_script("prefix.py", *_LITTLE, *arguments)


def test_every_call_is_measured_at_every_size() -> None:
    answer = run("--lengths", "4", "60", "--endpoints", "3", "12", "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    sizes = [(each["endpoints"], each["blocks"]) for each in document["lookups"]]
    assert sizes == [(3, 4), (3, 60), (12, 4), (12, 60)]
    full = document["full"]
    lookups = ("match", "column", "record_again", "record_new")
    timed = [each[call] for each in document["lookups"] for call in lookups]
    timed += [full[call] for call in ("match", "column", "record", "clear", "record_after_clear")]
    for times in timed:
        assert 0 < times["median"] <= times["p99"] <= times["max"]
    assert len(document["memories"]) == 3
    for each in document["memories"]:
        assert each["blocks"] >= 2000
        assert 0 < each["bytes_per_block"] <= each["bytes_per_holding"]
    assert 0 < full["blocks"] <= 20_000
    assert 0 < full["holdings"] <= 2_000


def test_people_get_two_tables() -> None:
    answer = run("--lengths", "4", "--endpoints", "3")
    assert answer.returncode == 0, answer.stderr
    table = [line for line in answer.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in table[:3:2]] == ["endpoints", "3"]
    assert table[3].split("|")[1].strip() == "prompts"
    assert "clear of an endpoint" in answer.stdout
    assert "prompts of 4 blocks at 3 endpoints" in answer.stderr
