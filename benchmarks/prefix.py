"""Measure the prefix index: time of lookups and records by length of the prompt and number of
endpoints, memory per block, and how it behaves when it is full.

It drives the index by itself, with prompts of random hashes. README.md beside this file says more.
"""

import argparse
import gc
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from loadkit.command import positive, progress
from loadkit.report import machine_line, table

from epp.core.pool.prefix_index import PrefixIndex, PrefixMatch
from epp.core.pool.prefix_tree import HASH_BYTES

_LENGTHS: Final = (4, 240, 1_600, 2_048)
_ENDPOINTS: Final = (10, 100, 1_000)
_SPACE: Final = ("model", "")
_SHARED_BLOCKS: Final = 32
_TURN_BLOCKS: Final = 10
_TURNS: Final = 20
_CHATS_AT_A_TIME: Final = 200
_MOVES: Final = 0.05
_WITHOUT_END: Final = 1 << 40


class Times(msgspec.Struct, frozen=True):
    """CPU time of single calls, in microseconds."""

    median: float
    p99: float
    max: float


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """Prompts of so many blocks, the first of which every endpoint holds; each endpoint is full."""

    endpoints: int
    blocks: int
    match: Times
    column: Times
    record_again: Times
    record_new: Times


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What prompts of some shape take. ``blocks`` are pairs of a block and an endpoint."""

    shape: str
    blocks: int
    holdings: int
    bytes_per_block: float
    bytes_per_holding: float


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """The index at its bounds; ``collection_ms`` is one full run of the garbage collector."""

    blocks: int
    holdings: int
    rss_bytes: int
    fill_s: float
    match: Times
    column: Times
    record: Times
    clear: Times
    record_after_clear: Times
    collection_ms: float


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    machine: str
    lookups: tuple[Lookup, ...]
    memories: tuple[Memory, ...]
    full: Full


def main() -> int:
    """Run the benchmark and return the exit code."""
    arguments = _parser().parse_args()
    document = Document(
        machine=machine_line(),
        lookups=tuple(
            _lookup(endpoints, blocks, arguments.calls)
            for endpoints in arguments.endpoints
            for blocks in arguments.lengths
        ),
        memories=tuple(_memory(shape, arguments.memory_blocks) for shape in _SHAPES),
        full=_full(max(arguments.endpoints), arguments.full_blocks, arguments.calls),
    )
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
    else:
        print(_render(document))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Measure the prefix index. Takes about 20 s and 500 MB of memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--calls", type=positive, default=2_000, metavar="N", help="of each kind")
    parser.add_argument(
        "--lengths", type=positive, nargs="+", default=_LENGTHS, metavar="N", help="prompts' blocks"
    )
    parser.add_argument("--endpoints", type=positive, nargs="+", default=_ENDPOINTS, metavar="N")
    parser.add_argument(
        "--memory-blocks",
        type=positive,
        default=300_000,
        metavar="N",
        help="blocks held where memory is measured",
    )
    parser.add_argument(
        "--full-blocks",
        type=positive,
        default=10_000_000,
        metavar="N",
        help="blocks held when the index is full, a tenth as many holdings",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document with all figures"
    )
    return parser


def _lookup(endpoints: int, blocks: int, calls: int) -> Lookup:
    progress(f"prompts of {blocks} blocks at {endpoints} endpoints")
    rng = random.Random(1)
    index = PrefixIndex()
    shared = _hashes(rng, min(_SHARED_BLOCKS, blocks // 2))

    def prompt() -> tuple[bytes, int]:
        own = blocks - len(shared) // HASH_BYTES
        return shared + _hashes(rng, own), rng.randrange(endpoints)

    for slot in range(endpoints):
        index.record(_SPACE, shared, slot)
        index.set_capacity(slot, max(4 * blocks, 1_000))
    for _ in range(endpoints * 8):
        index.record(_SPACE, *prompt())
    recent = [prompt() for _ in range(min(100, endpoints))]
    recent = [(chain, slot) for slot, (chain, _) in enumerate(recent)]
    for chain, slot in recent:
        index.record(_SPACE, chain, slot)
    known = [recent[number % len(recent)] for number in range(calls)]
    matches = [_found(index, chain) for chain, _ in known]
    return Lookup(
        endpoints=endpoints,
        blocks=blocks,
        match=_times([lambda c=chain: index.match(_SPACE, c) for chain, _ in known]),
        column=_times([lambda m=match: m.column(endpoints) for match in matches]),
        record_again=_times([lambda p=each: index.record(_SPACE, *p) for each in known]),
        record_new=_times(
            [lambda p=each: index.record(_SPACE, *p) for each in (prompt() for _ in range(calls))]
        ),
    )


def _long_prompts(rng: random.Random) -> Iterator[tuple[bytes, int]]:
    """Prompts of 240 blocks with nothing in common."""
    while True:
        yield _hashes(rng, 240), rng.randrange(10)


def _chats(rng: random.Random) -> Iterator[tuple[bytes, int]]:
    """Conversations of 20 turns of 10 blocks, 200 at a time in random order. They stay where they
    are, but for one turn in 20."""
    shared = _hashes(rng, _SHARED_BLOCKS)
    chats = [(shared, rng.randrange(10)) for _ in range(_CHATS_AT_A_TIME)]
    while True:
        number = rng.randrange(len(chats))
        chain, slot = chats[number]
        if len(chain) >= HASH_BYTES * (_SHARED_BLOCKS + _TURNS * _TURN_BLOCKS):
            chain, slot = shared, rng.randrange(10)
        if rng.random() < _MOVES:
            slot = rng.randrange(10)
        chats[number] = chain + _hashes(rng, _TURN_BLOCKS), slot
        yield chats[number]


def _short_prompts(rng: random.Random) -> Iterator[tuple[bytes, int]]:
    """A shared prompt and one or two blocks of each prompt's own."""
    shared = _hashes(rng, _SHARED_BLOCKS)
    while True:
        yield shared + _hashes(rng, rng.randint(1, 2)), rng.randrange(10)


