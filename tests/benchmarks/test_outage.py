"""The benchmark of an outage of the API server runs and says what it should say."""

import json

from .scripts import run_script


def test_traffic_without_an_api_server() -> None:
    answer = run_script(
        "outage.py",
        *("--pods=10", "--changed=4", "--rate=20", "--outage=2", "--beside=0.5", "--json"),
    )
    assert answer.returncode == 0, answer.stderr  # 1 if any request failed
    document = json.loads(answer.stdout)
    assert [phase["name"] for phase in document["phases"]] == ["before", "away", "after"]
    assert all(phase["requests"] > 0 and not phase["failed"] for phase in document["phases"])
    assert document["phases"][1]["staleness_s"] >= 2
    assert document["caught_up_s"] > 0
    # What was missed comes by watches: nothing is listed again, only looked whether that will do.
    assert {"look 200", "watch 200"} <= document["asked"].keys()
    assert not any(kind.startswith("list") for kind in document["asked"])
