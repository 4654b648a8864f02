"""The look of the page, for light and dark screens and for paper.

Curves are told apart by colour and stroke. The colours are chosen so that any two of a set differ
clearly also for those who see no red, no green or no blue, and each stands out from the page with a
contrast of 3 to 1 or more; a test measures both.
"""

from collections.abc import Mapping
from typing import Final

__all__ = ["DARK", "LIGHT", "style_sheet"]

LIGHT: Final[Mapping[str, str]] = {
    "paper": "#ffffff",
    "ink": "#1b1f23",
    "soft": "#5c646c",
    "faint": "#dfe3e7",
    "t0": "#0067a5",
    "t1": "#d55e00",
    "t2": "#008f68",
    "t3": "#5511aa",
    "t4": "#776633",
    "t5": "#2299ee",
    "p0": "#3b0a57",
    "p1": "#2e62b8",
    "p2": "#1d9a8a",
    "p3": "#9a8f1c",
}
"""Colours on light ground: the page, tenants ``t``, and priorities ``p`` from the highest down."""

DARK: Final[Mapping[str, str]] = {
    "paper": "#14171a",
    "ink": "#e8eaed",
    "soft": "#9aa3ac",
    "faint": "#2e343a",
    "t0": "#56a8f5",
    "t1": "#ff8a3d",
    "t2": "#2ccb9b",
    "t3": "#aa66bb",
    "t4": "#dd0044",
    "t5": "#1177ee",
    "p0": "#fde725",
    "p1": "#6ccb5f",
    "p2": "#2f9cb0",
    "p3": "#8a78d8",
}
"""The same on dark ground."""

_RULES: Final = """
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:80rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.7em;line-height:1.2;margin:.5rem 0 1rem}
h2{font-size:1.35em;margin:2.5rem 0 .5rem;border-top:1px solid var(--faint);padding-top:1rem}
h3{font-size:1.1em;margin:2rem 0 .25rem}
h1,h2,h3,dd,th.name,figcaption,.legend{overflow-wrap:anywhere}
p{margin:.25rem 0 .5rem;max-width:46rem;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.5rem 0 1rem}
dt{color:var(--soft)}
dd{margin:0}
a{color:var(--t0)}
footer{margin-top:2rem;color:var(--soft);font-size:.9em}
details{margin:1rem 0}
summary{font-weight:600;cursor:pointer}
.scroll{overflow-x:auto;margin:.25rem 0}
table{border-collapse:collapse;font-size:.85em;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .45rem;text-align:right;vertical-align:top}
th{font-weight:500}
th.name{text-align:left;min-width:6.5rem;max-width:14rem}
thead th{color:var(--soft);vertical-align:bottom;border-bottom:1px solid var(--soft)}
tr.group>*{border-top:1px solid var(--faint)}
small{display:block;color:var(--soft);white-space:nowrap}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));
gap:0 2rem}
.wide{grid-column:1/-1}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));
gap:1rem 2rem}
figure{margin:0;max-width:36rem;break-inside:avoid}
figcaption{font-weight:500;font-size:.95em}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.25rem;list-style:none;padding:0;
margin:.25rem 0 .5rem;font-size:.95em}
.legend svg{width:28px;height:10px;margin-right:.4rem}
svg{display:block;width:100%;height:auto;font:11px system-ui,sans-serif}
.legend svg{display:inline-block}
text{fill:var(--ink)}
.axis,.tick{fill:var(--soft)}
.end{text-anchor:end}
.middle,.inside{text-anchor:middle}
.inside{fill:var(--paper);font-weight:600}
path{fill:none}
.rule{stroke:var(--faint)}
.base{stroke:var(--soft)}
.event{stroke:var(--soft);stroke-dasharray:2 3}
.line,.reach{stroke:currentColor;stroke-width:1.6;stroke-linejoin:round}
.band{fill:currentColor;fill-opacity:.18}
.bar{fill:currentColor;stroke:var(--paper)}
circle{fill:currentColor}
.spread{fill:currentColor;fill-opacity:.3}
.open{fill:var(--paper);stroke:currentColor;stroke-width:1.6}
.hover{fill:transparent}
.hover:hover{fill:var(--soft);fill-opacity:.2}
.d1.line{stroke-dasharray:7 3}
.d2.line{stroke-dasharray:2 2.5}
.d3.line{stroke-dasharray:8 2.5 2 2.5}
.d1 .bar{fill-opacity:.6}
.limit,.other{color:var(--soft)}
"""

_PRINT: Final = """
@media print{body{max-width:none;padding:0;font-size:11px}.scroll{overflow:visible}
table{font-size:8px}th,td{padding:.1rem .25rem}th.name{min-width:6.5em}
h2,h3,section>p,.legend{break-after:avoid}tr,.legend{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def style_sheet() -> str:
    """Return the CSS of the page."""
    light, dark = _variables(LIGHT), _variables(DARK)
    classes = "".join(f".{name}{{color:var(--{name})}}" for name in LIGHT if name[1:].isdigit())
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"{classes}{_RULES}{_PRINT}"
    )


def _variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())
