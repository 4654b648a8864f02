"""The tables of a report say what the summaries say."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest

from epp.simulation.report.comparison import compare
from epp.simulation.report.tables import tables_of
from epp.simulation.result import SimulationResult
from epp.simulation.summary import summarise

from .results import busy, made_up, table


def _details(*results: SimulationResult) -> list[ElementTree.Element]:
    (comparison,) = compare(results)
    return list(ElementTree.fromstring(f"<body>{tables_of(comparison)}</body>"))


def _tables(*results: SimulationResult) -> list[ElementTree.Element]:
    return [table for details in _details(*results) for table in details.iter("table")]


def _headlines(of: ElementTree.Element) -> list[str]:
    return [(cell.text or "").replace("\u00a0", " ") for cell in of.findall("thead/tr/th")]


def _rows(of: ElementTree.Element) -> list[list[str | float]]:
    """The cells by row: the number where one is in it, else the text."""
    rows = []
    for row in of.findall("tbody/tr"):
        cells: list[str | float] = []
        for cell in row:
            data = cell.find("data")
            cells.append((cell.text or "") if data is None else float(data.get("value", "")))
        rows.append(cells)
    return rows


def test_numbers_are_numpys_by_policy() -> None:
    result = busy()
    requests = result.requests
    (by_policy, _) = _tables(result)
    assert _headlines(by_policy) == [
        *("policy", "requests", "served", "expired"),
        *("wait p50, s", "wait p90, s", "wait p99, s", "TTFT p50, s", "TTFT p99, s"),
        "Jain's index",
    ]
    waits = requests.dispatched_s - requests.entered_s
    ttfts = requests.first_token_s - requests.arrived_s
    served = int((requests.outcome == result.outcomes.index("served")).sum())
    (row,) = _rows(by_policy)
    assert row[0] == "policy"
    assert row[1:4] == [400, served, 400 - served]
    assert row[4:7] == np.nanpercentile(waits, [50, 90, 99]).tolist()
    assert row[7:9] == np.nanpercentile(ttfts, [50, 99]).tolist()
    assert row[9] == pytest.approx(3**2 / (2 * (1 + 4)))


def test_where_caches_were_hit_the_policies_tell_how_often() -> None:
    some, none = busy(policy="some"), busy(policy="none")
    some.requests.cached_tokens[:] = some.requests.prompt_tokens // 4
    (by_policy, _) = _tables(some, none)
    assert _headlines(by_policy)[-2:] == ["prefix hits", "Jain's index"]
    assert [row[-2] for row in _rows(by_policy)] == [0.25, 0.0]


def test_numbers_are_the_summarys_by_flow() -> None:
    result = busy()
    (_, by_flow) = _tables(result)
    flows = summarise(result).flows
    assert [row[:3] for row in _rows(by_flow)] == [
        ["bob", "10", "policy"],
        ["alice", "0", "policy"],
    ]
    for row, flow in zip(_rows(by_flow), flows, strict=True):
        figures = flow.figures
        assert row[3:5] == [figures.requests, figures.served]
        assert row[6:9] == [figures.wait_s.p50, figures.wait_s.p90, figures.wait_s.p99]
        assert row[-1] == flow.tenant_share


def test_a_flow_is_named_once_beside_the_rows_of_its_policies() -> None:
    (_, by_flow) = _tables(busy(policy="a"), busy(policy="b"))
    rows = _rows(by_flow)
    assert [row[0] for row in rows] == ["bob", "b", "alice", "b"]
    names = [cell for cell in by_flow.iter("th") if cell.get("scope") == "rowgroup"]
    assert [name.get("rowspan") for name in names] == ["2", "2"]


def test_seeds_are_a_median_and_a_range() -> None:
    results = [busy(seed=seed) for seed in (1, 2, 3)]
    (by_policy, _) = _tables(*results)
    served = sorted(summarise(result).total.served for result in results)
    assert _rows(by_policy)[0][2] == served[1]
    cell = by_policy.findall("tbody/tr/td")[1]
    assert cell.findtext("small") == f"{served[0]} – {served[2]}"  # noqa: RUF001
    requests = by_policy.findall("tbody/tr/td")[0]
    assert requests.find("small") is None  # the same in all seeds


def test_outcomes_that_did_not_occur_have_no_column_and_tries_only_with_retries() -> None:
    (by_policy, _) = _tables(made_up(table(tenant=[0], arrived_s=[1.0])))
    assert _headlines(by_policy)[:4] == ["policy", "requests", "served", "wait p50, s"]
    outcomes = ["unfinished", "displaced"]
    requests = table(tenant=[0, 0], arrived_s=[1.0, 2.0], outcomes=outcomes, tries=[1, 2])
    (by_policy, _) = _tables(made_up(requests))
    assert _headlines(by_policy)[2:6] == ["served", "displaced", "unfinished", "mean tries"]
    assert _rows(by_policy)[0][2:6] == [0, 1, 1, 1.5]


def test_what_is_not_known_is_a_dash() -> None:
    requests = table(
        tenant=[0], arrived_s=[1.0], dispatched_s=[math.nan], outcomes=["rejected-capacity"]
    )
    (by_policy, by_flow) = _tables(made_up(requests))
    dash = "–"  # noqa: RUF001
    assert _rows(by_policy) == [["policy", 1, 0, 1, *[dash] * 6]]
    assert _rows(by_flow) == [["alice", "0", "policy", 1, 0, 1, *[dash] * 6]]


def test_a_flow_that_a_policy_did_not_see_is_dashes() -> None:
    (_, by_flow) = _tables(
        made_up(table(tenant=[0], arrived_s=[1.0]), policy="a"), made_up(policy="b")
    )
    assert set(_rows(by_flow)[1][1:]) == {"–"}  # noqa: RUF001


def test_a_long_table_is_folded_away_ends_and_says_so() -> None:
    count = 700
    result = made_up(
        table(tenant=range(count), arrived_s=[float(at) for at in range(count)]),
        tenants=[f"tenant-{number}" for number in range(count)],
    )
    (by_policy, by_flow) = _details(result)
    assert len(list(by_flow.iter("tr"))) == 1 + 600
    assert "(100 more tenants and priorities are not shown)" in (by_flow.findtext("summary") or "")
    assert (by_policy.get("open"), by_flow.get("open")) == ("", None)
