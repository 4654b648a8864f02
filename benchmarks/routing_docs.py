"""The part of docs/routing.md that is generated: tables, and plots as SVG."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from epp.errors import UsageError
from epp.simulation.report.axes import Axis, log_seconds_axis
from epp.simulation.report.markup import Markup, coordinate, tag
from epp.simulation.report.style import style_sheet
from epp.simulation.routing_figures import RoutingFigures
from epp.simulation.routing_table import mean_and_margin

__all__ = ["HIGH", "NORMAL", "WORKLOADS", "Measured", "Setting", "write_docs"]

WORKLOADS: Final = ("prefixes", "chat", "documents", "lora", "random")
NORMAL: Final = "normal"
HIGH: Final = "high"

_DOCS: Final = Path(__file__).parents[1] / "docs"
_PAGE: Final = "routing.md"
_PLOTS: Final = "routing"
_BEGIN: Final = "<!-- What follows is generated: make routing-docs -->"
_END: Final = "<!-- End of what is generated -->"
_SEES_INSIDE: Final = ("oracle", "oracle-hits")
_CLOSE: Final = 1.02

_WIDTH: Final = 760
_LEFT: Final = 130
_TIMES: Final = 400
_HITS_LEFT: Final = _LEFT + _TIMES + 40
_HITS: Final = _WIDTH - _HITS_LEFT - 60
_ROW: Final = 20
_TITLE: Final = 34
_FOOT: Final = 34
_STYLES: Final = {"default": "t0", "reference-default": "t1", "oracle": "t2", "oracle-hits": "t2"}


class Setting(msgspec.Struct, frozen=True):
    """How many endpoints there are, and how much load."""

    endpoints: int
    load: str = NORMAL

    @property
    def name(self) -> str:
        """What it is called."""
        high = ", high load" if self.load == HIGH else ""
        return f"{self.endpoints} endpoint{'s' if self.endpoints > 1 else ''}{high}"


class Measured(msgspec.Struct, frozen=True):
    """One workload under one policy, a run for each seed."""

    workload: str
    setting: Setting
    policy: str
    runs: list[RoutingFigures]

    def figure(self, field: str) -> tuple[float, float]:
        """Return the mean of a figure over the seeds, and its margin."""
        return mean_and_margin([getattr(run, field) for run in self.runs])


class _Row(NamedTuple):
    """A row of a table: what is told, how many of its unit 1 is, and whether less is better."""

    name: str
    field: str
    factor: float
    digits: int
    is_time: bool


_ROWS: Final = (
    _Row("mean TTFT, ms", "ttft_mean_s", 1000.0, 0, True),
    _Row("p95 TTFT, ms", "ttft_p95_s", 1000.0, 0, True),
    _Row("prefix hits, %", "hit_ratio", 100.0, 1, False),
)


def write_docs(measured: Sequence[Measured], docs: Path = _DOCS) -> None:
    """Write what is generated of the page, and its plots. Raises UsageError where the page has no
    place for it."""
    file, plots = docs / _PAGE, docs / _PLOTS
    page = file.read_text(encoding="utf-8")
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    if not begin or not end:
        raise UsageError(f"{_PAGE}: expected the lines {_BEGIN!r} and {_END!r}")
    plots.mkdir(exist_ok=True)
    sections = []
    for setting in dict.fromkeys(each.setting for each in measured):
        of_setting = [each for each in measured if each.setting == setting]
        plot = f"{setting.name.replace(', ', '-').replace(' ', '-')}.svg"
        (plots / plot).write_text(_plot(of_setting), encoding="utf-8")
        sections.append(_section(setting, f"{_PLOTS}/{plot}", of_setting))
    file.write_text("\n\n".join([head + begin, *sections, end + tail]), encoding="utf-8")


def _section(setting: Setting, plot: str, measured: Sequence[Measured]) -> str:
    seeds = len(measured[0].runs)
    requests = sum(run.requests for each in measured for run in each.runs)
    lines = [
        f"### {setting.name.capitalize()}",
        "",
        f"![Time to first token and prefix hits by workload and policy]({plot})",
        "",
        f"{requests:,} requests were measured in all, with {seeds} seeds for each policy.",
        "",
        *_table(measured),
    ]
    return "\n".join(lines)


def _table(measured: Sequence[Measured]) -> Iterator[str]:
    policies = list(dict.fromkeys(each.policy for each in measured))
    yield f"| workload | | {' | '.join(policies)} |"
    yield "| --- | --- |" + " ---: |" * len(policies)
    for workload in dict.fromkeys(each.workload for each in measured):
        found = {each.policy: each for each in measured if each.workload == workload}
        for row in _ROWS:
            if not row.is_time and not any(each.figure(row.field)[0] for each in found.values()):
                continue
            cells = [_cell(found[policy], row, found.values()) for policy in policies]
            yield f"| {workload} | {row.name} | {' | '.join(cells)} |"


def _cell(each: Measured, row: _Row, others: Collection[Measured]) -> str:
    mean, margin = (row.factor * value for value in each.figure(row.field))
    written = f"{mean:,.{row.digits}f}"
    told = written if np.isnan(margin) else f"{written} ± {margin:,.{row.digits}f}"
    refused = each.figure("refused_ratio")[0]
    if row.is_time and refused > 0:
        told += f" ({100 * refused:.0f} % refused)"
    if each.policy in _SEES_INSIDE or not row.is_time:
        return told
    best = min(other.figure(row.field)[0] for other in others if other.policy not in _SEES_INSIDE)
    return f"**{told}**" if each.figure(row.field)[0] <= _CLOSE * best else told


# Plots


def _plot(measured: Sequence[Measured]) -> str:
    values = [each.figure(field)[0] for each in measured for field in ("ttft_mean_s", "ttft_p95_s")]
    axis = log_seconds_axis("time to first token, seconds, logarithmic", np.array(values), 8)
    legend = "time to first token: \u25cf mean, \u25c7 95th percentile"
    pieces = [
        tag("text", legend, x=_LEFT, y=16, class_="tick"),
        tag("text", "prefix hits", x=_HITS_LEFT, y=16, class_="tick"),
    ]
    top = 22.0
    for workload in dict.fromkeys(each.workload for each in measured):
        of_workload = [each for each in measured if each.workload == workload]
        pieces.append(tag("text", workload, x=4, y=top + 18, font_weight="600"))
        top += _TITLE - 8
        pieces.extend(_panel(of_workload, axis, top))
        top += _ROW * len(of_workload) + _FOOT
    name = measured[0].setting.name
    return tag(
        "svg",
        tag("title", f"Time to first token and prefix hits, {name}"),
        tag("style", Markup(style_sheet())),
        tag("rect", x=0, y=0, width=_WIDTH, height=top, style="fill:var(--paper)"),
        *pieces,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_WIDTH} {coordinate(top)}",
        width=_WIDTH,
        height=top,
        role="img",
    )


def _panel(measured: Sequence[Measured], axis: Axis, top: float) -> Iterator[Markup]:
    bottom = top + _ROW * len(measured)
    for tick in axis.ticks:
        x = _LEFT + tick.position * _TIMES
        yield tag(
            "path", d=f"M{coordinate(x)} {coordinate(top)}V{coordinate(bottom)}", class_="rule"
        )
        yield tag("text", tick.label, x=x, y=bottom + 14, class_="tick middle")
    has_hits = any(each.figure("hit_ratio")[0] for each in measured)
    for number, each in enumerate(measured):
        y = top + _ROW * (number + 0.5)
        style = _STYLES.get(each.policy, "other")
        yield tag("text", each.policy, x=_LEFT - 8, y=y + 4, class_="tick end")
        yield tag("g", *_times(each, axis, y), class_=style)
        if has_hits:
            yield tag("g", *_hits(each, y), class_=style)


def _times(each: Measured, axis: Axis, y: float) -> Iterator[Markup]:
    """A circle for the mean, a diamond for the 95th percentile, shades for their margins."""
    marks = [each.figure("ttft_mean_s"), each.figure("ttft_p95_s")]
    (mean, p95) = (_LEFT + _TIMES * axis.place(np.array([value]))[0] for value, _ in marks)
    for value, margin in marks:
        if not np.isnan(margin):
            around = np.array([max(value - margin, 1e-6), value + margin])
            low, high = _LEFT + _TIMES * np.clip(axis.place(around), 0.0, 1.0)
            yield tag(
                "rect", x=low, y=y - 5, width=max(high - low, 0.1), height=10, class_="spread"
            )
    yield tag("path", d=f"M{coordinate(mean)} {coordinate(y)}H{coordinate(p95)}", class_="reach")
    yield tag("circle", cx=mean, cy=y, r=4)
    diamond = f"M{coordinate(p95)} {coordinate(y - 5)}l5 5l-5 5l-5-5z"
    yield tag("path", d=diamond, class_="open")


def _hits(each: Measured, y: float) -> Iterator[Markup]:
    ratio, _ = each.figure("hit_ratio")
    yield tag("rect", x=_HITS_LEFT, y=y - 6, width=_HITS * ratio, height=12, class_="bar")
    yield tag("text", f"{100 * ratio:.1f} %", x=_WIDTH - 4, y=y + 4, class_="tick end")
