"""The tables of a report: one row per policy, and one per tenant, priority and policy."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from epp.simulation.report.comparison import Comparison
from epp.simulation.report.markup import Markup, join, tag
from epp.simulation.report.numbers import NOTHING, count, percent, seconds
from epp.simulation.result import OUTCOMES, SERVED
from epp.simulation.routing_figures import routing_figures
from epp.simulation.summary import Figures, FlowName

__all__ = ["tables_of"]

_MOST_ROWS: Final = 600
_MOST_ROWS_OPEN: Final = 60
_NAMES: Final = frozenset({"tenant", "policy"})

_Format: TypeAlias = Callable[[float], str]


class _Column(NamedTuple):
    """A column of numbers: its headline, what it shows of a set of requests, and how."""

    headline: str
    of: Callable[[Figures], float]
    show: _Format


def tables_of(comparison: Comparison) -> Markup:
    """Return the tables of one scenario.

    A cell holds the median over the seeds and below it their range; the element ``data`` has the
    number itself.
    """
    columns = _columns(comparison)
    return join(_by_policy(comparison, columns), _by_flow(comparison, columns))


def _columns(comparison: Comparison) -> list[_Column]:
    """Counts, with those outcomes that occurred, then times."""
    totals = [summary.total for of in comparison.variants for summary in of.summaries]
    occurred = {outcome for total in totals for outcome in total.outcomes}
    known = [outcome for outcome in OUTCOMES if outcome != SERVED and outcome in occurred]
    columns = [
        _Column("requests", lambda figures: figures.requests, count),
        _Column(SERVED, lambda figures: figures.served, count),
        *(_Column(outcome, _counter(outcome), count) for outcome in known),
    ]
    if any(total.most_tries > 1 for total in totals):
        columns.append(_Column("mean tries", lambda figures: figures.mean_tries, seconds))
    return [
        *columns,
        _Column("wait p50,\u00a0s", lambda figures: figures.wait_s.p50, seconds),
        _Column("wait p90,\u00a0s", lambda figures: figures.wait_s.p90, seconds),
        _Column("wait p99,\u00a0s", lambda figures: figures.wait_s.p99, seconds),
        _Column("TTFT p50,\u00a0s", lambda figures: figures.ttft_s.p50, seconds),
        _Column("TTFT p99,\u00a0s", lambda figures: figures.ttft_s.p99, seconds),
    ]


def _counter(outcome: str) -> Callable[[Figures], float]:
    return lambda figures: figures.outcomes.get(outcome, 0)


def _by_policy(comparison: Comparison, columns: Sequence[_Column]) -> Markup:
    rows = []
    has_hits = any(result.requests.cached_tokens.any() for result in comparison.results)
    for variant in comparison.variants:
        cells = [
            _cell([column.of(summary.total) for summary in variant.summaries], column.show)
            for column in columns
        ]
        if has_hits:
            hits = [routing_figures(result).hit_ratio for result in variant.results]
            cells.append(_cell(hits, percent))
        jain = _cell([summary.jain for summary in variant.summaries], lambda value: f"{value:.3f}")
        rows.append(tag("tr", _name(variant.policy), *cells, jain))
    headlines = ["policy", *(column.headline for column in columns)]
    headlines += ["prefix hits", "Jain's index"] if has_hits else ["Jain's index"]
    return _table("All requests, by policy", headlines, rows)


def _by_flow(comparison: Comparison, columns: Sequence[_Column]) -> Markup:
    shown = max(1, _MOST_ROWS // len(comparison.variants))
    rows = []
    for flow in comparison.flows[:shown]:
        for number, variant in enumerate(comparison.variants):
            summaries = [
                of
                for summary in variant.summaries
                for of in summary.flows
                if (of.tenant, of.priority) == flow
            ]
            cells = [
                _cell([column.of(summary.figures) for summary in summaries], column.show)
                for column in columns
            ]
            share = _cell([summary.tenant_share for summary in summaries], _hundredths)
            names = _flow_names(flow, len(comparison.variants)) if number == 0 else ()
            style = "group" if number == 0 else None
            rows.append(tag("tr", *names, _name(variant.policy), *cells, share, class_=style))
    headlines = [
        "tenant",
        "priority",
        "policy",
        *(column.headline for column in columns),
        "share of service,\u00a0%",
    ]
    hidden = len(comparison.flows) - shown
    caption = "By tenant, priority and policy"
    if hidden > 0:
        caption += f" ({count(hidden)} more tenants and priorities are not shown)"
    return _table(caption, headlines, rows)


def _table(caption: str, headlines: Sequence[str], rows: Sequence[Markup]) -> Markup:
    """A table in a box that scrolls sideways, folded away if it is long."""
    head = [
        tag("th", headline, scope="col", class_="name" if headline in _NAMES else None)
        for headline in headlines
    ]
    table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
    return tag(
        "details",
        tag("summary", caption),
        tag("div", table, class_="scroll", tabindex="0"),
        open="" if len(rows) <= _MOST_ROWS_OPEN else None,
    )


def _flow_names(flow: FlowName, rows: int) -> tuple[Markup, Markup]:
    """The cells that name a flow, beside the rows of all its policies."""
    return (
        tag("th", flow.tenant, scope="rowgroup", rowspan=rows, class_="name"),
        tag("td", str(flow.priority), rowspan=rows),
    )


def _name(name: str) -> Markup:
    return tag("th", name, scope="row", class_="name")


def _hundredths(ratio: float) -> str:
    return f"{100 * ratio:.1f}"


def _cell(values: Sequence[float], show: _Format) -> Markup:
    """The median of what is known, and the range where it can be told from that."""
    known = [float(value) for value in values if np.isfinite(value)]
    if not known:
        return tag("td", NOTHING)
    middle = float(np.median(known))
    number = tag("data", show(middle), value=repr(middle))
    low, high = show(min(known)), show(max(known))
    if low == high:
        return tag("td", number)
    return tag("td", number, tag("small", f"{low} – {high}"))  # noqa: RUF001
