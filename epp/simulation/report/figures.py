"""The figures of a report: what is drawn of a comparison, and what is said about it."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
import numpy as np

from epp.simulation.report.axes import (
    linear_axis,
    log_seconds_axis,
    percentile_axis,
    time_axis,
)
from epp.simulation.report.comparison import OTHER, Comparison, Variant
from epp.simulation.report.markup import Markup, shortened
from epp.simulation.report.panel import Curve, draw_panel
from epp.simulation.report.rows import (
    LABEL_LENGTH,
    PERCENTILES,
    Part,
    RangeRow,
    ShareRow,
    draw_ranges,
    draw_shares,
)
from epp.simulation.report.series import Envelope, over_percentiles, over_time, over_values
from epp.simulation.result import Floats, SimulationResult
from epp.simulation.summary import (
    Figures,
    FlowName,
    Percentiles,
    Rows,
    measured_rows,
    times_to_first_token_s,
    waits_s,
)

__all__ = ["Detail", "Figure", "figures_of"]

_OTHERS: Final = "all other tenants"
_Values: TypeAlias = Callable[[SimulationResult, Rows], Floats]
_Series: TypeAlias = Callable[[SimulationResult], Floats]


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """How finely series are drawn: points per curve, and places that tell their values."""

    points: int
    columns: int


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A headline, a note how to read it, a legend of names with their styles, and panels.

    Each panel has a caption. The legend is empty where the captions and rows name everything.
    """

    headline: str
    note: str
    legend: Sequence[tuple[str, str]]
    panels: Sequence[tuple[str, Markup]]


class _Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """A series that a figure draws of each run. One that is no ``scale`` may leave the panel."""

    name: str
    style: str
    of: _Series
    is_stepped: bool = True
    is_scale: bool = True


def figures_of(comparison: Comparison, detail: Detail) -> list[Figure]:
    """Return the figures of one scenario."""
    return [
        _ranges(comparison, "Wait in the queue", lambda figures: figures.wait_s),
        _ranges(comparison, "Time to first token", lambda figures: figures.ttft_s),
        _shares(comparison),
        _service(comparison, detail),
        _queue(comparison, detail),
        _load(comparison, detail),
        _distribution(comparison, detail, "Wait in the queue, all percentiles", waits_s),
        _distribution(
            comparison, detail, "Time to first token, all percentiles", times_to_first_token_s
        ),
    ]


def _ranges(
    comparison: Comparison, headline: str, pick: Callable[[Figures], Percentiles]
) -> Figure:
    """Percentiles by flow: a panel for each, its policies below each other; or all flows in one
    panel where there is one policy."""
    variants, flows = comparison.variants, comparison.drawn_flows
    values = {
        (flow, variant.policy): _percentiles_of(variant, flow, pick)
        for flow in flows
        for variant in variants
    }
    axis = log_seconds_axis(
        "seconds, logarithmic",
        _joined([of for each in values.values() for of in (each.low, each.high)]),
        most_labels=5,
    )

    def row(name: str, label: str, flow: FlowName, variant: Variant) -> RangeRow:
        style = comparison.flow_style(flow)
        return RangeRow(name=name, label=label, style=style, values=values[flow, variant.policy])

    if len(variants) == 1:
        rows = [row(_flow_name(flow), _flow_label(flow), flow, variants[0]) for flow in flows]
        panels = [(variants[0].policy, rows)]
    else:
        panels = [
            (
                _flow_name(flow),
                [
                    row(variant.policy, shortened(variant.policy, LABEL_LENGTH), flow, variant)
                    for variant in variants
                ],
            )
            for flow in flows
        ]
    return Figure(
        headline=headline,
        note="Circle: median. Bar: 90th percentile. Diamond and number: 99th percentile."
        + _seeds_note(comparison, "Marks are medians over the seeds, shades their range."),
        legend=(),
        panels=[
            (caption, draw_ranges(rows, axis, title=f"{headline}: {caption}"))
            for caption, rows in panels
        ],
    )


def _percentiles_of(
    variant: Variant, flow: FlowName, pick: Callable[[Figures], Percentiles]
) -> Envelope:
    runs = []
    for summary in variant.summaries:
        for of_flow in summary.flows:
            if (of_flow.tenant, of_flow.priority) == flow:
                found = pick(of_flow.figures)
                runs.append(np.array([found.p50, found.p90, found.p99]))
    return over_values(np.array(PERCENTILES), runs)


