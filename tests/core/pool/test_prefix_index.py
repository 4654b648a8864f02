"""The prefix index: what is held, what gives way first, what is forgotten, what bounds it."""

import struct

import numpy as np
import pytest

from epp.core.pool.prefix_index import PrefixIndex, Recording

from .prefix_model import chain_of

_SPACE = ("model", "")


def _counts(index: PrefixIndex, prompt: str, space: tuple[str, str] = _SPACE) -> dict[int, int]:
    match = index.match(space, chain_of(prompt))
    return {} if match is None else match.counts


def _record_short(index: PrefixIndex, slot: int, count: int) -> None:
    """Record prompts of one block each, with numbers for hashes."""
    for number in range(count):
        index.record(_SPACE, struct.pack("<Q", number), slot)


def _record(index: PrefixIndex, prompt: str, slot: int) -> Recording:
    return index.record(_SPACE, chain_of(prompt), slot)


def test_nothing_is_held_at_first() -> None:
    index = PrefixIndex()
    assert index.match(_SPACE, chain_of("abc")) is None
    assert (index.held(3), index.blocks, index.nodes) == (0, 0, 0)


def test_each_slot_holds_the_leading_blocks_that_it_was_sent() -> None:
    index = PrefixIndex()
    _record(index, "system: one", 0)
    _record(index, "system: two", 1)
    _record(index, "sys", 2)
    _record(index, "other", 3)
    assert _counts(index, "system: one") == {0: 11, 1: 8, 2: 3}
    assert _counts(index, "system: t") == {0: 8, 1: 9, 2: 3}
    assert _counts(index, "s") == {0: 1, 1: 1, 2: 1}
    assert _counts(index, "") == {}


def test_a_match_is_a_column_too() -> None:
    index = PrefixIndex()
    _record(index, "abcd", 0)
    for slot in range(2, 40):
        _record(index, "ab", slot)
    match = index.match(_SPACE, chain_of("abcdef"))
    assert match is not None
    assert match.blocks == 6
    assert match.column(50).tolist() == [4, 0, *[2] * 38, *[0] * 10]
    assert match.counts == {0: 4, **dict.fromkeys(range(2, 40), 2)}
    with pytest.raises(IndexError):
        match.column(39)


def test_models_and_cache_salts_are_apart() -> None:
    index = PrefixIndex()
    _record(index, "abc", 0)
    index.record(("model", "salt"), chain_of("ab"), 1)
    assert _counts(index, "abc") == {0: 3}
    assert _counts(index, "abc", ("model", "salt")) == {1: 2}
    assert _counts(index, "abc", ("other", "")) == {}


def test_half_a_block_is_an_error() -> None:
    index = PrefixIndex()
    with pytest.raises(ValueError, match="8 bytes a block, not 9"):
        index.match(_SPACE, bytes(9))


def test_a_match_counts_as_no_use_a_record_does() -> None:
    index = PrefixIndex(default_blocks=6)
    _record(index, "abc", 0)
    _record(index, "xyz", 0)
    index.match(_SPACE, chain_of("abc"))
    _record(index, "uv", 0)
    assert _counts(index, "abc") == {0: 1}
    _record(index, "a", 0)
    _record(index, "m", 0)
    assert _counts(index, "a") == {0: 1}
    assert _counts(index, "xyz") == {0: 2}


def test_tails_go_before_heads_block_by_block() -> None:
    index = PrefixIndex(default_blocks=8)
    _record(index, "abcdef", 0)
    for number, new in enumerate("uvwxyz"):
        _record(index, new, 0)
        assert _counts(index, "abcdef") == {0: 6 - max(0, number - 1)}
        assert index.held(0) == min(8, 7 + number)


def test_what_branches_off_an_old_prompt_keeps_their_common_head() -> None:
    index = PrefixIndex(default_blocks=8)
    _record(index, "abcdef", 0)
    _record(index, "abcxyz", 0)
    assert _counts(index, "abcdef") == {0: 5}
    _record(index, "mn", 0)
    assert _counts(index, "abcdef") == {0: 3}
    assert _counts(index, "abcxyz") == {0: 6}
    _record(index, "uvwxy", 0)
    assert _counts(index, "abcxyz") == {0: 1}
    assert _counts(index, "mn") == {0: 2}


def test_of_a_prompt_beyond_the_capacity_the_first_blocks_are_kept() -> None:
    index = PrefixIndex(default_blocks=4)
    _record(index, "xyz", 0)
    assert _record(index, "abcdefgh", 0).blocks == 4
    assert _counts(index, "abcdefgh") == {0: 4}
    assert _counts(index, "xyz") == {}
    assert index.evicted_blocks == 3
    assert index.added_blocks == 7


