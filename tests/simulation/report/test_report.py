"""The whole report: one file that is well-formed, complete, small, and needs nothing else."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from epp.errors import UsageError
from epp.simulation.report import write_report
from epp.simulation.result import SimulationResult

from .results import busy, made_up, table, timeline

_VOID = {"meta"}
_HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></svg></style>&amp;",
    "a\x00b\x0b\ud800\u202e",
    "x" * 300,
)


class _Page(HTMLParser):
    """Elements, balanced or else; texts by the element that they are in."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


def _written(path: Path, *results: SimulationResult) -> str:
    write_report(results, path / "report.html")
    return (path / "report.html").read_text(encoding="utf-8")


def _parsed(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


def _drawings(html: str) -> list[ElementTree.Element]:
    """The drawings with axes, as XML."""
    found = []
    depth = begin = 0
    for match in re.finditer(r"<svg\b|</svg>", html):
        if match.group() == "<svg":
            begin = match.start() if depth == 0 else begin
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                found.append(ElementTree.fromstring(html[begin : match.end()]))
    assert depth == 0
    return [svg for svg in found if svg.get("role") == "img"]


def test_a_report_has_every_figure_for_every_policy(tmp_path: Path) -> None:
    results = [busy(policy=policy, seed=seed) for policy in ("fair", "first") for seed in (1, 2)]
    html = _written(tmp_path, *results)
    page = _parsed(html)
    assert page.texts["h1"] == ["Simulation: scenario"]
    assert page.texts["h3"] == [
        "Wait in the queue",
        "Time to first token",
        "Shares of the service",
        "Service over time",
        "Queue by priority",
        "Load of the engines",
        "Wait in the queue, all percentiles",
        "Time to first token, all percentiles",
    ]
    by_flow, by_policy = ["bob, priority 10", "alice, priority 0"], ["fair", "first"]
    assert page.texts["figcaption"] == [
        *by_flow,
        *by_flow,
        "Part of all service, by policy",
        *by_policy * 5,
    ]
    drawings = _drawings(html)
    assert len(drawings) == 4 + 1 + 10
    drawn = [path.attrib["class"] for svg in drawings for path in svg.iter("path")]
    assert len([classes for classes in drawn if "line" in classes.split()]) == 2 * (
        2 + 2 + 4 + 2 + 2
    )


def test_a_report_says_what_was_simulated(tmp_path: Path) -> None:
    page = _parsed(_written(tmp_path, *(busy(policy="fair", seed=seed) for seed in (3, 1))))
    facts = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert facts == {
        "Policies": "fair",
        "Seeds": "1, 3",
        "Requests arrive for": "100 s",
        "Warm-up, left out of figures": "0 s",
        "Requests in all runs": "800",
        "Tenants": "2",
    }


def test_a_report_needs_nothing_else(tmp_path: Path) -> None:
    html = _written(tmp_path, busy())
    page = _parsed(html)
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "image", "use"}
    attributes = {key for _, attrs in page.elements for key in attrs}
    assert not attributes & {"src", "srcset", "style"}
    assert not [key for key in attributes if key.startswith("on")]
    assert "http" not in html


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    results = [
        busy(scenario=_HOSTILE[0], policy=policy, tenants=_HOSTILE) for policy in _HOSTILE[:3]
    ]
    html = _written(tmp_path, *results)
    page = _parsed(html)
    assert not {"script", "img"} & {name for name, _ in page.elements}
    assert _drawings(html)
    shown = [text for texts in page.texts.values() for text in texts]
    for name in _HOSTILE[:3]:
        assert name in shown
    assert "a\ufffdb\ufffd\ufffd\u202e" in shown
    (title,) = (text for text in page.texts["title"] if text.startswith("Simulation"))
    assert title == f"Simulation: {_HOSTILE[0]}"


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = [[busy(policy=policy) for policy in ("b", "a")] for _ in range(2)]
    assert _written(tmp_path, *runs[0]) == _written(tmp_path, *runs[1])


def test_several_scenarios_have_a_section_each(tmp_path: Path) -> None:
    page = _parsed(_written(tmp_path, busy(scenario="one"), busy(scenario="two")))
    assert page.texts["h1"] == ["Simulations"]
    assert page.texts["h2"] == page.texts["a"] == ["one", "two"]
    links = [attrs["href"] for name, attrs in page.elements if name == "a"]
    sections = {attrs.get("id") for name, attrs in page.elements if name == "section"}
    assert {link for link in links if link} == {"#scenario-1", "#scenario-2"}
    assert {"scenario-1", "scenario-2"} <= sections


