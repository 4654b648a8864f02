"""The radix tree under the prefix index: runs of blocks, who holds them, and who held them when.

A prompt is a chain of hashes, 8 bytes each; a hash covers the prompt up to the end of its block. A
**node** is a run of blocks that all prompts through it share, so a prompt is a path of few nodes
and what is done to it costs by nodes, not by blocks. There are no links from parent to children:
since a hash tells all that came before it, one table for the whole tree finds a node by its first
hash, together with a tag for the space of prompts that it belongs to.

A **holder** holds blocks. What it holds is closed under prefixes: who holds a block of a node holds
all blocks before that, in the node and in its ancestors. Each record of a prompt has a **stamp**, a
number that grows; a node bears for each holder the stamp of the last record through it. So the
nodes of a holder with one stamp are a piece of one path, from some node down to its **leaf**, and
an ancestor's stamp is never smaller. Cutting the leaf of the smallest stamp, again and again, is
therefore least recently used first, tails before heads.

Millions of nodes are no burden to Python's garbage collector: neither they nor the dictionaries
that hold them are of a kind that it looks at. They need none of it, since no node knows its
children, so that there is no cycle.
"""

from itertools import islice
from typing import Final

import msgspec

__all__ = ["HASH_BYTES", "Holder", "Node", "PrefixTree"]

HASH_BYTES: Final = 8
_SHARDS: Final = 256
"""The table in so many parts, so that none is long in growing."""

_OLDEST_AT_A_TIME: Final = 64


class Node(msgspec.Struct, eq=False, gc=False):
    """A run of blocks: ``hashes`` is never empty, but for the root.

    ``full`` has the bits of the holders of the whole run, at least one; ``partial`` says of the
    others how many of its blocks they hold, from the first on, at least one. ``stamps`` are by
    number of the holder. Where there is only one holder, as for most nodes, ``stamps`` is None and
    ``stamp`` is its stamp. ``key`` is where the node is in the table.
    """

    hashes: bytes
    key: bytes
    parent: "Node | None"
    full: int = 0
    stamp: int = 0
    children: int = 0
    stamps: dict[int, int] | None = None
    partial: dict[int, int] | None = None

    def stamp_of(self, holder: "Holder") -> int:
        """Return the holder's stamp, 0 where it holds nothing of the run."""
        if self.stamps is None:
            return self.stamp if self.full == holder.bit else 0
        return self.stamps.get(holder.number, 0)

    def blocks_of(self, holder: "Holder") -> int:
        """Return how many blocks of the run somebody holds who holds any."""
        if self.partial is not None and holder.number in self.partial:
            return self.partial[holder.number]
        return len(self.hashes) // HASH_BYTES


class Holder:
    """Who holds blocks, in a slot of the pool: ``bit`` is ``1 << number``.

    ``leaves`` are the leaves of the stamps, oldest first. ``slot`` is below 0 once what it holds is
    only waiting to be cut.
    """

    __slots__ = ("_oldest", "bit", "blocks", "capacity", "leaves", "number", "slot")

    def __init__(self, number: int, slot: int, capacity: int) -> None:
        self.number = number
        self.bit = 1 << number
        self.slot = slot
        self.capacity = capacity
        self.blocks = 0
        self.leaves: dict[int, Node] = {}
        self._oldest: list[int] = []

    def oldest(self) -> int:
        """Return the smallest stamp of what it holds, which must be something.

        Finding the first entry of a dictionary means going past all that were deleted before it, so
        several are found at a time. They stay the oldest, for new stamps are always larger.
        """
        while True:
            while self._oldest:
                if self._oldest[-1] in self.leaves:
                    return self._oldest[-1]
                self._oldest.pop()
            self._oldest = list(islice(self.leaves, _OLDEST_AT_A_TIME))
            self._oldest.reverse()