def test_the_capacity_is_each_slots_own() -> None:
    index = PrefixIndex(default_blocks=4)
    index.set_capacity(1, 6)
    for slot in (0, 1):
        _record(index, "abcdefgh", slot)
    assert _counts(index, "abcdefgh") == {0: 4, 1: 6}
    index.set_capacity(1, 2)
    assert _counts(index, "abcdefgh") == {0: 4, 1: 2}
    index.clear(1)
    assert index.capacity(1) == 2
    index.set_capacity(1, 0)
    _record(index, "abc", 1)
    assert _counts(index, "abcdefgh") == {0: 4}


def test_a_conversation_of_one_slot_stays_one_run() -> None:
    index = PrefixIndex()
    for turns in range(1, 20):
        recording = _record(index, "conversation" * turns, 0)
        assert recording.held_before == 12 * (turns - 1)
    assert index.nodes == 1
    assert _counts(index, "conversation" * 19) == {0: 12 * 19}


def test_a_run_that_ends_again_is_extended_again() -> None:
    index = PrefixIndex()
    _record(index, "abc", 1)
    _record(index, "abc", 0)
    failed = _record(index, "abcdef", 0)
    assert index.nodes == 2
    index.clear(1)
    index.forget(failed)
    _record(index, "abcxyz", 0)
    assert index.nodes == 1


def test_a_run_that_others_share_is_not_extended_for_them() -> None:
    index = PrefixIndex()
    _record(index, "abc", 0)
    _record(index, "abc", 1)
    _record(index, "abcdef", 0)
    assert _counts(index, "abcdef") == {0: 6, 1: 3}


def test_what_was_not_computed_is_forgotten() -> None:
    index = PrefixIndex()
    _record(index, "abc", 0)
    index.forget(_record(index, "abcdef", 0))
    assert _counts(index, "abcdef") == {0: 3}
    _record(index, "abcdef", 1)
    index.forget(_record(index, "abcxyz", 1))
    assert _counts(index, "abcxyz") == {0: 3, 1: 3}
    assert _counts(index, "abcdef") == {0: 3, 1: 6}


def test_what_another_request_has_computed_is_not_forgotten() -> None:
    index = PrefixIndex()
    failed = _record(index, "abc", 0)
    _record(index, "abcdef", 0)
    index.forget(failed)
    assert _counts(index, "abcdef") == {0: 6}
    failed = _record(index, "mnop", 0)
    _record(index, "mn", 0)
    index.forget(failed)
    assert _counts(index, "mnop") == {0: 2}


def test_forgetting_after_a_cut_or_twice_takes_nothing_of_others() -> None:
    index = PrefixIndex(default_blocks=8)
    _record(index, "abc", 0)
    failed = _record(index, "abcdef", 0)
    _record(index, "uvwx", 0)
    assert _counts(index, "abcdef") == {0: 4}
    index.forget(failed)
    index.forget(failed)
    assert _counts(index, "abcdef") == {0: 3}
    assert index.held(0) == 7
    index.clear(0)
    index.forget(failed)
    _record(index, "abcdef", 0)
    index.forget(failed)
    assert _counts(index, "abcdef") == {0: 6}


def test_a_slot_that_is_cleared_holds_nothing_and_others_what_they_did() -> None:
    index = PrefixIndex()
    _record(index, "abcdef", 0)
    _record(index, "abc", 1)
    index.clear(0)
    assert _counts(index, "abcdef") == {1: 3}
    assert (index.held(0), index.blocks, index.nodes) == (0, 3, 1)
    _record(index, "abcd", 0)
    assert _counts(index, "abcdef") == {0: 4, 1: 3}
    index.clear(0)
    index.clear(1)
    index.clear(7)
    assert (index.blocks, index.holdings, index.nodes) == (0, 0, 0)


def test_a_match_stays_what_it_was() -> None:
    index = PrefixIndex()
    _record(index, "abc", 0)
    match = index.match(_SPACE, chain_of("abc"))
    index.clear(0)
    _record(index, "abcdef", 5)
    assert match is not None
    assert match.counts == {0: 3}
    assert _counts(index, "abc") == {5: 3}


def test_endpoints_that_restart_again_and_again_take_no_more_room() -> None:
    index = PrefixIndex()
    for _ in range(100):
        _record(index, "abc", 0)
        index.clear(0)
    _record(index, "abc", 0)
    match = index.match(_SPACE, chain_of("abc"))
    assert match is not None
    assert len(match.slot_of) == 1


def test_much_that_is_cleared_is_gone_at_once_and_cut_bit_by_bit() -> None:
    index = PrefixIndex()
    _record_short(index, 0, 2_000)
    last = struct.pack("<Q", 1_999)
    index.clear(0)
    assert index.held(0) == 0
    assert index.match(_SPACE, last) is None
    assert 1_000 < index.nodes < 2_000
    records = 0
    while index.nodes > 1:
        index.record(_SPACE, last, 0)
        match = index.match(_SPACE, last)
        assert match is not None
        assert match.counts == {0: 1}
        records += 1
    assert 1 < records < 100
    for slot in (1, 2, 3):
        index.record(_SPACE, last, slot)
    match = index.match(_SPACE, last)
    assert match is not None
    assert match.counts == {0: 1, 1: 1, 2: 1, 3: 1}
    assert index.evicted_blocks == 0


