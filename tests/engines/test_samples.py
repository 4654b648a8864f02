"""Names and numbers in the text format."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.engines.samples import Finder, labels_in, number_in

_names = st.from_regex(r"[ab:_][ab:_0]{0,5}", fullmatch=True)


@settings(max_examples=50)
@given(wanted=st.sets(_names, min_size=1, max_size=8), there=st.lists(_names, max_size=8))
def test_finds_the_names_that_are_wanted_and_no_others(wanted: set[str], there: list[str]) -> None:
    """Whatever they have in common: they are all in one regular expression."""
    page = "".join(f"{name} {number}\n" for number, name in enumerate(there)).encode()
    found = [(each.name.decode(), each.value) for each in Finder(wanted).find(page)]
    assert found == [
        (name, float(number))
        for number, name in enumerate(there)
        if name in wanted or name.removesuffix("_total") in wanted
    ]


def test_total_may_be_behind_each_name_and_be_a_name_of_its_own() -> None:
    finder = Finder(["a", "b", "c_total"])
    page = b"a_total 1\nb_total 2\nc_total 3\na_total_total 4\nc 5\nc_total_total 6\n"
    found = [each.name for each in finder.find(page)]
    assert found == [b"a_total", b"b_total", b"c_total", b"c_total_total"]


def test_a_sample_tells_where_its_line_begins_and_where_its_labels_end() -> None:
    page = b'a 1\n# b\n \tb{x="}"} 2\nb 3'
    first, second, cut_off = Finder(["a", "b"]).find(page)
    assert page[first.begin : first.end] == b"a"
    assert page[second.begin : second.end] == b'\n \tb{x="}"}'
    assert (cut_off.labels, math.isnan(cut_off.value)) == (None, True)


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"0", 0.0), (b"-0", 0.0), (b"+1.5e3", 1500.0), (b"1E-2", 0.01), (b".5", 0.5), (b"5.", 5.0)],
)
def test_numbers(text: bytes, number: float) -> None:
    assert number_in(text) == number


@pytest.mark.parametrize("text", [b"NaN", b"Inf", b"-inf", b"-1", b"1e400", b"", b"0x1", b"x"])
def test_what_is_no_number_from_0_up(text: bytes) -> None:
    assert math.isnan(number_in(text))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (b"", {}),
        (b"{}", {}),
        (b' { a = "b" , c="d",}', {"a": "b", "c": "d"}),
        (b'{a="\\"\\\\\\n,}"}', {"a": '"\\\n,}'}),
        ('{a="é"}'.encode(), {"a": "é"}),
        (b'{a="\xff"}', None),
        (b'{a="b",a="b"}', None),
        (b'{a="b"c="d"}', None),
        (b'{a="b"', None),
        (b"{a=b}", None),
        (b'{"a"="b"}', None),
        (b"{,}", None),
    ],
)
def test_labels(text: bytes, labels: dict[str, str] | None) -> None:
    assert labels_in(text) == labels


@pytest.mark.parametrize(
    "rest",
    [
        b"{" + b'"} ' * 30_000,
        b" " * 90_000,
        b"{" + b"}" * 90_000,
        b" 1" * 40_000,
        b"{" + b'x="y",' * 15_000 + b"!} 1",
        b'{x="' + b"\\y" * 45_000 + b"} 1",
        b" " + b"1" * 90_000 + b"!",
    ],
    ids=lambda rest: repr(rest[:8]),
)
def test_long_broken_lines_are_read_in_time_that_is_in_line_with_their_length(rest: bytes) -> None:
    """A search that tried everything with everything would end long after the test's time is up."""
    (found,) = Finder(["a"]).find(b"b 1\na" + rest + b"\n")
    assert found.labels is None or labels_in(found.labels) is None