class PrefixTree:
    """The nodes of all spaces, and the holders by number.

    ``blocks`` are the pairs of a block and who holds it, ``holdings`` those of a node and who holds
    any of it, ``nodes`` counts the nodes.
    """

    def __init__(self) -> None:
        self.blocks = 0
        self.holdings = 0
        self.nodes = 0
        self.holders: list[Holder | None] = []
        self._root = Node(hashes=b"", key=b"", parent=None)
        self._shards: list[dict[bytes, Node]] = [{} for _ in range(_SHARDS)]

    def walk(self, tag: bytes, chain: bytes) -> list[tuple[Node, int]]:
        """Return the path of a chain, each node with how many bytes of the chain end there.

        All but the last node match to their ends. Raises ValueError for half a hash.
        """
        if len(chain) % HASH_BYTES:
            raise ValueError(f"a chain has {HASH_BYTES} bytes a block, not {len(chain)} in all")
        path: list[tuple[Node, int]] = []
        node, at = self._root, 0
        while at < len(chain):
            child = self._shards[chain[at]].get(chain[at : at + HASH_BYTES] + tag)
            if child is None or child.parent is not node:
                break
            if not chain.startswith(child.hashes, at):
                path.append((child, at + _common_bytes(child.hashes, chain, at)))
                break
            at += len(child.hashes)
            path.append((child, at))
            node = child
        return path

    def record(self, holder: Holder, tag: bytes, chain: bytes, stamp: int) -> tuple[int, int]:
        """Have the holder hold the chain, as of a stamp larger than any before.

        Returns how many blocks it holds of the chain, and how many of them it did before. It holds
        less than the whole only where the chain's hashes are also those of another chain.
        """
        path = self.walk(tag, chain)
        node, at = self._end(path)
        added = sum([self._take(taken, holder, stamp) for taken, _ in path])
        rest = chain[at:]
        if rest and node.full == holder.bit and not node.children:
            node.hashes += rest
        elif rest:
            child = self._add(node, rest, tag)
            if child is None:
                rest = b""
            else:
                child.full, child.stamp = holder.bit, stamp
                self.holdings += 1
                node = child
        if node is not self._root:
            holder.leaves[stamp] = node
        added += len(rest) // HASH_BYTES
        holder.blocks += added
        self.blocks += added
        recorded = (at + len(rest)) // HASH_BYTES
        return recorded, recorded - added

    def depth(self, holder: Holder, stamp: int) -> int:
        """Return how many blocks there are up to the last that is held with this stamp, 0 for a
        stamp that nothing has any more."""
        leaf = holder.leaves.get(stamp)
        if leaf is None:
            return 0
        depth = leaf.blocks_of(holder)
        while leaf.parent is not None:
            leaf = leaf.parent
            depth += len(leaf.hashes) // HASH_BYTES
        return depth

    def cut(self, holder: Holder, stamp: int, most_blocks: int) -> int:
        """Cut up to so many blocks off the end of what the holder holds with this stamp.

        It ends with the leaf; cut again where that was not enough. Returns the blocks cut.
        """
        leaf = holder.leaves[stamp]
        cut = leaf.blocks_of(holder)
        if cut > most_blocks:
            _keep(leaf, holder, cut - most_blocks)
            cut = most_blocks
        else:
            parent = self._drop(leaf, holder)
            if parent.stamp_of(holder) == stamp:
                holder.leaves[stamp] = parent
            else:
                del holder.leaves[stamp]
        holder.blocks -= cut
        self.blocks -= cut
        return cut

    def _end(self, path: list[tuple[Node, int]]) -> tuple[Node, int]:
        """Return the last node of a path and how many bytes end there, split so that it matches to
        its end. Where it cannot be split, it is taken off the path."""
        if not path:
            return self._root, 0
        last, end = path[-1]
        start = path[-2][1] if len(path) > 1 else 0
        if end - start == len(last.hashes):
            return last, end
        head = self._split(last, end - start)
        if head is None:
            path.pop()
            return path[-1] if path else (self._root, 0)
        path[-1] = (head, end)
        return path[-1]

    def _take(self, node: Node, holder: Holder, stamp: int) -> int:
        """Have the holder hold the whole run, with this stamp; return the blocks it had not."""
        old_stamp = node.stamp_of(holder)
        had = node.blocks_of(holder) if old_stamp else 0
        if old_stamp:
            if holder.leaves.get(old_stamp) is node:
                del holder.leaves[old_stamp]
        else:
            self.holdings += 1
            if node.stamps is None:
                node.stamps = {node.full.bit_length() - 1: node.stamp}
        if node.stamps is None:
            node.stamp = stamp
            return 0
        node.stamps[holder.number] = stamp
        node.full |= holder.bit
        if node.partial is not None:
            node.partial.pop(holder.number, None)
            node.partial = node.partial or None
        return len(node.hashes) // HASH_BYTES - had

    def _add(self, parent: Node, hashes: bytes, tag: bytes) -> Node | None:
        """Return a new node, None where another one has its place in the table."""
        key = hashes[:HASH_BYTES] + tag
        shard = self._shards[key[0]]
        if key in shard:
            return None
        node = shard[key] = Node(hashes=hashes, key=key, parent=parent)
        parent.children += 1
        self.nodes += 1
        return node

    def _split(self, node: Node, head_bytes: int) -> Node | None:
        """Return a new node for the first bytes of the run; the old one is that of the rest.

        None where another node has the place of the rest in the table.
        """
        hashes = node.hashes[head_bytes:]
        key = hashes[:HASH_BYTES] + node.key[HASH_BYTES:]
        if key in self._shards[key[0]]:
            return None
        head = Node(
            hashes=node.hashes[:head_bytes],
            key=node.key,
            parent=node.parent,
            full=node.full,
            stamp=node.stamp,
            children=1,
            stamps=None if node.stamps is None else dict(node.stamps),
        )
        self._shards[head.key[0]][head.key] = head
        self._shards[key[0]][key] = node
        node.hashes, node.key, node.parent = hashes, key, head
        self.nodes += 1
        self.holdings += 1 if node.stamps is None else len(node.stamps)
        self._split_partial(head, node)
        return head

    def _split_partial(self, head: Node, node: Node) -> None:
        """Share out between head and rest what those hold who did not hold the whole run."""
        partial, node.partial = node.partial, None
        if partial is None or node.stamps is None:
            return
        head_blocks = len(head.hashes) // HASH_BYTES
        in_head: dict[int, int] = {}
        in_rest: dict[int, int] = {}
        for number, held in partial.items():
            if held >= head_blocks:
                head.full |= 1 << number
            else:
                in_head[number] = held
            if held > head_blocks:
                in_rest[number] = held - head_blocks
                continue
            stamp = node.stamps.pop(number)
            self.holdings -= 1
            holder = self.holders[number]
            if holder is not None:
                holder.leaves[stamp] = head
        head.partial = in_head or None
        node.partial = in_rest or None
        _settle(node)

    def _drop(self, node: Node, holder: Holder) -> Node:
        """Have the holder hold nothing of the run; return the node's parent."""
        parent = node.parent
        if parent is None:
            raise AssertionError("nobody holds the root")
        self.holdings -= 1
        if node.stamps is None:
            del self._shards[node.key[0]][node.key]
            parent.children -= 1
            self.nodes -= 1
            return parent
        del node.stamps[holder.number]
        node.full &= ~holder.bit
        if node.partial is not None:
            node.partial.pop(holder.number, None)
        _settle(node)
        return parent


