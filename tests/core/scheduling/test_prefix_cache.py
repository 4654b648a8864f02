"""What the prefix cache makes of dispatches, failures, restarts and what engines tell."""

import numpy as np
import pytest

from epp.core.gate import Ending
from epp.core.pool import Lease, Pool
from epp.core.request import Request
from epp.core.scheduling.prefix_cache import PrefixCache, PrefixHits

from .support import NOW, candidates_of, make, pool_of, request_of, told

_SERVED = Ending(
    status=200, cause="complete", duration_s=1.0, response_bytes=None, first_byte_s=0.2
)


def _chain(text: str) -> bytes:
    """Return a prompt of as many blocks as there are letters; equal beginnings are equal."""
    return b"".join(
        hash(text[: end + 1]).to_bytes(8, "little", signed=True) for end in range(len(text))
    )


def _ask(text: str, model: str = "m", salt: str = "") -> Request:
    prompt_tokens = 64 * len(text)
    return request_of(model, prefix=_chain(text), cache_salt=salt, prompt_tokens=prompt_tokens)


def _place(cache: PrefixCache, pool: Pool, slot: int, request: Request) -> Lease:
    lease = pool.lease(slot)
    cache.placed(request, lease, NOW)
    return lease


def _hits(cache: PrefixCache, pool: Pool, request: Request) -> PrefixHits:
    return cache.produce(candidates_of(pool, request))


def _blocks(cache: PrefixCache, pool: Pool, request: Request) -> list[int]:
    return _hits(cache, pool, request).blocks[:3].tolist()


@pytest.fixture
def pool() -> Pool:
    return pool_of(3)


def test_what_was_sent_to_an_endpoint_is_what_it_has(pool: Pool) -> None:
    cache = PrefixCache()
    _place(cache, pool, 1, _ask("abcd"))
    hits = _hits(cache, pool, _ask("abxyz"))
    assert hits.blocks[:3].tolist() == [0, 2, 0]
    assert hits.total_blocks == 5
    assert hits.ratio[:3].tolist() == [0.0, 0.4, 0.0]
    assert hits.tokens[:3].tolist() == [0.0, 128.0, 0.0]
    assert hits.blocks.shape == pool.active.shape


def test_a_chat_that_grows_keeps_hitting(pool: Pool) -> None:
    cache = PrefixCache()
    chat = "system"
    for turn in range(20):
        if turn:
            assert _blocks(cache, pool, _ask(chat)) == [0, 0, len(chat) - 3]
        _place(cache, pool, 2, _ask(chat))
        chat += "abc"


def test_models_and_salts_have_caches_of_their_own(pool: Pool) -> None:
    cache = PrefixCache()
    _place(cache, pool, 0, _ask("abc", model="m", salt="s"))
    assert _blocks(cache, pool, _ask("abc", model="m", salt="s")) == [3, 0, 0]
    assert _blocks(cache, pool, _ask("abc", model="n", salt="s")) == [0, 0, 0]
    assert _blocks(cache, pool, _ask("abc", model="m")) == [0, 0, 0]


def test_it_follows_the_endpoint_that_really_served(pool: Pool) -> None:
    cache = PrefixCache()
    ask = _ask("abcd")
    lease = _place(cache, pool, 0, ask)
    assert lease.move(pool.endpoint(2).destination)
    cache.moved(ask, lease, 0, NOW)
    cache.ended(ask, lease, _SERVED, NOW)
    assert _blocks(cache, pool, ask) == [0, 0, 4]


@pytest.mark.parametrize(("status", "first_byte_s"), [(503, 0.1), (400, 0.1), (200, None)])
def test_what_failed_before_it_began_or_was_refused_is_not_there(
    pool: Pool, status: int, first_byte_s: float | None
) -> None:
    cache = PrefixCache()
    _place(cache, pool, 0, _ask("ab"))
    lease = _place(cache, pool, 0, _ask("abcd"))
    ending = Ending(
        status=status,
        cause="aborted",
        duration_s=1.0,
        response_bytes=None,
        first_byte_s=first_byte_s,
    )
    cache.ended(_ask("abcd"), lease, ending, NOW)
    assert _blocks(cache, pool, _ask("abcd")) == [2, 0, 0]


