"""The benchmark of the scraping runs and says what it should say."""

import json

from .scripts import run_script


def test_reading_fetching_and_doing_nothing() -> None:
    answer = run_script("scrape.py", "--rounds=1", "--seconds=1", "--endpoints=3", "--json")
    assert answer.returncode == 0, answer.stderr
    document = json.loads(answer.stdout)
    engines = {each["engine"]: each for each in document["pages"]}
    assert engines.keys() == {"vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm", "llamacpp"}
    assert 50_000 < engines["vllm"]["page_bytes"] < 70_000
    for each in engines.values():
        assert each["next_us"]["min"] > 0
        assert each["whole_us"]["min"] > 0
        assert each["first_us"]["min"] > 0
    assert document["fetch_us"]["min"] > 0
    assert document["scrape_us"]["min"] > 0
    assert document["endpoints"] == 3
    assert document["scrapes_per_s"] >= 0
    assert document["idle_share"] > 0
    assert document["idle_share_without"] > 0