_SHAPES: Final[dict[str, Callable[[random.Random], Iterator[tuple[bytes, int]]]]] = {
    "long unique prompts, 240 blocks": _long_prompts,
    "chats, 10 more blocks a turn": _chats,
    "a shared prompt and 1 or 2 blocks": _short_prompts,
}


def _memory(shape: str, blocks: int) -> Memory:
    progress(f"memory: {shape}")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    index = PrefixIndex(default_blocks=_WITHOUT_END)
    prompts = _SHAPES[shape](random.Random(1))
    while index.blocks < blocks:
        index.record(_SPACE, *next(prompts))
    del prompts
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Memory(
        shape=shape,
        blocks=index.blocks,
        holdings=index.holdings,
        bytes_per_block=(after - before) / index.blocks,
        bytes_per_holding=(after - before) / index.holdings,
    )


def _full(endpoints: int, blocks: int, calls: int) -> Full:
    """Fill an index to its bounds with prompts of a shared beginning and ten blocks of their own,
    then go on."""
    progress(f"{blocks} blocks at {endpoints} endpoints")
    rng = random.Random(1)
    gc.collect()
    rss_bytes = _rss_bytes()
    index = PrefixIndex(
        default_blocks=_WITHOUT_END, max_blocks=blocks, max_holdings=blocks // _TURN_BLOCKS
    )
    shared = _hashes(rng, _SHARED_BLOCKS)

    def prompt() -> tuple[bytes, int]:
        return shared + _hashes(rng, _TURN_BLOCKS), rng.randrange(endpoints)

    start_s = time.thread_time()
    while not index.evicted_blocks:
        index.record(_SPACE, *prompt())
    fill_s = time.thread_time() - start_s
    rss_bytes = _rss_bytes() - rss_bytes
    held, holdings = index.blocks, index.holdings
    prompts = [prompt() for _ in range(calls)]
    record = _times([lambda p=each: index.record(_SPACE, *p) for each in prompts])
    known = prompts[-max(1, calls // 10) :]
    matches = [_found(index, chain) for chain, _ in known]
    start_s = time.thread_time()
    gc.collect()
    collection_ms = (time.thread_time() - start_s) * 1e3
    return Full(
        blocks=held,
        holdings=holdings,
        rss_bytes=rss_bytes,
        fill_s=fill_s,
        match=_times([lambda c=chain: index.match(_SPACE, c) for chain, _ in known]),
        column=_times([lambda m=match: m.column(endpoints) for match in matches]),
        record=record,
        clear=_times([lambda s=slot: index.clear(s) for slot in range(min(10, endpoints))]),
        record_after_clear=_times([lambda p=each: index.record(_SPACE, *p) for each in prompts]),
        collection_ms=collection_ms,
    )


def _found(index: PrefixIndex, chain: bytes) -> PrefixMatch:
    match = index.match(_SPACE, chain)
    if match is None:
        raise AssertionError("nobody holds a prompt that was recorded")
    return match


def _hashes(rng: random.Random, blocks: int) -> bytes:
    return rng.randbytes(blocks * HASH_BYTES)


def _times(calls: list[Callable[[], object]]) -> Times:
    """Return what each call takes, the garbage collector's share left out. Some 0.6 microseconds
    of it are for asking the clock."""
    spent_ns = []
    gc.collect()
    gc.disable()
    for call in calls:
        start_ns = time.thread_time_ns()
        call()
        spent_ns.append(time.thread_time_ns() - start_ns)
    gc.enable()
    spent_ns.sort()
    return Times(
        median=spent_ns[len(spent_ns) // 2] / 1e3,
        p99=spent_ns[len(spent_ns) * 99 // 100] / 1e3,
        max=spent_ns[-1] / 1e3,
    )


def _rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _render(document: Document) -> str:
    lookups = [("endpoints", "blocks", "match, µs", "column, µs", "record again", "record new")]
    lookups += [
        (
            f"{each.endpoints}",
            f"{each.blocks}",
            _cell(each.match),
            _cell(each.column),
            _cell(each.record_again),
            _cell(each.record_new),
        )
        for each in document.lookups
    ]
    memories = [("prompts", "blocks", "holdings", "bytes/block", "bytes/holding")]
    memories += [
        (
            each.shape,
            f"{each.blocks}",
            f"{each.holdings}",
            f"{each.bytes_per_block:.1f}",
            f"{each.bytes_per_holding:.0f}",
        )
        for each in document.memories
    ]
    full = document.full
    return "\n".join(
        [
            document.machine,
            "",
            "CPU time of one call, median (99th percentile, maximum), in microseconds:",
            "",
            *table(lookups),
            "",
            *table(memories),
            "",
            f"Full: {full.blocks} blocks, {full.holdings} holdings, {full.rss_bytes / 1e6:.0f} MB"
            f" of RSS; filled in {full.fill_s:.1f} s. In microseconds:",
            f"match {_cell(full.match)}, column {_cell(full.column)}, record while evicting"
            f" {_cell(full.record)},",
            f"clear of an endpoint {_cell(full.clear)}, record after that"
            f" {_cell(full.record_after_clear)}; a full garbage collection"
            f" {full.collection_ms:.0f} ms.",
        ]
    )


def _cell(times: Times) -> str:
    return f"{times.median:.1f} ({times.p99:.1f}, {times.max:.0f})"


if __name__ == "__main__":
    sys.exit(main())
