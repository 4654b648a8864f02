"""The benchmark of routing runs, and writes its page."""

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from benchmarks.routing_docs import HIGH, Measured, Setting, write_docs
from epp.errors import UsageError
from epp.simulation.routing_figures import RoutingFigures

from .scripts import run_script

_PAGE = (
    "# Words\n\n<!-- What follows is generated: make routing-docs -->\nold\n"
    "<!-- End of what is generated -->\n\nMore words.\n"
)


def _run(*arguments: str) -> str:
    answer = run_script("routing.py", "--workload", "lora", "--endpoints", "1", *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_people_get_a_row_for_each_policy() -> None:
    head, *rows = _run("--quick", "--policy", "random", "--policy", "default").splitlines()
    assert head.split()[:3] == ["workload", "policy", "mean"]
    assert [row.split()[:4] for row in rows] == [
        ["lora,", "1", "endpoint", "random"],
        ["lora,", "1", "endpoint", "default"],
    ]


def test_programs_get_every_figure_and_can_give_it_back(tmp_path: Path) -> None:
    arguments = ("--quick", "--policy", "random", "--json")
    written = _run(*arguments, "--seeds", "2")
    (measured,) = json.loads(written)
    assert (measured["workload"], measured["policy"]) == ("lora", "random")
    assert measured["setting"] == {"endpoints": 1, "load": "normal"}
    assert [run["seed"] for run in measured["runs"]] == [1, 2]
    file = tmp_path / "known.json"
    file.write_text(written.replace('"seed": 2', '"seed": 7'))
    (reused,) = json.loads(_run(*arguments, "--reuse", str(file)))
    assert [run["seed"] for run in reused["runs"]] == [1, 7]


def _measured(
    policy: str, ttft_s: float, *, hits: float = 0.5, refused: float = 0.0, workload: str = "chat"
) -> Measured:
    def run(seed: int) -> RoutingFigures:
        return RoutingFigures(
            scenario=workload,
            policy=policy,
            seed=seed,
            requests=1000,
            ttft_mean_s=ttft_s * (1 + seed / 1000),
            ttft_p50_s=ttft_s,
            ttft_p95_s=3 * ttft_s,
            ttft_p99_s=4 * ttft_s,
            hit_ratio=hits,
            output_tokens_per_s=100.0,
            imbalance=1.0,
            refused_ratio=refused,
        )

    return Measured(workload, Setting(16), policy, [run(seed) for seed in (-1, 1)])


def _written(tmp_path: Path, *measured: Measured) -> str:
    page = tmp_path / "routing.md"
    page.write_text(_PAGE)
    write_docs(measured, tmp_path)
    write_docs(measured, tmp_path)
    return page.read_text()


def test_the_page_keeps_its_words_and_gets_tables_with_the_best_in_bold(tmp_path: Path) -> None:
    page = _written(
        tmp_path,
        _measured("random", 0.5),
        _measured("reference-default", 0.101),
        _measured("default", 0.1, refused=0.25),
        _measured("oracle", 0.05),
    )
    assert page.startswith("# Words\n\n<!-- What follows is generated: make routing-docs -->\n\n")
    assert page.endswith("\n\n<!-- End of what is generated -->\n\nMore words.\n")
    assert "old" not in page
    assert "8,000 requests were measured in all, with 2 seeds for each policy." in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows == [
        "| workload | | random | reference-default | default | oracle |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        # Two values that differ by 0.2 % of their mean: 12.706 times 0.1 % is the margin.
        "| chat | mean TTFT, ms | 500 ± 6 | **101 ± 1** | **100 ± 1 (25 % refused)** | 50 ± 1 |",
        "| chat | p95 TTFT, ms | 1,500 ± 0 | **303 ± 0** | **300 ± 0 (25 % refused)** | 150 ± 0 |",
        "| chat | prefix hits, % | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 0.0 |",
    ]


def test_where_there_are_no_hits_nobody_is_told_of_any(tmp_path: Path) -> None:
    page = _written(tmp_path, _measured("default", 0.1, hits=0.0, workload="lora"))
    assert "| lora | mean TTFT, ms |" in page
    assert "prefix hits" not in page.partition("| lora")[2]


def test_plots_are_svg_with_a_row_for_each_policy(tmp_path: Path) -> None:
    high = msgspec.structs.replace(_measured("random", 60.0), setting=Setting(16, HIGH))
    page = _written(tmp_path, _measured("random", 0.5), _measured("default", 0.1), high)
    plots = sorted(path.name for path in (tmp_path / "routing").iterdir())
    assert plots == ["16-endpoints-high-load.svg", "16-endpoints.svg"]
    assert all(f"(routing/{plot})" in page for plot in plots)
    root = ElementTree.parse(tmp_path / "routing" / "16-endpoints.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert {"chat", "random", "default", "50.0 %"} <= set(texts)
    circles = {float(each.get("cx", "nan")) for each in root.iter(f"{space}circle")}
    assert len(circles) == 2
    assert all(130 <= x <= 530 for x in circles)


def test_a_page_without_a_place_for_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "routing.md").write_text("# Words\n")
    with pytest.raises(UsageError, match=r"routing\.md: expected the lines"):
        write_docs([_measured("default", 0.1)], tmp_path)
