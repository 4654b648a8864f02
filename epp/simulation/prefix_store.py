"""The prefix cache of a simulated engine, in pieces of text instead of blocks.

It is the model of :class:`epp.modelserver.kv_cache.KvCache`: full blocks are found by all that
comes before them, those of running sequences are held, the others are evicted least recently used
first, the tail of a sequence before its head. But what sequences have in common is known here: a
text is a chain of pieces (a system prompt, a document, a turn of a chat), and two texts share whole
pieces. So one entry for each piece, with the number of its leading blocks that are cached, says the
same as one for each block, and the work does not grow with the length of prompts.

What is left out: where two sequences compute parts of the same piece at the same time, both hold
all of it.
"""

from collections import OrderedDict
from typing import TypeAlias

__all__ = ["Piece", "PrefixStore", "Text"]

Text: TypeAlias = tuple[tuple[int, int], ...]
"""Prompt and output of a sequence: for each piece its number and where it ends, in tokens from the
beginning of the prompt. A piece's number stands for all that comes before it, too."""


class Piece:
    """What is cached of one piece: its first ``blocks`` blocks, held by ``users`` sequences."""

    __slots__ = ("blocks", "number", "users")

    def __init__(self, number: int) -> None:
        self.number = number
        self.blocks = 0
        self.users = 0


class PrefixStore:
    """What one engine has cached, in blocks of ``block_tokens`` tokens.

    ``idle_blocks`` are those that no sequence holds; :meth:`shrink` evicts them.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._pieces: dict[int, Piece] = {}
        self._idle: OrderedDict[int, Piece] = OrderedDict()  # least recently used first
        self.idle_blocks = 0

    def match(self, text: Text, most_blocks: int) -> tuple[int, list[Piece]]:
        """Return how many of the first ``most_blocks`` blocks are cached, and in which pieces."""
        matched, found, start = 0, [], 0
        for number, end_tokens in text:
            end = min(end_tokens // self._block_tokens, most_blocks)
            if end > start:
                piece = self._pieces.get(number)
                if piece is None:
                    break
                found.append(piece)
                matched += min(piece.blocks, end - start)
                if piece.blocks < end - start:
                    break
                start = end
            elif start >= most_blocks:
                break
        return matched, found

    def idle_in(self, pieces: list[Piece]) -> int:
        """Return how many blocks of these pieces no sequence holds."""
        return sum(piece.blocks for piece in pieces if not piece.users)

    def hold(self, pieces: list[Piece]) -> None:
        """Have one more sequence hold these pieces."""
        for piece in pieces:
            if not piece.users:
                del self._idle[piece.number]
                self.idle_blocks -= piece.blocks
            piece.users += 1

    def publish(self, text: Text, held: list[Piece], computed_tokens: int) -> tuple[int, int]:
        """Cache what a sequence has computed, as far as it is not cached, and add it to ``held``.

        Returns how many of its blocks are cached now that were not, and how many blocks it holds
        now that were idle.
        """
        added, revived, start = 0, 0, 0
        for number, end_tokens in text:
            end = min(end_tokens, computed_tokens) // self._block_tokens
            if end <= start:
                continue
            piece = self._pieces.get(number)
            if piece is None:
                piece = self._pieces[number] = Piece(number)
                piece.users = 1
                held.append(piece)
            elif piece.blocks < end - start and piece not in held:
                revived += self.idle_in([piece])
                self.hold([piece])
                held.append(piece)
            if piece.blocks < end - start:
                added += end - start - piece.blocks
                piece.blocks = end - start
            start = end
        return added, revived

    def release(self, held: list[Piece]) -> int:
        """Take back what a sequence held, in the order of its text; return the blocks that nobody
        holds any more. Tails become idle before heads, so they are evicted first."""
        freed = 0
        for piece in reversed(held):
            piece.users -= 1
            if not piece.users:
                self._idle[piece.number] = piece
                freed += piece.blocks
        self.idle_blocks += freed
        return freed

    def shrink(self, most_idle_blocks: int) -> None:
        """Evict idle blocks until there are no more than so many."""
        excess = self.idle_blocks - max(0, most_idle_blocks)
        while excess > 0:
            piece = next(iter(self._idle.values()))
            evicted = min(excess, piece.blocks)
            piece.blocks -= evicted
            self.idle_blocks -= evicted
            excess -= evicted
            if not piece.blocks:
                del self._idle[piece.number], self._pieces[piece.number]
