from epp.modelserver.kv_cache import KvCache


def test_blocks_are_given_out_and_taken_back() -> None:
    cache = KvCache(4)
    blocks = cache.take((), 3)
    assert blocks is not None
    assert len(set(blocks)) == 3
    assert (cache.num_free, cache.usage_ratio) == (1, 0.75)
    cache.release(blocks)
    assert (cache.num_free, cache.usage_ratio) == (4, 0.0)


def test_too_few_blocks_change_nothing() -> None:
    cache = KvCache(4)
    held = cache.take((), 2)
    assert held is not None
    cache.publish(held[0], 1)
    cache.release(held)
    # The cached block is one of the four free ones: three are left for the rest.
    assert cache.take(cache.match([1]), 4) is None
    assert cache.num_free == 4
    assert cache.take(cache.match([1]), 3) is not None
    assert cache.num_free == 0


def test_a_prefix_is_matched_up_to_the_first_gap() -> None:
    cache = KvCache(4)
    blocks = cache.take((), 3)
    assert blocks is not None
    cache.publish(blocks[0], 10)
    cache.publish(blocks[2], 12)
    assert cache.match([10, 11, 12]) == [blocks[0]]
    assert cache.match([11, 12]) == []


def test_a_shared_block_is_free_after_its_last_user() -> None:
    cache = KvCache(2)
    first = cache.take((), 1)
    assert first is not None
    cache.publish(first[0], 7)
    second = cache.take(cache.match([7]), 0)
    assert second == first
    cache.release(first)
    assert cache.num_free == 1
    cache.release(second)
    assert cache.num_free == 2


def test_empty_blocks_go_first_then_tails_then_the_least_recently_used() -> None:
    cache = KvCache(4)
    old, new, empty = cache.take((), 2), cache.take((), 1), cache.take((), 1)
    assert old is not None
    assert new is not None
    assert empty is not None
    for block, block_hash in zip([*old, *new], (1, 2, 3), strict=True):
        cache.publish(block, block_hash)
    cache.release(old)
    cache.release(new)
    cache.release(empty)
    survivors = []
    for _ in range(4):
        assert cache.take((), 1) is not None
        survivors.append([bool(cache.match([block_hash])) for block_hash in (1, 2, 3)])
    assert survivors == [
        [True, True, True],
        [True, False, True],
        [False, False, True],
        [False, False, False],
    ]


def test_equal_content_is_cached_once() -> None:
    cache = KvCache(2)
    blocks = cache.take((), 2)
    assert blocks is not None
    cache.publish(blocks[0], 5)
    cache.publish(blocks[1], 5)
    assert cache.match([5]) == [blocks[0]]


def test_nothing_is_cached_without_prefix_caching() -> None:
    cache = KvCache(1, prefix_caching=False)
    blocks = cache.take((), 1)
    assert blocks is not None
    cache.publish(blocks[0], 5)
    assert cache.match([5]) == []
