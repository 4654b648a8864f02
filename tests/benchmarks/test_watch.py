"""The benchmark of a cluster's events runs and says what it should say."""

import json

from .scripts import run_script


def test_requests_with_and_without_events() -> None:
    answer = run_script(
        "watch.py",
        *("--pods=20", "--events=50", "--rate=50", "--rounds=1", "--duration=0.5", "--probes=2"),
        "--json",
    )
    assert answer.returncode == 0, answer.stderr  # 1 if any request failed
    document = json.loads(answer.stdout)
    for name, events_per_s in (("quiet", 0), ("busy", 50)):
        case = document[name]
        assert case["events_per_s"] == events_per_s
        assert case["requests"] > 0
        assert case["latency_p99_ms"]["min"] >= case["latency_p50_ms"]["min"] > 0
        assert case["epp_cpu_share"]["min"] > 0
    assert document["event_cpu_us"]["max"] > 0
    assert document["staleness_ms"]["min"] > 0
    assert document["events"] > 0
    assert document["missed_events"] == 0
    assert document["memory_after_mib"] > 20
    assert "events True" in answer.stderr
