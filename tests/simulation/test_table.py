import json
import math

import msgspec
import pytest

from epp.simulation.summary import (
    Figures,
    FlowName,
    FlowSummary,
    Percentiles,
    Summary,
)
from epp.simulation.table import Run, comparison_table, flow_table, to_json


def _percentiles(p99: float) -> Percentiles:
    return Percentiles(count=9, p50=p99 / 4, p90=p99 / 2, p99=p99)


def _flow(tenant: str, p99_s: float, share: float, refused: int = 0) -> FlowSummary:
    outcomes = {"served": 10} | ({"expired": refused} if refused else {})
    figures = Figures(
        requests=10 + refused,
        outcomes=outcomes,
        wait_s=_percentiles(p99_s),
        ttft_s=_percentiles(p99_s + 1.0),
        mean_tries=1.0,
        most_tries=1,
    )
    return FlowSummary(tenant=tenant, priority=0, figures=figures, tenant_share=share)


def _run(policy: str, seed: int, wait_s: float, heavy: float, refused: int = 0) -> Run:
    light = _flow("light", wait_s, 0.2, refused)
    flows = (_flow("a", 50.0, heavy), _flow("b", 40.0, 0.4), light)
    summary = Summary(
        scenario="s",
        policy=policy,
        seed=seed,
        duration_s=10.0,
        measure_from_s=0.0,
        total=light.figures,
        flows=flows,
        service={"a": heavy, "b": 0.4, "light": 0.2},
        shares={},
        jain=0.9,
    )
    names = [FlowName("a", 0), FlowName("b", 0)]
    names += [FlowName("light", 0)] if policy == "bad" else []
    return Run(
        summary=summary, weights={"b": 2.0}, backlogged=tuple(names), served_within_3_tries=0.5
    )


def test_the_figures_of_one_run_stand_as_they_are() -> None:
    table = flow_table([_run("fair", 1, 0.5, 0.2)])
    assert table.replace("\u2013", "-").splitlines() == [
        "s, fair",
        "tenant  priority  requests  served  refused  wait s p50  p99    TTFT s p50  p99   service",
        "a       0         10        10      -        12.5        50.0   12.8        51.0  20.0 %",
        "b       0         10        10      -        10.0        40.0   10.2        41.0  40.0 %",
        "light   0         10        10      -        0.125       0.500  0.375       1.50  20.0 %",
        "Jain's index over the tenants: 0.900",
    ]


def test_several_seeds_have_their_median_and_their_range() -> None:
    runs = [
        _run("fair", seed, wait_s, 0.2, seed) for seed, wait_s in ((1, 2.0), (2, 8.0), (3, 4.0))
    ]
    lines = flow_table(runs).splitlines()
    assert lines[0] == "s, fair: median of 3 seeds [least, most]"
    assert "12 [11, 13]" in lines[4]
    assert "expired 2 [1, 3]" in lines[4]
    assert "4.00 [2.00, 8.00]" in lines[4]


def test_tries_are_told_where_there_were_several() -> None:
    run = _run("fair", 1, 0.5, 0.2)
    total = msgspec.structs.replace(run.summary.total, most_tries=4)
    summary = msgspec.structs.replace(run.summary, total=total)
    lines = flow_table([msgspec.structs.replace(run, summary=summary)]).splitlines()
    assert lines[-1] == "Served within 3 tries: 50.0 %; most tries: 4"


def test_policies_are_compared_over_those_that_are_backlogged_under_all() -> None:
    runs = [
        _run("fair", 1, 0.5, 0.2),
        _run("fair", 2, 0.9, 0.18),
        _run("bad", 1, 5.0, 0.8),
        _run("oracle", 1, 0.5, 0.2),
        _run("oracle", 2, 0.3, 0.2),
    ]
    assert comparison_table(runs).splitlines() == [
        "scenario  policy  least/most service    Jain's index          tenant  wait s p99"
        "            by oracle's",
        "s         fair    0.950 [0.900, 1.000]  0.999 [0.997, 1.000]  light   0.700 [0.500, 0.900]"
        "  2.00 [1.00, 3.00]",
        "s         bad     0.250                 0.735                 light   5.00                "
        "  10.00",
        "s         oracle  1.000                 1.000                 light   0.400 [0.300, 0.500]"
        "  1.00",
    ]


def test_without_a_light_tenant_all_are_shown_and_without_an_oracle_no_multiples() -> None:
    runs = [_run("fair", 1, 0.5, 0.2), _run("bad", 1, 5.0, 0.8)]
    everybody = tuple(FlowName(name, 0) for name in ("a", "b", "light"))
    runs = [msgspec.structs.replace(run, backlogged=everybody) for run in runs]
    lines = comparison_table(runs).splitlines()
    assert [line.split()[4] for line in lines[1:]] == ["a", "b", "light"] * 2
    assert all(line.endswith("\u2013") for line in lines[1:])


def test_json_has_null_for_what_is_not_known() -> None:
    run = _run("fair", 1, 0.5, math.nan)
    read = json.loads(to_json([run]))
    assert read[0]["summary"]["flows"][0]["tenant_share"] is None
    assert read[0]["summary"]["flows"][1]["tenant_share"] == pytest.approx(0.4)
    assert read[0]["backlogged"] == [["a", 0], ["b", 0]]