def _shares(comparison: Comparison) -> Figure:
    names = _tenants_drawn(comparison)
    rows = []
    for variant in comparison.variants:
        served = [summary for summary in variant.summaries if not np.isnan(summary.jain)]
        parts = []
        for name, style, members in names:
            shares = [sum(of.shares.get(tenant, 0.0) for tenant in members) for of in served]
            if shares:
                low, high = min(shares), max(shares)
                share = sum(shares) / len(shares)
                parts.append(Part(name=name, style=style, share=share, lowest=low, highest=high))
        jain = sum(summary.jain for summary in served) / max(1, len(served))
        note = f"Jain {jain:.3f}" if served else ""
        rows.append(ShareRow(label=variant.policy, parts=parts, note=note))
    return Figure(
        headline="Shares of the service",
        note="Of the cost served from the end of the warm-up until requests stopped arriving. "
        "Jain's index is 1 when all tenants got the same, which is only to be expected where all "
        "of them always had requests waiting."
        + _seeds_note(comparison, "Both are means over the seeds."),
        legend=[(name, style) for name, style, _ in names],
        panels=[("Part of all service, by policy", draw_shares(rows, title="Shares by policy"))],
    )


def _service(comparison: Comparison, detail: Detail) -> Figure:
    drawn = [
        _Drawn(
            name=name if len(members) == 1 else f"{name}, mean",
            style=style,
            of=_mean_service(members),
            is_stepped=False,
        )
        for name, style, members in _tenants_drawn(comparison)
    ]
    note = "Cost served so far. Tenants that are served equally rise in parallel."
    return _over_time(comparison, detail, ("Service over time", note, "cost"), drawn)


def _mean_service(tenants: Sequence[str]) -> _Series:
    def served(result: SimulationResult) -> Floats:
        timeline = result.timeline
        costs = [timeline.served_cost[name] for name in tenants if name in timeline.served_cost]
        return np.mean(costs, axis=0) if costs else np.full(len(timeline.time_s), np.nan)

    return served


def _queue(comparison: Comparison, detail: Detail) -> Figure:
    def queued(priority: int) -> _Series:
        return lambda result: result.timeline.queued.get(
            priority, np.zeros(len(result.timeline.time_s))
        )

    drawn = [
        _Drawn(
            name=f"priority {priority}",
            style=comparison.priority_style(priority),
            of=queued(priority),
        )
        for priority in comparison.drawn_priorities
    ]
    note = "Requests that wait in the flow control's queue."
    return _over_time(comparison, detail, ("Queue by priority", note, "requests"), drawn)


def _load(comparison: Comparison, detail: Detail) -> Figure:
    drawn = [
        _Drawn(name="limit", style="limit d1", of=lambda run: run.timeline.limit, is_scale=False),
        _Drawn(name="in flight", style="t0 d0", of=lambda run: run.timeline.in_flight),
        _Drawn(
            name="running in the engines", style="t2 d0", of=lambda run: run.timeline.engine_running
        ),
        _Drawn(
            name="waiting in the engines", style="t1 d0", of=lambda run: run.timeline.engine_waiting
        ),
    ]
    note = (
        "Requests that hold capacity, how many may, and what the engines do with them. Those that "
        "wait in an engine are out of reach of priorities and fairness. A limit far above all else "
        "leaves the panel."
    )
    return _over_time(comparison, detail, ("Load of the engines", note, "requests"), drawn)


def _over_time(
    comparison: Comparison, detail: Detail, words: tuple[str, str, str], drawn: Sequence[_Drawn]
) -> Figure:
    """A panel for each policy, with the same axes; ``words`` are headline, note and unit."""
    headline, note, unit = words
    ends_s = [result.timeline.time_s[-1:] for result in comparison.results]
    x_axis = time_axis(_largest(ends_s))
    panels = [
        (variant.policy, [_curve(each, variant, detail.points) for each in drawn])
        for variant in comparison.variants
    ]
    tops = [
        (curve.high, each)
        for _, curves in panels
        for curve, each in zip(curves, drawn, strict=True)
    ]
    largest = _largest([high for high, each in tops if each.is_scale])
    beyond = _largest([high for high, each in tops if not each.is_scale])
    y_axis = linear_axis(unit, beyond if largest < beyond <= 2 * largest else largest)
    events = _events(comparison.results)
    return Figure(
        headline=headline,
        note=note
        + _seeds_note(comparison, "Lines are medians over the seeds, shades the range of all."),
        legend=[(each.name, each.style) for each in drawn],
        panels=[
            (
                policy,
                draw_panel(
                    curves, x_axis, y_axis, f"{headline}: {policy}", detail.columns, events=events
                ),
            )
            for policy, curves in panels
        ],
    )


