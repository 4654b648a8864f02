from typing import Any

import pytest
import yaml

from epp.discovery import documents
from epp.discovery.documents import Document, Node, Unreadable, parse_documents
from epp.discovery.problems import ManifestError, Problems


def parse(data: str | bytes) -> tuple[list[Document], tuple[str, ...]]:
    problems = Problems()
    raw = data.encode() if isinstance(data, str) else data
    found = list(parse_documents("f.yaml", raw, problems))
    try:
        problems.raise_any()
    except ManifestError as error:
        return found, error.problems
    return found, ()


def plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("0", 0),
        ("-12", -12),
        ("+12", 12),
        ("1.5", 1.5),
        (".5e3", 500.0),
        ("1e3", 1000.0),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("yes", "yes"),
        ("on", "on"),
        ("012", "012"),
        ("012.5", "012.5"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("12:30:45", "12:30:45"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ("2024-01-01", "2024-01-01"),
        ("9" * 30, float("9" * 30)),
        ("v1.2.3", "v1.2.3"),
        ("!!int '5'", Unreadable("a value with the YAML tag !!int")),
        ("!secret x", Unreadable("a value with the YAML tag !secret")),
        ("!!set {a}", Unreadable("a value with the YAML tag !!set")),
        ("!!map {a: 1}", {"a": 1}),
        ('{\n\t"a":\t[1, "\\/", null]\n}', {"a": [1, "/", None]}),
    ],
)
def test_values(text: str, expected: object) -> None:
    [document], problems = parse(f"v: {text}")
    assert problems == ()
    assert plain(document.root) == {"v": expected}
    assert type(plain(document.root)["v"]) is type(expected)


def test_lines_and_numbers_of_documents() -> None:
    found, problems = parse("# comment\na: 1\nb:\n  - x\n  - y\n---\n---\n\nc: 2\n")
    assert problems == ()
    assert [(document.number, document.root.line) for document in found] == [(1, 2), (3, 9)]
    first = found[0].root.value
    assert isinstance(first, dict)
    items = first["b"].value
    assert isinstance(items, list)
    assert [item.line for item in items] == [4, 5]


def test_keys_are_text_and_the_first_of_two_counts() -> None:
    [document], problems = parse("1: a\ntrue: b\n1: c\n")
    assert problems == ()
    assert plain(document.root) == {"1": "a", "true": "b"}
    assert document.root.duplicates == ((3, "1"),)


def test_an_alias_is_not_expanded() -> None:
    [document], problems = parse("a: &x [1, 2]\nb: *x\n")
    assert problems == ()
    assert plain(document.root) == {"a": [1, 2], "b": Unreadable("a YAML alias (*x)")}


def test_a_bomb_of_aliases_stays_small() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 100)]
    [document], problems = parse("\n".join(lines))
    assert problems == ()
    assert isinstance(document.root.value, dict)
    assert len(document.root.value) == 100


def test_a_byte_order_mark_is_no_text() -> None:
    [document], problems = parse(b"\xef\xbb\xbfa: 1\n")
    assert problems == ()
    assert plain(document.root) == {"a": 1}


def test_comments_alone_are_no_document() -> None:
    assert parse("# nothing here yet\n---\n# nor here\n") == ([], ())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", "f.yaml: the file is empty; expected manifests, or no such file"),
        (" \n\n", "f.yaml: the file is empty; expected manifests, or no such file"),
        (b"a: 1\nb: \xff\n", "f.yaml:2: byte 8 is not UTF-8; expected UTF-8 text"),
        (
            "a: 1\nb: c: d\n",
            "f.yaml:2:5: not valid YAML: mapping values are not allowed in this context",
        ),
        (
            "a: [1, 2\n",
            "f.yaml:2:1: not valid YAML: while parsing a flow sequence, "
            "did not find expected ',' or ']'",
        ),
        (
            "a: 1\nb: \x00\n",
            "f.yaml:2: not valid YAML: control characters are not allowed",
        ),
        ("a: 1\n? [x]\n: 2\n", "f.yaml:2:3: not valid YAML: a key that is not text"),
        ("a: 1\n*x : 2\n", "f.yaml:2:1: not valid YAML: a key that is not text"),
        ("[" * 1000, "f.yaml:1:201: not valid YAML: values nested more than 200 deep"),
    ],
)
def test_what_cannot_be_parsed(data: str | bytes, expected: str) -> None:
    found, problems = parse(data)
    assert found == []
    assert problems == (expected,)


def test_the_parser_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_Loader", yaml.SafeLoader)
    [document], problems = parse("a: 'x'\nb: [1, *y]\n")
    assert problems == ()
    assert plain(document.root) == {"a": "x", "b": [1, Unreadable("a YAML alias (*y)")]}
    _, [problem] = parse('a: "\\U7fffffff"')
    assert problem.startswith("f.yaml: not valid YAML: ")
    assert parse("a: 1\nb: c: d\n")[1][0].startswith("f.yaml:2:5: not valid YAML: ")
    assert parse("a: 1\nb: \x00\n")[1][0].startswith("f.yaml:2: not valid YAML: ")


def test_documents_before_a_syntax_error_are_read() -> None:
    found, problems = parse("a: 1\n---\nb: ]\n")
    assert [plain(document.root) for document in found] == [{"a": 1}]
    assert len(problems) == 1


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_MAX_NODES", 100)
    assert parse("a: [" + "1," * 97 + "]")[1] == ()
    found, problems = parse("a: [" + "1," * 99 + "]")
    assert found == []
    assert problems == ("f.yaml:1:199: not valid YAML: more than 100 values in one file",)