_NAN = math.nan
_EDGES = {
    "nothing happened": made_up(),
    "no time and no tenant": made_up(duration_s=0.0, tenants=()),
    "nobody served": made_up(
        table(
            tenant=[0, 1],
            arrived_s=[0.0, 1.0],
            dispatched_s=[_NAN, _NAN],
            outcomes=["expired", "unfinished"],
        ),
        timeline([0.0, 50.0, 100.0], served_cost={"alice": [0.0] * 3, "bob": [0.0] * 3}),
    ),
    "one request of one tenant": made_up(
        table(tenant=[0], arrived_s=[0.0]),
        timeline([0.0], served_cost={"alice": [5.0]}, queued={0: [1.0]}),
        tenants=("alice",),
    ),
    "nothing known": made_up(
        table(tenant=[0], arrived_s=[0.0], dispatched_s=[_NAN]),
        timeline(
            [0.0, 1.0],
            served_cost={"alice": [_NAN, _NAN]},
            queued={0: [_NAN, _NAN]},
            in_flight=[_NAN, _NAN],
            limit=[_NAN, math.inf],
        ),
    ),
    "all in the warm-up": made_up(
        table(tenant=[0], arrived_s=[0.0]), timeline([0.0, 9.0]), measure_from_s=5.0
    ),
}


@pytest.mark.parametrize("result", _EDGES.values(), ids=_EDGES.keys())
def test_a_report_can_be_made_of_anything(tmp_path: Path, result: SimulationResult) -> None:
    html = _written(tmp_path, result)
    _parsed(html)
    assert len(_drawings(html)) == 8
    assert not re.search(r'="[^"]*\b(nan|inf)\b', html)
    assert ">nan<" not in html


def test_a_policy_that_saw_nothing_can_stand_beside_one_that_did(tmp_path: Path) -> None:
    page = _parsed(_written(tmp_path, busy(policy="a"), made_up(policy="b")))
    assert "nothing was served" in page.texts["text"]


def test_what_is_not_drawn_by_name_is_drawn_together(tmp_path: Path) -> None:
    tenants = [f"tenant-{number}" for number in range(40)]
    page = _parsed(_written(tmp_path, busy(tenants=tenants)))
    assert "all other tenants" in page.texts["li"]
    assert "all other tenants, mean" in page.texts["li"]
    shares = [text for text in page.texts["title"] if text.startswith("all other tenants: ")]
    assert shares


def test_events_and_a_limit_far_above_are_handled(tmp_path: Path) -> None:
    samples = timeline([0.0, 60.0, 120.0], in_flight=[4.0, 5.0, 6.0], limit=[1e6] * 3)
    run = made_up(samples=samples, duration_s=60.0, measure_from_s=10.0)
    html = _written(tmp_path, msgspec.structs.replace(run, end_s=120.0))
    (load,) = (svg for svg in _drawings(html) if "Load" in svg.get("aria-label", ""))
    texts = [text.text for text in load.iter("text")]
    assert {"warm-up ends", "arrivals end", "6"} <= set(texts)
    assert "1 M" not in texts


@pytest.mark.parametrize(("policies", "seeds"), [(3, 5), (24, 1)])
def test_a_large_report_stays_below_two_megabytes(
    tmp_path: Path, policies: int, seeds: int
) -> None:
    tenants = [f"tenant-{number}" for number in range(30)]
    results = [
        busy(policy=f"policy {policy}", seed=seed, requests=3000, samples=5000, tenants=tenants)
        for policy in range(policies)
        for seed in range(seeds)
    ]
    assert len(_written(tmp_path, *results).encode()) < 2_000_000


def test_a_million_requests_do_not_make_it_larger(tmp_path: Path) -> None:
    small, large = (
        len(_written(tmp_path, busy(requests=count, samples=count // 10)))
        for count in (10_000, 1_000_000)
    )
    assert large < 1.2 * small


def test_a_file_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "report.html"
    with pytest.raises(UsageError, match=re.escape(f"cannot write the report to {path}: No such")):
        write_report([busy(requests=10, samples=10)], path)


def test_values_are_not_changed(tmp_path: Path) -> None:
    result = busy()
    before = [np.copy(column) for column in (result.requests.arrived_s, result.timeline.time_s)]
    _written(tmp_path, result)
    after = (result.requests.arrived_s, result.timeline.time_s)
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