def _common_bytes(hashes: bytes, chain: bytes, at: int) -> int:
    """Return how much of a run the chain has from ``at`` on, where it has the first block of it.

    Chained hashes are equal up to some block and nowhere after it.
    """
    same, limit = 1, min(len(hashes), len(chain) - at) // HASH_BYTES
    while same < limit:
        middle = (same + limit + 1) // 2
        begin = (middle - 1) * HASH_BYTES
        if chain.startswith(hashes[begin : begin + HASH_BYTES], at + begin):
            same = middle
        else:
            limit = middle - 1
    return same * HASH_BYTES


def _keep(node: Node, holder: Holder, blocks: int) -> None:
    """Have the holder hold only the first blocks of the run."""
    if node.stamps is None:
        node.hashes = node.hashes[: blocks * HASH_BYTES]
        return
    if node.partial is None:
        node.partial = {}
    node.partial[holder.number] = blocks
    node.full &= ~holder.bit
    _settle(node)


def _settle(node: Node) -> None:
    """After somebody holds less of the run: cut off what nobody holds, and keep one holder's stamp
    without a dictionary."""
    if not node.full and node.partial:
        longest = max(node.partial.values())
        node.hashes = node.hashes[: longest * HASH_BYTES]
        for number, held in list(node.partial.items()):
            if held == longest:
                del node.partial[number]
                node.full |= 1 << number
    node.partial = node.partial or None
    if node.stamps is not None and len(node.stamps) == 1:
        (node.stamp,) = node.stamps.values()
        node.stamps = None
