"""``approx-prefix-cache-producer``: which endpoint probably has how much of a prompt in its cache.

Nobody tells it: an engine caches the prompts that it has served, so what was sent to an endpoint is
what it has, least recently used blocks forgotten first, as engines do. Prompts are compared by the
chained hashes of their blocks (:mod:`epp.core.parsing.prefix`), apart by model and cache salt.

A block here is a fixed number of estimated tokens, whatever the engines' own blocks are: pools of
different engines have one index that way, and nothing is lost when an engine is not heard of yet.
What an engine tells of its blocks, it is heeded for: an engine of larger blocks can use whole ones
only, so matches are cut to them, and its capacity is ``cache_blocks * block_tokens`` tokens.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from epp.core.gate import Ending
from epp.core.pool import Column, EngineLoad, Lease, Pool
from epp.core.pool.prefix_index import PrefixIndex, Recording
from epp.core.pool.prefix_tree import HASH_BYTES
from epp.core.request import Request
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.plugin import Observer

if TYPE_CHECKING:
    from epp.core.scheduling.candidates import Candidates

__all__ = ["PREFIX_CACHE", "PrefixCache", "PrefixCacheParameters", "PrefixHits"]

_LEAST_BLOCK_TOKENS: Final = 16
_DEFAULT_BLOCK_TOKENS: Final = 64
_ERROR: Final = 400

_Count = Annotated[int, msgspec.Meta(ge=0, le=10**9, description="a whole number up to 1000000000")]


class PrefixHits:
    """How much of one request's prompt each endpoint has: arrays have shape ``(slots,)``.

    ``total_blocks`` is the length of the prompt in full blocks of ``block_tokens`` tokens,
    ``blocks`` how many of them, from the first on, each endpoint has.
    """

    def __init__(self, total_blocks: int, block_tokens: int, blocks: npt.NDArray[np.int64]) -> None:
        self.total_blocks = total_blocks
        self.block_tokens = block_tokens
        self.blocks = blocks

    @cached_property
    def ratio(self) -> Column:
        """The share of the prompt's blocks, 0 to 1."""
        if not self.total_blocks:
            return np.zeros(len(self.blocks))
        ratio = self.blocks.astype(np.float64)
        ratio /= self.total_blocks
        return ratio

    @cached_property
    def tokens(self) -> Column:
        """The same in tokens."""
        tokens = self.blocks.astype(np.float64)
        tokens *= self.block_tokens
        return tokens


