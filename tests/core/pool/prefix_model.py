"""A naive model of the prefix index, and prompts as chains."""

import hashlib

__all__ = ["PrefixModel", "chain_of"]


def chain_of(prompt: str) -> bytes:
    """Return the chain of a prompt whose blocks are its characters."""
    return b"".join(
        hashlib.blake2b(prompt[: end + 1].encode(), digest_size=8).digest()
        for end in range(len(prompt))
    )


class PrefixModel:
    """What one slot holds: for each block, which is a space and all of the prompt up to its end,
    the time of its last use."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used: dict[tuple[str, str], int] = {}

    def count(self, space: str, prompt: str) -> int:
        """Return how many leading blocks it holds."""
        count = 0
        while count < len(prompt) and (space, prompt[: count + 1]) in self.used:
            count += 1
        return count

    def record(self, space: str, prompt: str, now: int) -> None:
        """Use the prompt's blocks, then let go of the least recently used, tails first."""
        for end in range(1, min(len(prompt), self.capacity) + 1):
            self.used[space, prompt[:end]] = now
        self.shrink()

    def shrink(self) -> None:
        """Let go of what is beyond the capacity."""
        while len(self.used) > self.capacity:
            oldest = min(self.used, key=lambda block: (self.used[block], -len(block[1])))
            del self.used[oldest]

    def forget(self, space: str, prompt: str, from_block: int, now: int) -> None:
        """Let go of the blocks from there on that were last used then."""
        for end in range(from_block + 1, len(prompt) + 1):
            if self.used.get((space, prompt[:end])) == now:
                del self.used[space, prompt[:end]]
