"""Which endpoint probably has which prompt prefixes in its KV cache.

An engine caches the prompts that it computes, block by block, and forgets the least recently used
first, the end of a prompt before its beginning. So what was sent to an endpoint, in the order in
which it was, tells what its cache holds, as long as as much is forgotten here as there.

:mod:`epp.core.pool.prefix_tree` says how that is kept. Here are the slots of the pool, capacities
and bounds. Nothing here takes long at once: what has to be cut and is more than ``_STEPS`` runs is
cut bit by bit with the records that follow, while lookups know at once that a slot was cleared.
"""

import heapq
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from epp.core.pool.prefix_tree import HASH_BYTES, Holder, PrefixTree

__all__ = ["PrefixIndex", "PrefixMatch", "Recording"]

_TAG_BYTES: Final = 7
_STEPS: Final = 256
_STEPS_FOR_OTHERS: Final = 32
_MOST_MARGIN: Final = 256
_FEW: Final = 8


class PrefixMatch(msgspec.Struct, frozen=True, gc=False):
    """How much of one prompt each slot holds.

    ``blocks`` is the length of the prompt; ``runs`` are pairs of a number of leading blocks and the
    bits of those who hold so many, each holder in one at most, ``slot_of`` the slots of the
    holders.
    """

    blocks: int
    runs: list[tuple[int, int]]
    slot_of: npt.NDArray[np.intp]

    @property
    def counts(self) -> dict[int, int]:
        """The leading blocks by slot, of the slots that hold any."""
        slot_of = self.slot_of.tolist()
        return {slot_of[number]: held for held, bits in self.runs for number in _numbers(bits)}

    def column(self, slots: int) -> npt.NDArray[np.int64]:
        """Return the leading blocks by slot, shape ``(slots,)``. Raises IndexError where a slot
        beyond these holds any."""
        column = np.zeros(slots, dtype=np.int64)
        alone: dict[int, int] = {}
        for held, bits in self.runs:
            if bits.bit_count() == 1:
                alone[bits.bit_length() - 1] = held
            else:
                column[self.slot_of[_numbers(bits)]] = held
        if alone:  # all at once: each access to an array takes a microsecond
            column[self.slot_of[list(alone)]] = list(alone.values())
        return column


class Recording(msgspec.Struct, frozen=True, gc=False):
    """That a prompt was recorded, for :meth:`PrefixIndex.forget`.

    The slot holds ``blocks`` leading blocks of it, ``held_before`` of which it did already.
    """

    slot: int
    blocks: int
    held_before: int
    stamp: int