def _events(results: Sequence[SimulationResult]) -> list[tuple[float, str]]:
    """When the warm-up and the arrivals end, where that is the same in all runs."""
    events = []
    from_s = {result.measure_from_s for result in results}
    to_s = {result.duration_s for result in results}
    if len(from_s) == 1 and max(from_s) > 0:
        events.append((max(from_s), "warm-up ends"))
    if len(to_s) == 1 and max(to_s) < max(result.end_s for result in results):
        events.append((max(to_s), "arrivals end"))
    return events


def _curve(drawn: _Drawn, variant: Variant, points: int) -> Curve:
    runs = [(result.timeline.time_s, drawn.of(result)) for result in variant.results]
    return _as_curve(drawn.name, drawn.style, over_time(runs, points), drawn.is_stepped)


def _distribution(
    comparison: Comparison, detail: Detail, headline: str, values_of: _Values
) -> Figure:
    """All percentiles by flow, a panel for each policy."""
    panels = []
    for variant in comparison.variants:
        rows = [(result, measured_rows(result)) for result in variant.results]
        curves = []
        for flow in comparison.drawn_flows:
            runs = [values_of(result, of[flow]) for result, of in rows if flow in of]
            envelope = over_percentiles(runs, detail.points // 2)
            style = comparison.flow_style(flow)
            curves.append(_as_curve(_flow_name(flow), style, envelope, False))
        panels.append((variant.policy, curves))
    x_axis = percentile_axis()
    y_axis = log_seconds_axis(
        "seconds, logarithmic",
        _joined([of for _, curves in panels for curve in curves for of in (curve.low, curve.high)]),
        most_labels=8,
    )
    return Figure(
        headline=headline,
        note="How long the requests took, from the fastest on the left to the slowest on the "
        "right, where the axis is stretched. Without those that were refused first."
        + _seeds_note(comparison, "Lines are medians over the seeds, shades their range."),
        legend=[(_flow_name(flow), comparison.flow_style(flow)) for flow in comparison.drawn_flows],
        panels=[
            (
                policy,
                draw_panel(curves, x_axis, y_axis, f"{headline}: {policy}", detail.columns),
            )
            for policy, curves in panels
        ],
    )


def _as_curve(name: str, style: str, values: Envelope, is_stepped: bool) -> Curve:
    return Curve(
        name=name,
        style=style,
        x=values.x,
        y=values.middle,
        low=values.low,
        high=values.high,
        is_stepped=is_stepped,
    )


def _tenants_drawn(comparison: Comparison) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is drawn by tenant: name, style, and the tenants that are drawn as this one."""
    drawn = comparison.drawn_tenants
    named: list[tuple[str, str, tuple[str, ...]]] = [
        (tenant, comparison.tenant_style(tenant), (tenant,)) for tenant in drawn
    ]
    others = tuple(tenant for tenant in comparison.tenants if tenant not in drawn)
    return [*named, (_OTHERS, OTHER, others)] if others else named


def _flow_name(flow: FlowName) -> str:
    return f"{flow.tenant}, priority {flow.priority}"


def _flow_label(flow: FlowName) -> str:
    """A short name, which keeps the priority."""
    priority = f", priority {flow.priority}"
    return f"{shortened(flow.tenant, max(4, LABEL_LENGTH - len(priority)))}{priority}"


def _seeds_note(comparison: Comparison, note: str) -> str:
    """The note, where some policy ran with several seeds."""
    several = any(len(variant.results) > 1 for variant in comparison.variants)
    return f" {note}" if several else ""


def _joined(values: Sequence[Floats]) -> Floats:
    return np.concatenate([*values, np.empty(0)])


def _largest(values: Sequence[Floats]) -> float:
    """The largest finite number in all these; 0 where there is none above."""
    every = _joined(values)
    return float(np.max(every, initial=0.0, where=np.isfinite(every)))
