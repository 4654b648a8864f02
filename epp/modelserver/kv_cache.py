"""The KV cache: a fixed number of blocks, shared by reference count, reused by prefix.

It knows blocks and hashes, not sequences or time. A block is in one of three states: in use (by one
sequence or more), free but still holding a prefix that a later prompt may match, or free and empty.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

__all__ = ["KvCache"]


class KvCache:
    """``num_blocks`` blocks; free ones are handed out empty first, then least recently used first.

    A full block is published under the hash of all tokens up to its end, so equal prefixes have
    equal chains of hashes and a prefix is matched block by block.
    """

    def __init__(self, num_blocks: int, *, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self._prefix_caching = prefix_caching
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_blocks))
        self._users = [0] * num_blocks
        self._hash_of: dict[int, int] = {}
        self._block_of: dict[int, int] = {}

    @property
    def num_free(self) -> int:
        """How many blocks no sequence uses, whether or not they still hold a prefix."""
        return len(self._free)

    @property
    def usage_ratio(self) -> float:
        """The share of blocks that sequences use, 0 to 1."""
        return 1.0 - len(self._free) / self.num_blocks

    def match(self, hashes: Iterable[int]) -> list[int]:
        """Return the blocks that hold the longest cached prefix of this chain of block hashes."""
        blocks: list[int] = []
        for block_hash in hashes:
            block = self._block_of.get(block_hash)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def take(self, cached: Sequence[int], fresh: int) -> list[int] | None:
        """Give out the ``cached`` blocks that :meth:`match` found, then ``fresh`` empty ones.

        Returns ``None``, with nothing changed, if there are not enough free blocks.
        """
        free_after_cached = len(self._free) - sum(1 for block in cached if not self._users[block])
        if free_after_cached < fresh:
            return None
        for block in cached:
            if not self._users[block]:
                del self._free[block]
            self._users[block] += 1
        return [*cached, *(self._take_fresh() for _ in range(fresh))]

    def publish(self, block: int, block_hash: int) -> None:
        """Make a block that has become full findable; a no-op if its content is cached already."""
        if self._prefix_caching and block_hash not in self._block_of and block not in self._hash_of:
            self._hash_of[block] = block_hash
            self._block_of[block_hash] = block

    def release(self, blocks: Sequence[int]) -> None:
        """Take back one use of each block of a sequence.

        The tail becomes free before the head, so that it is evicted first: a head without its tail
        can still be matched, a tail without its head cannot.
        """
        for block in reversed(blocks):
            self._users[block] -= 1
            if not self._users[block]:
                self._free[block] = None
                if block not in self._hash_of:
                    self._free.move_to_end(block, last=False)

    def _take_fresh(self) -> int:
        block, _ = self._free.popitem(last=False)
        evicted = self._hash_of.pop(block, None)
        if evicted is not None:
            del self._block_of[evicted]
        self._users[block] = 1
        return block
