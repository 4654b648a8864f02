from typing import Annotated, Any, Literal

import msgspec
import pytest

from epp.discovery.checking import check, describe, did_you_mean
from epp.discovery.documents import Document, Unreadable, parse_documents
from epp.discovery.problems import Problems

Small = Annotated[int, msgspec.Meta(ge=0, le=9, description="a digit")]
Mode = Annotated[Literal["on", "off"], msgspec.Meta(description="on or off")]


class Item(msgspec.Struct):
    number: Small


class Shape(msgspec.Struct, rename="camel"):
    item_list: Annotated[
        tuple[Item, ...], msgspec.Meta(min_length=1, max_length=2, description="one or two items")
    ]
    labels: dict[str, Small] = {}
    mode: Mode = "on"
    maybe: Small | None = None
    whatever: Any = None


def read(text: str) -> tuple[Shape | None, list[tuple[int, str, str]]]:
    [document] = list[Document](parse_documents("f", text.encode(), Problems()))
    reports: list[tuple[int, str, str]] = []
    found = check(
        document.root, Shape, "top", lambda line, path, text: reports.append((line, path, text))
    )
    return found, reports


def test_a_good_value() -> None:
    found, reports = read("itemList: [{number: 3}]\nlabels: {a: 1}\nmode: 'off'\nwhatever: *x\n")
    assert reports == []
    assert found == Shape(item_list=(Item(3),), labels={"a": 1}, mode="off")


def test_null_is_as_good_as_nothing() -> None:
    found, reports = read("itemList: [{number: 3}]\nlabels:\nmode: null\nmaybe: ~\n")
    assert reports == []
    assert found == Shape(item_list=(Item(3),))


def test_all_problems_are_found() -> None:
    found, reports = read(
        "itemList:\n- number: 12\n- nummer: 1\nlabels:\n  a b: x\nmode: 'no'\nmaybe: []\nextra: 1\n"
    )
    assert found is None
    assert reports == [
        (2, "top.itemList[0].number", "found 12; expected a digit"),
        (3, "top.itemList[1].nummer", 'unknown field; did you mean "number"?'),
        (3, "top.itemList[1].number", "missing; expected a digit"),
        (5, 'top.labels["a b"]', 'found "x"; expected a digit'),
        (6, "top.mode", 'found "no"; expected on or off'),
        (7, "top.maybe", "found a list; expected a digit"),
        (8, "top.extra", "unknown field; known: itemList, labels, mode, maybe, whatever"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "path", "problem"),
    [
        ("[]", 1, "top", "found a list; expected a mapping"),
        ("labels: {}", 1, "top.itemList", "missing; expected one or two items"),
        ("itemList:\n", 1, "top.itemList", "found nothing; expected one or two items"),
        ("itemList: []", 1, "top.itemList", "found 0 items; expected one or two items"),
        ("itemList: [1, 2, 3]", 1, "top.itemList", "found 3 items; expected one or two items"),
        ("itemList: [x]", 1, "top.itemList[0]", 'found "x"; expected a mapping'),
        ("itemList: {}", 1, "top.itemList", "found a mapping; expected one or two items"),
        (
            "itemList: [{number: 1}]\nlabels: 3",
            2,
            "top.labels",
            "found 3; expected a mapping",
        ),
        (
            "itemList: [{number: 1}]\nlabels: {a: 1,\n  a: 2}",
            3,
            "top.labels.a",
            "the key stands here again; expected it once",
        ),
        (
            "itemList:\n- number: 1\n  number: 2\n",
            3,
            "top.itemList[0].number",
            "the key stands here again; expected it once",
        ),
        (
            "itemList: [{number: true}]",
            1,
            "top.itemList[0].number",
            "found true; expected a digit",
        ),
        (
            "itemList: [{number: &n 1}, {number: *n}]",
            1,
            "top.itemList[1].number",
            "found a YAML alias (*n); expected a digit",
        ),
    ],
)
def test_a_problem(text: str, line: int, path: str, problem: str) -> None:
    found, reports = read(text)
    assert found is None
    assert reports == [(line, path, problem)]


def test_descriptions_stay_on_one_short_line() -> None:
    assert describe("a\nb") == '"a\\nb"'
    assert describe("x" * 1000).endswith("x… (cut)")
    assert len(describe("x" * 1000)) < 80
    assert describe(Unreadable("a thing")) == "a thing"


def test_hints_ignore_case() -> None:
    assert did_you_mean("TARGETPORT", ["targetPorts", "selector"]) == 'did you mean "targetPorts"?'