def test_a_part_of_a_run_that_was_cleared_is_gone_at_once_too() -> None:
    index = PrefixIndex()
    _record_short(index, 1, 2_000)
    _record(index, "abc", 1)
    failed = _record(index, "abcdef", 1)
    _record(index, "abcdef", 0)
    index.forget(failed)
    assert _counts(index, "abcdef") == {0: 6, 1: 3}
    index.clear(1)
    assert index.nodes > 1_000
    assert _counts(index, "abcdef") == {0: 6}


def test_a_much_smaller_capacity_is_reached_bit_by_bit() -> None:
    index = PrefixIndex()
    _record_short(index, 0, 2_000)
    index.set_capacity(0, 100)
    held = index.held(0)
    assert 100 < held < 2_000
    while index.held(0) > 100:
        _record(index, "a", 1)
        assert index.held(0) < held
        held = index.held(0)
    assert _counts(index, "a") == {1: 1}
    assert index.evicted_blocks == 1_900


def test_a_long_prompt_displaces_many_short_ones_bit_by_bit() -> None:
    index = PrefixIndex(default_blocks=2_000)
    _record_short(index, 0, 2_000)
    index.record(_SPACE, chain_of("x" * 1_000), 0)
    assert 2_000 < index.held(0) < 3_000
    while index.held(0) > 2_000:
        _record(index, "a", 1)
    assert _counts(index, "x" * 1_000) == {0: 1_000}


def test_all_slots_together_are_bounded_and_who_holds_most_gives_way() -> None:
    index = PrefixIndex(max_blocks=20)
    _record(index, "uvwxyz", 1)
    _record(index, "abcdefghijkl", 0)
    _record(index, "mnop", 2)
    assert index.blocks == 20
    assert [index.held(slot) for slot in range(3)] == [10, 6, 4]
    assert index.evicted_blocks == 2


def test_what_takes_memory_is_bounded_too() -> None:
    index = PrefixIndex(max_holdings=10)
    _record(index, "a long prompt is one run", 0)
    _record_short(index, 1, 8)
    for prompt in "xyz":
        _record(index, prompt * 2, 2)
    assert index.holdings == 10
    assert [index.held(slot) for slot in range(3)] == [24, 6, 6]


def test_a_large_index_makes_room_for_more_than_one_record() -> None:
    index = PrefixIndex(max_blocks=1_000)
    index.record(_SPACE, chain_of("x" * 600), 0)
    index.record(_SPACE, chain_of("y" * 401), 1)
    assert [index.held(slot) for slot in range(2)] == [596, 401]
    index = PrefixIndex(max_holdings=512)
    _record_short(index, 0, 513)
    assert index.holdings == 510


def test_what_was_cleared_gives_way_before_what_is_held() -> None:
    index = PrefixIndex(max_blocks=2_000)
    _record_short(index, 0, 2_000)
    index.clear(0)
    index.record(_SPACE, chain_of("x" * 1_000), 1)
    assert index.held(1) == 1_000
    while index.blocks > 2_000:
        _record(index, "a", 2)
    assert _counts(index, "x" * 1_000) == {1: 1_000}


def test_hashes_that_are_no_chain_do_no_harm() -> None:
    """Nobody can make the index count wrong for others by finding two prompts of one hash."""
    index = PrefixIndex()
    hashes = [[1, 2, 3], [5, 2, 4], [7, 7, 7], [7, 7], [7, 8], [1, 9, 3], [2], [3, 2, 1]]
    for slot, numbers in enumerate(hashes):
        index.record(_SPACE, struct.pack(f"<{len(numbers)}Q", *numbers), slot)
    match = index.match(_SPACE, struct.pack("<3Q", 1, 2, 3))
    assert match is not None
    assert match.counts[0] == 3
    for slot in range(len(hashes)):
        index.clear(slot)
    assert (index.blocks, index.holdings, index.nodes) == (0, 0, 0)


def test_many_slots_that_hold_a_run_in_part_are_told_apart() -> None:
    index = PrefixIndex(default_blocks=10)
    _record(index, "abcdefgh", 0)
    for slot in range(1, 9):
        _record(index, "abcdefgh", slot)
        _record(index, "0123456789"[: slot + 2], slot)
    expected = {0: 8, **{slot: 8 - slot for slot in range(1, 8)}}
    assert _counts(index, "abcdefgh") == expected
    _record(index, "abcd", 9)
    assert _counts(index, "abcdefgh") == {**expected, 9: 4}
    index.clear(0)
    del expected[0]
    assert _counts(index, "abcdefgh") == {**expected, 9: 4}
    match = index.match(_SPACE, chain_of("abc"))
    assert match is not None
    assert match.column(10).max() == 3
    assert np.count_nonzero(match.column(10)) == 8
