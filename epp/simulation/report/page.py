"""The page: what was simulated, then tables and figures for each scenario."""

from collections.abc import Sequence
from typing import Final

from epp import __version__
from epp.simulation.report.comparison import Comparison, compare
from epp.simulation.report.figures import Detail, Figure, figures_of
from epp.simulation.report.markup import Markup, join, tag, text
from epp.simulation.report.numbers import count, duration
from epp.simulation.report.style import style_sheet
from epp.simulation.report.tables import tables_of
from epp.simulation.result import SimulationResult

__all__ = ["page_of"]

_FINEST: Final = Detail(points=160, columns=40)
_COARSEST: Final = Detail(points=40, columns=10)
_FINEST_UP_TO: Final = 6
"""So many panels per figure are drawn as finely as can be; with more each gets less, so that the
page stays below some 2 MB."""


def page_of(results: Sequence[SimulationResult]) -> str:
    """Return the report on these runs as one HTML page that needs nothing else."""
    comparisons = compare(results)
    detail = _detail(sum(len(comparison.variants) for comparison in comparisons))
    name = ", ".join(comparison.scenario for comparison in comparisons)
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width,initial-scale=1">'),
        tag("title", f"Simulation: {name}"),
        tag("style", Markup(style_sheet())),
    )
    body = tag(
        "body",
        tag("h1", f"Simulation: {name}" if len(comparisons) == 1 else "Simulations"),
        _contents(comparisons) if len(comparisons) > 1 else Markup(),
        *(
            _scenario(comparison, f"scenario-{number}", detail, is_only=len(comparisons) == 1)
            for number, comparison in enumerate(comparisons, start=1)
        ),
        tag("footer", f"Made by epp {__version__}."),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _detail(variants: int) -> Detail:
    if variants <= _FINEST_UP_TO:
        return _FINEST
    part = _FINEST_UP_TO / variants
    return Detail(
        points=max(_COARSEST.points, round(part * _FINEST.points)),
        columns=max(_COARSEST.columns, round(part * _FINEST.columns)),
    )


def _contents(comparisons: Sequence[Comparison]) -> Markup:
    links = [
        tag("li", tag("a", comparison.scenario, href=f"#scenario-{number}"))
        for number, comparison in enumerate(comparisons, start=1)
    ]
    return tag("nav", tag("ul", *links))


def _scenario(comparison: Comparison, anchor: str, detail: Detail, *, is_only: bool) -> Markup:
    is_wide = len(comparison.variants) > 1
    return tag(
        "section",
        Markup() if is_only else tag("h2", comparison.scenario),
        _facts(comparison),
        tables_of(comparison),
        tag(
            "div",
            *(_figure(figure, is_wide) for figure in figures_of(comparison, detail)),
            class_="figures",
        ),
        id=anchor,
    )


def _facts(comparison: Comparison) -> Markup:
    """What was simulated."""
    results = comparison.results
    facts = {
        "Policies": ", ".join(variant.policy for variant in comparison.variants),
        "Seeds": ", ".join(str(seed) for seed in sorted({result.seed for result in results})),
        "Requests arrive for": _each(results, "duration_s"),
        "Warm-up, left out of figures": _each(results, "measure_from_s"),
        "Requests in all runs": count(sum(len(result.requests) for result in results)),
        "Tenants": count(len(comparison.tenants)),
    }
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in facts.items()))


def _each(results: Sequence[SimulationResult], field: str) -> str:
    """The durations of the runs, each different one once."""
    return ", ".join(dict.fromkeys(duration(getattr(result, field)) for result in results))


def _figure(figure: Figure, is_wide: bool) -> Markup:
    legend = [tag("li", _swatch(style), text(name)) for name, style in figure.legend]
    panels = [tag("figure", tag("figcaption", caption), svg) for caption, svg in figure.panels]
    return tag(
        "section",
        tag("h3", figure.headline),
        tag("p", figure.note),
        tag("ul", *legend, class_="legend") if legend else Markup(),
        tag("div", *panels, class_="grid"),
        class_="wide" if is_wide else None,
    )


def _swatch(style: str) -> Markup:
    line = tag("path", d="M0 5H28", class_=f"line {style}")
    return tag("svg", line, viewBox="0 0 28 10", aria_hidden="true")
