"""The figures of simulations as text: tables for people, JSON for programs."""

import math
from collections.abc import Callable, Sequence, Set
from typing import Any

import msgspec
import numpy as np

from epp.simulation.backlog import evenness
from epp.simulation.report.numbers import NOTHING, percent, seconds
from epp.simulation.result import SERVED
from epp.simulation.routing_figures import RoutingFigures
from epp.simulation.summary import FlowName, FlowSummary, Summary

__all__ = ["Run", "aligned", "comparison_table", "flow_table", "to_json"]

_ORACLE = "oracle"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one run.

    ``weights`` are those of the tenants, where they are not 1; ``backlogged`` are the flows that
    always had something waiting; ``served_within_3_tries`` is a part of all requests. ``routing``
    is known where the scenario is about that.
    """

    summary: Summary
    weights: dict[str, float]
    backlogged: tuple[FlowName, ...]
    served_within_3_tries: float
    routing: RoutingFigures | None = None


def flow_table(runs: Sequence[Run]) -> str:
    """Return the figures of one scenario under one policy, by tenant and priority.

    Where there are several seeds, each figure is the median, with the least and the most.
    """
    first = runs[0].summary
    title = f"{first.scenario}, {first.policy}"
    if len(runs) > 1:
        title += f": median of {len(runs)} seeds [least, most]"
    rows: list[tuple[str, ...]] = [
        ("tenant", "priority", "requests", "served", "refused", "wait s p50", "p99", "TTFT s p50",
         "p99", "service")
    ]  # fmt: skip
    for name in dict.fromkeys((f.tenant, f.priority) for run in runs for f in run.summary.flows):
        flows = [f for run in runs for f in run.summary.flows if (f.tenant, f.priority) == name]
        rows.append((name[0], str(name[1]), *_figures(flows)))
    jain = _spread([run.summary.jain for run in runs], _fraction)
    lines = [title, *aligned(rows), f"Jain's index over the tenants: {jain}"]
    if any(run.summary.total.most_tries > 1 for run in runs):
        within = _spread([run.served_within_3_tries for run in runs], percent)
        most = _spread([run.summary.total.most_tries for run in runs], _whole)
        lines.append(f"Served within 3 tries: {within}; most tries: {most}")
    return "\n".join(lines)


def comparison_table(runs: Sequence[Run]) -> str:
    """Return how the policies of each scenario compare: how evenly those were served that always
    had something waiting, under every policy, and how long the others waited, also as multiples of
    the oracle's wait."""
    rows: list[tuple[str, ...]] = [
        ("scenario", "policy", "least/most service", "Jain's index", "tenant", "wait s p99",
         "by oracle's")
    ]  # fmt: skip
    for scenario in dict.fromkeys(run.summary.scenario for run in runs):
        of_scenario = [run for run in runs if run.summary.scenario == scenario]
        oracle = {r.summary.seed: r for r in of_scenario if r.summary.policy == _ORACLE}
        backlogged = set(of_scenario[0].backlogged).intersection(
            *(r.backlogged for r in of_scenario)
        )
        for policy in dict.fromkeys(run.summary.policy for run in of_scenario):
            variant = [run for run in of_scenario if run.summary.policy == policy]
            even = [evenness(run.summary.service, run.weights, backlogged) for run in variant]
            shares = [_spread(values, _fraction) for values in zip(*even, strict=True)]
            for flow in _others(of_scenario, backlogged):
                waits = [_p99_s(run, flow) for run in variant]
                multiples = [
                    wait / _p99_s(oracle[run.summary.seed], flow)
                    for wait, run in zip(waits, variant, strict=True)
                    if run.summary.seed in oracle
                ]
                rows.append(
                    (scenario, policy, *shares, flow.tenant, _spread(waits, seconds),
                     _spread(multiples, "{:.2f}".format))
                )  # fmt: skip
    return "\n".join(aligned(rows))


def to_json(runs: Sequence[Run]) -> str:
    """Return the figures of all runs as JSON: a list, in order; null for what is not known."""
    return msgspec.json.encode(_without_nan(msgspec.to_builtins(runs, str_keys=True))).decode()


def _figures(flows: Sequence[FlowSummary]) -> list[str]:
    figures = [flow.figures for flow in flows]
    refused: dict[str, list[int]] = {}
    for outcome in dict.fromkeys(name for each in figures for name in each.outcomes):
        if outcome != SERVED:
            refused[outcome] = [each.outcomes.get(outcome, 0) for each in figures]
    return [
        _spread([each.requests for each in figures], _whole),
        _spread([each.served for each in figures], _whole),
        "; ".join(f"{name} {_spread(n, _whole)}" for name, n in refused.items()) or NOTHING,
        _spread([each.wait_s.p50 for each in figures], seconds),
        _spread([each.wait_s.p99 for each in figures], seconds),
        _spread([each.ttft_s.p50 for each in figures], seconds),
        _spread([each.ttft_s.p99 for each in figures], seconds),
        _spread([flow.tenant_share for flow in flows], percent),
    ]


def _others(runs: Sequence[Run], backlogged: Set[FlowName]) -> list[FlowName]:
    """Return the flows that are not backlogged, or all where there is no other."""
    flows = [FlowName(f.tenant, f.priority) for run in runs for f in run.summary.flows]
    flows = list(dict.fromkeys(flows))
    return [flow for flow in flows if flow not in backlogged] or flows


def _p99_s(run: Run, wanted: FlowName) -> float:
    for flow in run.summary.flows:
        if (flow.tenant, flow.priority) == wanted:
            return flow.figures.wait_s.p99
    return math.nan


def _fraction(value: float) -> str:
    return f"{value:.3f}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _spread(values: Sequence[float], written: Callable[[float], str]) -> str:
    """Return the median, with the least and the most where they are not all the same."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return NOTHING
    least, most = written(min(known)), written(max(known))
    median = written(float(np.median(known)))
    return median if least == most else f"{median} [{least}, {most}]"


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table whose columns are aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
