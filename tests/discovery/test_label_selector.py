"""Label selectors: what is one, and whom it selects."""

import pytest

from epp.discovery.label_selector import parse_label, parse_label_selector
from epp.errors import UsageError


@pytest.mark.parametrize(
    ("selector", "matching", "others"),
    [
        ("a=b", [{"a": "b", "x": "y"}], [{}, {"a": "c"}, {"x": "b"}]),
        ("a==b", [{"a": "b"}], [{"a": "c"}]),
        ("a!=b", [{}, {"a": "c"}], [{"a": "b"}]),
        ("a in (b, c)", [{"a": "b"}, {"a": "c"}], [{}, {"a": "d"}]),
        ("a notin (b,c)", [{}, {"a": "d"}], [{"a": "b"}, {"a": "c"}]),
        ("a", [{"a": ""}, {"a": "b"}], [{}, {"b": "a"}]),
        ("!a", [{}, {"b": "a"}], [{"a": ""}]),
        ("a=", [{"a": ""}], [{}, {"a": "b"}]),
        ("example.com/a-b.c=d_e", [{"example.com/a-b.c": "d_e"}], [{"a-b.c": "d_e"}]),
        (" a = b , c in ( d ),! e ", [{"a": "b", "c": "d"}], [{"a": "b", "c": "d", "e": ""}]),
        ("in=notin", [{"in": "notin"}], [{"in": "in"}]),
    ],
)
def test_whom_it_selects(
    selector: str, matching: list[dict[str, str]], others: list[dict[str, str]]
) -> None:
    parsed = parse_label_selector(selector, "--x")
    assert [labels for labels in matching if not parsed.matches(labels)] == []
    assert [labels for labels in others if parsed.matches(labels)] == []


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "a=b,", ",a=b", "a=b,,c", "a b", "a=b c", "a in b", "a in (b", "!", "!a=b",
     "=b", "-a=b", "a=b/c", "a=" + "b" * 5000],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--x: found '.*'; expected a label selector such as"):
        parse_label_selector(text, "--x")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("leader=epp", "leader", "epp"),
        ("inference-epp/leader=", "inference-epp/leader", ""),
        (f"{'p' * 253}/{'k' * 63}={'v' * 63}", f"{'p' * 253}/{'k' * 63}", "v" * 63),
    ],
)
def test_what_is_a_label(text: str, key: str, value: str) -> None:
    assert parse_label(text, "--x") == (key, value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "=b", "a==b", "a!=b", "a=b,c=d", "a=-b", "/a=b", "A/a=b", "a=b "),
        *(f"{'k' * 64}=v", f"k={'v' * 64}", f"{'p' * 254}/k=v"),
    ],
)
def test_what_is_no_label(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--x: found '.*'; expected a label such as"):
        parse_label(text, "--x")
