"""What tenants ask: how long it is, and what of it is in other prompts, too.

Everything is drawn when a conversation begins, from random numbers of the tenant's own, so tenants
ask the same whatever the policy is.
"""

import random
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate, count
from typing import Final, NamedTuple

import numpy as np

from epp.simulation.lengths import sampler
from epp.simulation.prefix_store import Text
from epp.simulation.scenario import Chat, Documents, Length, SharedPrefix, Tenant

__all__ = ["HASHED_TOKENS", "Ask", "Writer", "prefix_hashes"]

HASHED_TOKENS: Final = 64
"""The size of the blocks whose hashes the router is told: that of the gateway's own parser."""

_PIECES_PER_TENANT: Final = 1 << 40
_BEGINNING_SHARE: Final = 2


class Ask(NamedTuple):
    """One request, ``think_s`` seconds after the answer before, if there was one.

    ``text`` is empty where nothing is known of it; ``adapter`` is None for the tenant's own model.
    """

    prompt_tokens: int
    output_tokens: int
    text: Text = ()
    adapter: str | None = None
    think_s: float = 0.0


class Writer:
    """Writes the conversations of one tenant, the ``number``-th: no two write the same.

    Prompt and output together have at most ``most_tokens``; a beginning that is shared has at most
    half of that, and a chat ends where its next turn would not fit.
    """

    def __init__(self, tenant: Tenant, number: int, seed: str, most_tokens: int) -> None:
        self._tenant = tenant.name
        self._rng = random.Random(f"{seed}/text")
        self._prompt_tokens = sampler(tenant.prompt_tokens, random.Random(f"{seed}/prompt"))
        self._output_tokens = sampler(tenant.output_tokens, random.Random(f"{seed}/output"))
        self._most_output = most_tokens - 1  # there is at least one token of a prompt
        if tenant.max_tokens is not None:
            self._most_output = min(self._most_output, tenant.max_tokens)
        self._most_tokens = most_tokens
        self._numbers = count(_PIECES_PER_TENANT * number)
        adapters = tenant.adapters
        self._adapters = adapters.count if adapters else 0
        self._adapter = _zipf(adapters.count, adapters.zipf, self._rng) if adapters else _zero
        content = tenant.content
        self._has_text = content is not None
        self._turns, self._think_s = 1, 0.0
        if isinstance(content, Chat):
            self._turns, self._think_s = content.turns, content.think_s
        self._beginning: Callable[[], Text] = tuple
        if isinstance(content, Documents):
            self._beginning = self._documents(content)
        elif isinstance(content, SharedPrefix | Chat):
            self._beginning = self._prefixes(content)

    def conversation(self) -> list[Ask]:
        """Return the requests of the next conversation, at least one."""
        number = self._adapter()
        adapter = f"{self._tenant}-adapter-{number}" if self._adapters else None
        # What is the same for two adapters is computed by each for itself.
        text = tuple((piece * (self._adapters + 1) + number, end) for piece, end in
                     self._beginning())  # fmt: skip
        asks: list[Ask] = []
        while len(asks) < self._turns:
            begin = text[-1][1] if text else 0
            output = min(self._output_tokens(), self._most_output, self._most_tokens - begin - 1)
            prompt = begin + self._prompt_tokens()
            if asks and prompt + output > self._most_tokens:
                break
            prompt = min(prompt, self._most_tokens - output)
            if self._has_text:
                piece = next(self._numbers) * (self._adapters + 1)
                text = (*text, (piece, prompt + output))
            think_s = self._rng.expovariate(1.0 / self._think_s) if self._think_s else 0.0
            asks.append(Ask(prompt, output, text, adapter, think_s))
        return asks

    def _prefixes(self, content: SharedPrefix | Chat) -> Callable[[], Text]:
        pieces = [self._piece(content.prefix_tokens) for _ in range(content.prefixes)]
        draw = _zipf(content.prefixes, content.zipf, self._rng)
        return lambda: pieces[draw()]

    def _documents(self, content: Documents) -> Callable[[], Text]:
        """Return what draws one of the documents that are open; each gives way to another one when
        it has been asked about often enough."""
        rng, questions = self._rng, content.questions
        # Those that are there at the beginning are not all as far as each other.
        rows = [
            (self._piece(content.document_tokens), 1 + rng.randrange(questions))
            for _ in range(content.documents)
        ]

        def draw() -> Text:
            row = rng.randrange(content.documents)
            text, left = rows[row]
            rows[row] = (
                (text, left - 1) if left > 1 else (self._piece(content.document_tokens), questions)
            )
            return text

        return draw

    def _piece(self, length: Length) -> Text:
        tokens = sampler(length, self._rng)()
        return ((next(self._numbers), min(tokens, self._most_tokens // _BEGINNING_SHARE)),)


def prefix_hashes(text: Text, prompt_tokens: int) -> bytes:
    """Return what the gateway's parser would hash of a prompt: 8 bytes for each full block of
    ``HASHED_TOKENS``, equal where all tokens up to its end are."""
    blocks = prompt_tokens // HASHED_TOKENS
    if not text or not blocks:
        return b""
    numbers, ends = np.array(text, dtype=np.uint64).T
    index = np.arange(1, blocks + 1, dtype=np.uint64)
    piece = numbers[np.searchsorted(ends, index * np.uint64(HASHED_TOKENS))]
    # Odd factors and a shift, as in splitmix64: different pairs of piece and index differ.
    mixed = (piece * np.uint64(0x9E3779B97F4A7C15)) ^ (index * np.uint64(0xBF58476D1CE4E5B9))
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    hashes: bytes = (mixed ^ (mixed >> np.uint64(29))).tobytes()
    return hashes


def _zipf(values: int, exponent: float, rng: random.Random) -> Callable[[], int]:
    """Return a function that draws a number below ``values``, each with a probability that goes by
    ``1 / (number + 1) ** exponent``."""
    sums = list(accumulate((number + 1) ** -exponent for number in range(values)))
    return lambda: min(bisect(sums, rng.random() * sums[-1]), values - 1)


def _zero() -> int:
    return 0