def test_a_successor_knows_what_was_recorded_of_a_request_that_runs(pool: Pool) -> None:
    former, cache = PrefixCache(), PrefixCache()
    lease = _place(former, pool, 0, _ask("abcd"))
    cache.succeed(former)
    lease.move(pool.endpoint(2).destination)
    cache.moved(_ask("abcd"), lease, 0, NOW)
    assert _blocks(cache, pool, _ask("abcd")) == [0, 0, 4]


def test_an_engine_that_restarts_or_leaves_has_nothing(pool: Pool) -> None:
    cache = PrefixCache()
    for slot in (0, 1):
        _place(cache, pool, slot, _ask("abc"))
    cache.restarted(0)
    assert _blocks(cache, pool, _ask("abc")) == [0, 3, 0]
    cache.freed(1)
    assert _blocks(cache, pool, _ask("abc")) == [0, 0, 0]


def test_the_capacity_is_the_engine_s_own_in_its_own_blocks(pool: Pool) -> None:
    cache = PrefixCache()
    cache.scraped(pool, 0, told(block_tokens=16, cache_blocks=20), NOW)  # 320 tokens: 5 blocks
    _place(cache, pool, 0, _ask("abcdefgh"))
    assert _blocks(cache, pool, _ask("abcdefgh")) == [5, 0, 0]


def test_where_engines_are_not_heeded_the_capacity_is_the_configured_one(pool: Pool) -> None:
    cache = PrefixCache(default_tokens=3 * 64, heeds_engines=False)
    cache.scraped(pool, 0, told(block_tokens=16, cache_blocks=20), NOW)
    _place(cache, pool, 0, _ask("abcdefgh"))
    assert _blocks(cache, pool, _ask("abcdefgh")) == [3, 0, 0]


def test_an_engine_of_larger_blocks_hits_whole_ones_only(pool: Pool) -> None:
    cache = PrefixCache()
    cache.scraped(pool, 0, told(block_tokens=256, cache_blocks=1000), NOW)
    for slot in (0, 1):
        _place(cache, pool, slot, _ask("abcdef"))
    assert _blocks(cache, pool, _ask("abcdefg")) == [4, 6, 0]
    cache.scraped(pool, 0, told(block_tokens=16, cache_blocks=1000), NOW)  # another engine
    assert _blocks(cache, pool, _ask("abcdefg")) == [6, 6, 0]


def test_what_the_placed_request_had_to_compute_is_told(pool: Pool) -> None:
    cache = PrefixCache()
    first = _place(cache, pool, 0, _ask("abcd"))
    second = _place(cache, pool, 0, _ask("abcdef"))
    assert cache.uncached_tokens(_ask("abcd"), first) == 4 * 64
    assert cache.uncached_tokens(_ask("abcdef"), second) == 2 * 64
    assert (cache.looked_up_blocks, cache.hit_blocks) == (10, 4)


def test_a_request_without_hashes_hits_nothing_and_leaves_nothing(pool: Pool) -> None:
    cache = PrefixCache()
    lease = _place(cache, pool, 0, request_of(prompt_tokens=100))
    cache.ended(request_of(), lease, _SERVED, NOW)
    hits = _hits(cache, pool, request_of())
    assert hits.total_blocks == 0
    assert not np.any(hits.ratio)
    assert cache.index.blocks == 0


def test_a_new_configuration_goes_on_with_the_index_where_blocks_are_alike(pool: Pool) -> None:
    former = PrefixCache()
    _place(former, pool, 0, _ask("abc"))
    same, other = PrefixCache(), PrefixCache(block_tokens=128)
    same.succeed(former)
    other.succeed(former)
    assert _blocks(same, pool, _ask("abc")) == [3, 0, 0]
    assert _blocks(other, pool, _ask("abc")) == [0, 0, 0]


def test_the_parameters_are_the_reference_s() -> None:
    cache = make("approx-prefix-cache-producer", {"lruCapacityPerServer": 8, "autoTune": False})
    assert cache.block_tokens == 64
    assert cache.index.capacity(0) == 2  # 8 blocks of 16 tokens
    assert make("approx-prefix-cache-producer", {"blockSizeTokens": 4}).block_tokens == 16
