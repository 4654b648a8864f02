from epp.simulation.prefix_store import Piece, PrefixStore, Text

_SYSTEM_AND_USER: Text = ((1, 40), (2, 100))  # blocks 0 and 1, then 2 to 5


def _held(store: PrefixStore, text: Text, computed_tokens: int) -> list[Piece]:
    held: list[Piece] = []
    store.publish(text, held, computed_tokens)
    return held


def _blocks(store: PrefixStore, text: Text, most: int = 1000) -> int:
    return store.match(text, most)[0]


def test_full_blocks_are_found_up_to_where_texts_differ() -> None:
    store = PrefixStore(16)
    _held(store, _SYSTEM_AND_USER, 100)
    assert _blocks(store, _SYSTEM_AND_USER) == 6
    assert _blocks(store, _SYSTEM_AND_USER, most=4) == 4
    assert _blocks(store, ((1, 40), (3, 100))) == 2
    assert _blocks(store, ((4, 40), (2, 100))) == 0
    # The block in which the first piece ends belongs to the second.
    assert _blocks(store, ((1, 40),)) == 2


def test_what_is_not_computed_yet_is_not_found() -> None:
    store = PrefixStore(16)
    held = _held(store, _SYSTEM_AND_USER, 50)
    assert _blocks(store, _SYSTEM_AND_USER) == 3
    assert store.publish(_SYSTEM_AND_USER, held, 100) == (3, 0)
    assert store.publish(_SYSTEM_AND_USER, held, 100) == (0, 0)
    assert _blocks(store, _SYSTEM_AND_USER) == 6


def test_what_is_held_is_not_evicted_and_tails_go_before_heads() -> None:
    store = PrefixStore(16)
    held = _held(store, _SYSTEM_AND_USER, 100)
    store.shrink(0)
    assert _blocks(store, _SYSTEM_AND_USER) == 6
    assert (store.release(held), store.idle_blocks) == (6, 6)
    for left in (5, 3, 2, 1, 0):
        store.shrink(left)
        assert (_blocks(store, _SYSTEM_AND_USER), store.idle_blocks) == (left, left)


def test_who_was_used_least_recently_goes_first() -> None:
    store = PrefixStore(16)
    texts: list[Text] = [((number, 32),) for number in range(3)]
    for text in texts:
        store.release(_held(store, text, 32))
    _, pieces = store.match(texts[0], 2)
    assert store.idle_in(pieces) == 2
    store.hold(pieces)
    assert (store.idle_in(pieces), store.idle_blocks) == (0, 4)
    store.release(pieces)
    store.shrink(4)
    assert [_blocks(store, text) for text in texts] == [2, 0, 2]


def test_two_that_share_a_piece_hold_it_until_the_second_is_over() -> None:
    store = PrefixStore(16)
    first = _held(store, _SYSTEM_AND_USER, 100)
    _, second = store.match(((1, 40), (3, 100)), 6)
    store.hold(second)
    assert store.release(first) == 4
    store.shrink(0)
    assert _blocks(store, _SYSTEM_AND_USER) == 2
    assert store.release(second) == 2


def test_a_copy_of_what_is_cached_is_not_cached_again() -> None:
    store = PrefixStore(16)
    store.release(_held(store, ((1, 32),), 32))
    copy: list[Piece] = []
    assert store.publish(((1, 32),), copy, 32) == (0, 0)
    assert copy == []
    # But the rest of a piece whose tail was evicted is, and what there is of it is held.
    store.shrink(1)
    assert store.publish(((1, 32),), copy, 32) == (1, 1)
    assert [piece.blocks for piece in copy] == [2]
