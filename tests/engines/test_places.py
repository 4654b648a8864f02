"""Samples of the next page, found where they stood: only a saving, never another reading."""

import re

import pytest

from epp.core.pool import EngineLoad
from epp.engines.parse import Dialects, PageReader
from epp.engines.places import Places
from epp.engines.samples import Finder

from .dialect_pages import CASES

(CASE,) = (case for case in CASES if case.name == "vllm, large")
NAMES = ["vllm:num_requests_waiting", "vllm:num_requests_running", "process_start_time_seconds"]
WAITING = b'vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 9.0'


def places_of(page: bytes) -> Places:
    return Places(page, Finder(NAMES).find(page))


def values_after(page: bytes) -> list[float] | None:
    """Return what is found in a page after the large page of vLLM."""
    assert len(CASE.page) > 16_384
    return places_of(CASE.page).values(page)


def test_values_that_have_changed_and_made_all_else_move() -> None:
    page = CASE.page.replace(b"} 9.0\n", b"} 12345.0 1395066363000\n").replace(b"3.58e", b"13.58e")
    assert page.index(b"} 12345.0") != CASE.page.index(b"} 9.0")
    assert values_after(page) == [CASE.load.started_s, 12.0, 12345.0]


def test_places_move_along_from_page_to_page() -> None:
    places = places_of(CASE.page)
    for digits in range(1, 25):
        page = CASE.page.replace(b"3.58e+09", b"3." + b"5" * 12 * digits)
        assert places.values(page) == [CASE.load.started_s, 12.0, 9.0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"vllm:num_requests_waiting{", b"vllm:num_requests_Waiting{"),  # it is not there any more
        (b'waiting{engine="0"', b'waiting{engine="1"'),  # another series
        (b"} 9.0\n", b"} NaN\n"),
        (b"} 9.0\n", b"} 9_0\n"),
        (b"} 9.0\n", b"} 9.0 8 7\n"),
        (b"} 9.0\n", b"}9.0\n"),
        (b"process_start_time_seconds 1", b"process_start_time_secondsX1"),
        (b"\nprocess_start", b"\nprocess_start_time_seconds 1\nprocess_start"),  # one more
    ],
)
def test_a_page_in_which_something_is_not_as_it_was_is_searched_as_a_whole(
    before: bytes, after: bytes
) -> None:
    assert values_after(CASE.page) is not None
    changed = CASE.page.replace(before, after)
    assert changed != CASE.page
    assert values_after(changed) is None


def test_a_line_that_has_moved_away_is_not_taken_for_another() -> None:
    lines = CASE.page.split(b"\n")
    lines.remove(WAITING)
    assert values_after(b"\n".join([*lines[:-1], WAITING, b""])) is None
    assert values_after(b"\n".join([WAITING, *lines])) is None


def test_one_more_sample_is_seen_though_the_page_is_as_long_as_before() -> None:
    """Something else has gone: it is of another length than what came, where that was."""
    more = b"\nprocess_start_time_seconds 1.5"
    lost = CASE.page.index(b"\nvllm:request_phase_3_seconds_sum")
    for place in (CASE.page.index(b"\nprocess_start_time_seconds"), CASE.page.index(WAITING) - 1):
        page = CASE.page[:place] + more + CASE.page[place:lost] + CASE.page[lost + len(more) :]
        assert len(page) == len(CASE.page)
        assert values_after(page) is None


def test_a_page_that_ends_otherwise_is_searched_as_a_whole() -> None:
    name = b"vllm:prefix_cache_queries_created"
    assert CASE.page.endswith(name + b'{engine="0"} 1.7e+09\n')
    assert values_after(CASE.page.replace(b" 1.7e+09\n", b" 1.8e+09\n")) is not None
    assert values_after(CASE.page[:-1]) is not None  # what is missing is no sample of these
    assert values_after(CASE.page[:-20]) is None
    assert values_after(CASE.page.replace(name, name.upper())) is None


def test_lines_that_are_there_twice_are_found_twice() -> None:
    """Also where the first has become longer, so that the second stands elsewhere."""
    double = CASE.page.replace(WAITING, WAITING + b"\n" + WAITING)
    places = places_of(double)
    longer = double.replace(WAITING, WAITING.replace(b" 9.0", b" 1234567.0"), 1)
    assert places.values(longer) == [CASE.load.started_s, 12.0, 1234567.0, 9.0]


def test_a_line_may_come_to_stand_at_the_very_beginning() -> None:
    page = b"####\nname 1\n" + b"#" * 17_000 + b"\nend\n"
    places = Places(page, Finder(["name"]).find(page))
    assert places.values(page[2:]) == [1.0]
    assert places.values(page[4:]) == [1.0]


def test_a_page_that_ends_early_is_searched_as_a_whole() -> None:
    end = CASE.page.index(WAITING) + len(WAITING)
    short = CASE.page[:end] + b"#" * (len(CASE.page) - end)
    assert values_after(short) is None


def test_every_thirty_second_page_is_searched_as_a_whole() -> None:
    places = places_of(CASE.page)
    found = [places.values(CASE.page) is not None for _ in range(33)]
    assert found == [*[True] * 31, False, False]


def test_a_small_page_is_searched_as_a_whole() -> None:
    page = CASES[0].page
    assert len(page) < 16_384
    assert places_of(page).values(page) is None


def test_a_rank_that_joins_is_seen_at_once() -> None:
    """Its line makes the page longer."""
    reader = PageReader(Dialects())
    assert reader.read(CASE.page) == CASE.load
    more = re.sub(rb'\n(vllm:num_requests_waiting\{engine=)"0"(.*)', rb'\g<0>\n\1"1"\2', CASE.page)
    load = reader.read(more)
    assert isinstance(load, EngineLoad)
    assert load.waiting == 2 * CASE.load.waiting