class PrefixIndex:
    """Who holds which prompts, of one pool.

    A prompt is ``chain``, 8 bytes for each full block: equal bytes at a block mean equal prompts up
    to its end. ``space`` is what must be equal besides: the model and the client's cache salt.
    Slots are small numbers, those of the pool.

    A slot holds ``default_blocks`` at most until :meth:`set_capacity` says otherwise. It holds more
    only after a record or a smaller capacity has displaced very many runs: the last of them go with
    later records. All slots together hold ``max_blocks`` at most, and have ``max_holdings``
    holdings (a run of blocks, and who holds it), which are what takes memory: 8 bytes for each
    block that anybody holds and 200 to 350 bytes for each holding. Beyond that, the slot that holds
    most gives way.

    ``added_blocks`` counts what was recorded and not held before, ``evicted_blocks`` what was cut
    for want of room.
    """

    def __init__(
        self,
        *,
        default_blocks: int = 31_250 * 16 // 64,
        max_blocks: int = 10_000_000,
        max_holdings: int = 1_000_000,
    ) -> None:
        self.added_blocks = 0
        self.evicted_blocks = 0
        self._default_blocks = default_blocks
        self._max_blocks = max_blocks
        self._max_holdings = max_holdings
        self._tree = PrefixTree()
        self._capacities: dict[int, int] = {}
        self._holders: dict[int, Holder] = {}
        self._slot_of: npt.NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._shrinking: dict[int, Holder] = {}
        self._cleared = 0
        self._free: list[int] = []
        self._stamp = 0

    @property
    def blocks(self) -> int:
        """Pairs of a block and who holds it, those that are still to be cut included."""
        return self._tree.blocks

    @property
    def holdings(self) -> int:
        """Pairs of a run of blocks and who holds any of it."""
        return self._tree.holdings

    @property
    def nodes(self) -> int:
        """Runs of blocks."""
        return self._tree.nodes

    @property
    def fullness(self) -> float:
        """How near the index is to the nearest of its bounds, which is 1."""
        return max(self.blocks / self._max_blocks, self.holdings / self._max_holdings)

    def held(self, slot: int) -> int:
        """Return how many blocks a slot holds."""
        holder = self._holders.get(slot)
        return 0 if holder is None else holder.blocks

    def capacity(self, slot: int) -> int:
        """Return how many blocks a slot may hold."""
        return self._capacities.get(slot, self._default_blocks)

    def match(self, space: tuple[str, str], chain: bytes) -> PrefixMatch | None:
        """Return how much of a prompt each slot holds, None where no slot holds any.

        It changes nothing, nor does it count as use: those that are not picked do not use it.
        """
        path = self._tree.walk(_tag(space), chain)
        runs: list[tuple[int, int]] = []
        seen = self._cleared
        for depth in range(len(path) - 1, -1, -1):
            node, end = path[depth]
            if node.full == seen and node.partial is None:
                continue
            end_blocks = end // HASH_BYTES
            new = node.full & ~seen
            if new:
                runs.append((end_blocks, new))
            if node.partial is not None:
                start = path[depth - 1][1] // HASH_BYTES if depth else 0
                for number, held in node.partial.items():
                    if not seen >> number & 1:
                        runs.append((min(start + held, end_blocks), 1 << number))
                        new |= 1 << number
            seen |= new
        return PrefixMatch(len(chain) // HASH_BYTES, runs, self._slot_of) if runs else None

    def record(self, space: tuple[str, str], chain: bytes, slot: int) -> Recording:
        """Note that a slot will hold this prompt, of one that is too long as much as it can.

        What it holds of it already counts as used just now. What it held of others gives way where
        there is no room, least recently used first.
        """
        holder = self._holders.get(slot) or self._new_holder(slot)
        self._stamp += 1
        recorded, before = self._tree.record(
            holder, _tag(space), chain[: holder.capacity * HASH_BYTES], self._stamp
        )
        self.added_blocks += recorded - before
        if holder.blocks > holder.capacity:
            self._shrink(holder, _STEPS)
        if self._shrinking:
            self._shrink(next(iter(self._shrinking.values())), _STEPS_FOR_OTHERS)
        if self._tree.blocks > self._max_blocks or self._tree.holdings > self._max_holdings:
            self._relieve()
        return Recording(slot, recorded, before, self._stamp)

    def forget(self, recording: Recording) -> None:
        """Note that the slot has not computed that prompt after all.

        Blocks that it held before stay, and those that were recorded for another prompt, or again
        for an equal one, since then.
        """
        holder = self._holders.get(recording.slot)
        if holder is None:
            return
        stamp = recording.stamp
        excess = self._tree.depth(holder, stamp) - recording.held_before
        while excess > 0 and stamp in holder.leaves:
            excess -= self._tree.cut(holder, stamp, excess)

    def set_capacity(self, slot: int, blocks: int) -> None:
        """Let a slot hold so many blocks; :meth:`clear` does not change that."""
        self._capacities[slot] = blocks
        holder = self._holders.get(slot)
        if holder is not None:
            holder.capacity = blocks
            self._shrink(holder, _STEPS)

    def clear(self, slot: int) -> None:
        """Note that a slot holds nothing: its endpoint has restarted or left."""
        holder = self._holders.pop(slot, None)
        if holder is not None:
            holder.slot = -1
            holder.capacity = 0
            self._cleared |= holder.bit
            self._shrink(holder, _STEPS)

    def _new_holder(self, slot: int) -> Holder:
        holders = self._tree.holders
        if not self._free:
            holders.append(None)
            self._free.append(len(holders) - 1)
        number = heapq.heappop(self._free)
        holder = holders[number] = Holder(number, slot, self.capacity(slot))
        self._holders[slot] = holder
        slot_of = np.zeros(len(holders), dtype=np.intp)  # matches made before keep theirs
        slot_of[: len(self._slot_of)] = self._slot_of
        slot_of[number] = slot
        self._slot_of = slot_of
        return holder

    def _shrink(self, holder: Holder, steps: int) -> None:
        """Cut what a holder has beyond its capacity, in so many steps at most; where that is not
        enough, remember it."""
        before = holder.blocks
        while steps and holder.blocks > holder.capacity:
            self._tree.cut(holder, holder.oldest(), holder.blocks - holder.capacity)
            steps -= 1
        if holder.slot >= 0:
            self.evicted_blocks += before - holder.blocks
        if holder.blocks > holder.capacity:
            self._shrinking[holder.number] = holder
            return
        self._shrinking.pop(holder.number, None)
        if holder.slot < 0:
            self._tree.holders[holder.number] = None
            heapq.heappush(self._free, holder.number)
            self._cleared &= ~holder.bit

    def _relieve(self) -> None:
        """Cut what is beyond the bounds of all slots, and some more, so that who has most need not
        be searched for with each record."""
        if self._shrinking:
            self._shrink(next(iter(self._shrinking.values())), _STEPS)
            return
        tree, steps = self._tree, _STEPS
        blocks = self._max_blocks - min(_MOST_MARGIN, self._max_blocks // _MOST_MARGIN)
        holdings = self._max_holdings - min(_MOST_MARGIN, self._max_holdings // _MOST_MARGIN)
        while steps and tree.blocks > self._max_blocks:
            fullest = max(self._holders.values(), key=lambda holder: holder.blocks)
            while steps and fullest.blocks and tree.blocks > blocks:
                self._evict(fullest, tree.blocks - blocks)
                steps -= 1
        while steps and tree.holdings > self._max_holdings:
            fullest = max(self._holders.values(), key=lambda holder: len(holder.leaves))
            while steps and fullest.blocks and tree.holdings > holdings:
                self._evict(fullest, fullest.blocks)
                steps -= 1

    def _evict(self, holder: Holder, most_blocks: int) -> None:
        self.evicted_blocks += self._tree.cut(holder, holder.oldest(), most_blocks)


def _tag(space: tuple[str, str]) -> bytes:
    """Return what tells prompts of different spaces apart: equal tags of different spaces are as
    unlikely as equal hashes of different prompts."""
    return hash(space).to_bytes(HASH_BYTES, "little", signed=True)[:_TAG_BYTES]


def _numbers(bits: int) -> npt.NDArray[np.intp] | list[int]:
    if bits.bit_count() <= _FEW:
        numbers = []
        while bits:
            lowest = bits & -bits
            numbers.append(lowest.bit_length() - 1)
            bits ^= lowest
        return numbers
    in_bytes = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(in_bytes, bitorder="little"))
