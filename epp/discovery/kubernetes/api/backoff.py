"""How long to wait before the next try."""

import random

__all__ = ["Backoff"]


class Backoff:
    """Exponential, with full jitter: the n-th pause in a row is drawn evenly from 0 to
    ``first_s`` · 2ⁿ, ``longest_s`` at most. Many who have lost the same server at the same moment
    so come back spread over the whole of that time.

    Source: M. Brooker, "Exponential Backoff And Jitter", 2015. The client library of Kubernetes
    waits 0.8 to 30 s as well.
    """

    def __init__(
        self, generator: random.Random, *, first_s: float = 0.8, longest_s: float = 30.0
    ) -> None:
        self._generator = generator
        self._first_s = first_s
        self._longest_s = longest_s
        self._ceiling_s = min(first_s, longest_s)

    def next_s(self) -> float:
        """Return the next pause."""
        pause_s = self._generator.uniform(0.0, self._ceiling_s)
        self._ceiling_s = min(self._longest_s, 2 * self._ceiling_s)
        return pause_s

    def ease(self, longest_s: float) -> None:
        """Let the next pause be no longer than this: there is somebody again, though not well."""
        self._ceiling_s = min(self._ceiling_s, longest_s)

    def reset(self) -> None:
        """Begin with short pauses again: something has worked."""
        self._ceiling_s = min(self._first_s, self._longest_s)