class PrefixCache(Observer):
    """Keeps the index of one pool: fed by what is dispatched and where it was really served.

    ``block_tokens`` is the size of the blocks that requests are hashed in, ``default_tokens`` what
    an engine's cache holds that does not tell. ``heeds_engines`` says whether what they tell
    counts. What is noted of a lease stands there under the index, for the successor that has it.
    """

    def __init__(
        self, *, block_tokens: int = 64, default_tokens: int = 500_000, heeds_engines: bool = True
    ) -> None:
        self.block_tokens = block_tokens
        self._heeds_engines = heeds_engines
        self._default_blocks = max(1, default_tokens // block_tokens)
        self.index = PrefixIndex(default_blocks=self._default_blocks)
        self._step_blocks: dict[int, int] = {}
        self.looked_up_blocks = 0
        self.hit_blocks = 0

    def produce(self, candidates: "Candidates") -> PrefixHits:
        """Return how much of the prompt each endpoint has."""
        request, slots = candidates.request, len(candidates.pool.active)
        total = len(request.prefix) // HASH_BYTES
        match = self.index.match(_space(request), request.prefix) if total else None
        if match is None:
            return PrefixHits(total, self.block_tokens, np.zeros(slots, dtype=np.int64))
        blocks = match.column(slots)
        for slot, step in self._step_blocks.items():
            blocks[slot] -= blocks[slot] % step
        return PrefixHits(total, self.block_tokens, blocks)

    def held_tokens(self, request: Request) -> dict[int, int]:
        """Return the same in tokens, by slot, of those that have any of it."""
        match = self.index.match(_space(request), request.prefix) if request.prefix else None
        if match is None:
            return {}
        steps, tokens = self._step_blocks, self.block_tokens
        return {
            slot: (blocks - blocks % steps.get(slot, 1)) * tokens
            for slot, blocks in match.counts.items()
        }

    # epp.core.scheduling.Observer

    def succeed(self, former: Observer) -> None:
        """Go on with the index, if its blocks are of the same size."""
        if isinstance(former, PrefixCache) and former.block_tokens == self.block_tokens:
            self.index = former.index
            self._step_blocks = former._step_blocks
            self.looked_up_blocks = former.looked_up_blocks
            self.hit_blocks = former.hit_blocks

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """The endpoint will have the prompt; so the next one like it can follow at once."""
        if request.prefix:
            recording = self.index.record(_space(request), request.prefix, lease.slot)
            lease.notes[self.index] = recording
            self.looked_up_blocks += len(request.prefix) // HASH_BYTES
            self.hit_blocks += recording.held_before

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """The endpoint that was meant has not got the prompt, another one has."""
        recording: Recording | None = lease.notes.get(self.index)
        if recording is not None:
            self.index.forget(recording)
            lease.notes[self.index] = self.index.record(_space(request), request.prefix, lease.slot)

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """What has failed before it began, or was refused, was not computed."""
        recording: Recording | None = lease.notes.get(self.index)
        failed = ending.first_byte_s is None or ending.status >= _ERROR
        if failed and recording is not None:
            self.index.forget(recording)

    def uncached_tokens(self, request: Request, lease: Lease) -> int:
        """Return how many tokens of a request's prompt its endpoint had not, when it was placed."""
        recording: Recording | None = lease.notes.get(self.index)
        held = 0 if recording is None else recording.held_before * self.block_tokens
        return max(0, request.prompt_tokens - held)

    def freed(self, slot: int) -> None:
        """The endpoint is gone."""
        self._step_blocks.pop(slot, None)
        self.index.clear(slot)
        self.index.set_capacity(slot, self._default_blocks)

    def restarted(self, slot: int) -> None:
        """The engine begins with nothing."""
        self.index.clear(slot)

    def scraped(self, pool: Pool, slot: int, load: EngineLoad, now: float) -> None:
        """The engine may have told of its cache."""
        if not (self._heeds_engines and load.block_tokens and load.cache_blocks):
            return
        blocks = load.block_tokens * load.cache_blocks // self.block_tokens
        self.index.set_capacity(slot, max(1, blocks))
        step = load.block_tokens // self.block_tokens
        if step > 1:
            self._step_blocks[slot] = step
        else:
            self._step_blocks.pop(slot, None)


class PrefixCacheParameters(Parameters, frozen=True, kw_only=True):
    """Of ``approx-prefix-cache-producer``."""

    auto_tune: Annotated[bool, msgspec.Meta(description="true or false")] = True
    block_size_tokens: Annotated[
        int, msgspec.Meta(ge=1, le=65_536, description="a whole number from 1 to 65536")
    ] = _DEFAULT_BLOCK_TOKENS
    block_size: _Count | None = None
    max_prefix_blocks_to_match: _Count = 2048
    max_prefix_tokens_to_match: _Count = 131_072
    lru_capacity_per_server: _Count = 31_250


def _make(parameters: PrefixCacheParameters, context: PluginContext) -> PrefixCache:
    size = parameters.block_size_tokens
    if parameters.block_size and size == _DEFAULT_BLOCK_TOKENS:
        size = parameters.block_size
    return PrefixCache(
        block_tokens=max(size, _LEAST_BLOCK_TOKENS),
        default_tokens=parameters.lru_capacity_per_server * _LEAST_BLOCK_TOKENS,
        heeds_engines=parameters.auto_tune,
    )


def _space(request: Request) -> tuple[str, str]:
    return request.model, request.cache_salt


PREFIX_CACHE = PluginDefinition(
    type="approx-prefix-cache-producer",
    summary="Keeps track of which endpoint probably has which prompts in its prefix cache.",
    make=_make,
    parameters=PrefixCacheParameters,
    explains={
        "autoTune": "Whether an engine's own word on the size of its cache counts.",
        "blockSizeTokens": "The tokens of a block in which prompts are compared, at least 16.",
        "blockSize": "The former name of blockSizeTokens.",
        "maxPrefixTokensToMatch": "How much of a prompt is compared, in tokens.",
        "maxPrefixBlocksToMatch": "The former limit, in blocks; heeded where"
        " maxPrefixTokensToMatch is 0.",
        "lruCapacityPerServer": "What the cache of an engine holds that does not tell, in blocks of"
        " 16 tokens.",
    },
)
