"""The figures of routing as a table for people."""

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from epp.simulation.report.numbers import NOTHING, count
from epp.simulation.routing_figures import RoutingFigures
from epp.simulation.table import aligned

__all__ = ["mean_and_margin", "routing_table"]

_STUDENT_95: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom."""

_NORMAL_95: Final = 1.96


def routing_table(figures: Sequence[RoutingFigures]) -> str:
    """Return the figures, a row for each scenario and policy.

    Where there are several seeds, each figure is the mean, with the margin of its 95 % confidence.
    """
    rows: list[tuple[str, ...]] = [
        ("scenario", "policy", "TTFT ms mean", "p50", "p95", "p99", "prefix hits %",
         "output tokens/s", "imbalance", "refused %")
    ]  # fmt: skip
    for name in dict.fromkeys((each.scenario, each.policy) for each in figures):
        runs = [each for each in figures if (each.scenario, each.policy) == name]
        rows.append((*name, *_cells(runs)))
    return "\n".join(aligned(rows))


def mean_and_margin(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the values, NaN left out, and by how much it may be off with a confidence
    of 95 %, by Student's t; NaN for less than two."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan, math.nan
    freedom = len(known) - 1
    if not freedom:
        return known[0], math.nan
    quantile = _STUDENT_95[freedom - 1] if freedom <= len(_STUDENT_95) else _NORMAL_95
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known))
    return float(np.mean(known)), quantile * error


def _cells(runs: Sequence[RoutingFigures]) -> list[str]:
    def cell(of: Callable[[RoutingFigures], float], written: Callable[[float], str]) -> str:
        mean, margin = mean_and_margin([of(run) for run in runs])
        if math.isnan(mean):
            return NOTHING
        return written(mean) if math.isnan(margin) else f"{written(mean)} ± {written(margin)}"

    return [
        cell(lambda run: run.ttft_mean_s, _milliseconds),
        cell(lambda run: run.ttft_p50_s, _milliseconds),
        cell(lambda run: run.ttft_p95_s, _milliseconds),
        cell(lambda run: run.ttft_p99_s, _milliseconds),
        cell(lambda run: 100.0 * run.hit_ratio, "{:.1f}".format),
        cell(lambda run: run.output_tokens_per_s, count),
        cell(lambda run: run.imbalance, "{:.2f}".format),
        cell(lambda run: 100.0 * run.refused_ratio, "{:.1f}".format),
    ]


def _milliseconds(seconds: float) -> str:
    return f"{1000.0 * seconds:,.{1 if seconds < 1 else 0}f}"
