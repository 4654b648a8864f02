"""A stream is cut where the network likes, lines are not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.discovery.kubernetes.api.errors import AnswerTooLarge
from epp.discovery.kubernetes.api.lines import LineSplitter


@given(text=st.text("ab\n", max_size=40).map(str.encode), cuts=st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_the_cuts(text: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter(100)
    places = [0, *sorted(cuts), len(text)]
    lines = []
    for first, last in itertools.pairwise(places):
        lines += splitter.feed(text[first:last])
    assert [*lines, splitter.end()] == text.split(b"\n")


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([b"1\n123456\n"], [b"1"]),
        ([b"123", b"456"], []),
        ([b"123", b"456\n"], []),
        ([b"1\n", b"2\n123456"], [b"1", b"2"]),
    ],
)
def test_a_line_that_is_too_long_ends_it_after_those_before(
    parts: list[bytes], lines: list[bytes]
) -> None:
    splitter = LineSplitter(5)
    seen: list[bytes] = []

    def feed() -> None:
        for part in parts:
            for line in splitter.feed(part):
                seen.append(line)  # noqa: PERF402 - what came before the error counts

    with pytest.raises(AnswerTooLarge, match="a line of more than 5 bytes"):
        feed()
    assert seen == lines


def test_only_the_length_of_each_line_counts() -> None:
    splitter = LineSplitter(5)
    for _ in range(3):
        assert [*splitter.feed(b"123"), *splitter.feed(b"45\n")] == [b"12345"]
