"""What an engine says of its load."""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["EngineLoad"]

_MOST_ATTRIBUTES: Final = 256


class EngineLoad(msgspec.Struct, frozen=True):
    """The state of a model server at one moment, as it tells it itself.

    ``waiting`` and ``running`` are requests in its own queue and in its batch, ``kv_ratio`` is the
    share of its KV cache in use, 0 to 1; each is NaN where it was not told. What follows may be
    told or not:

    ``active_adapters`` are the LoRA adapters of the requests that run, ``waiting_adapters`` those
    of the ones that wait, ``max_adapters`` how many can be loaded at a time, 0 where that is not
    told; ``base_models`` are the models that are no adapters, empty where that is not told, or
    there are no adapters.
    ``block_tokens`` and ``cache_blocks`` are the size of a block of the KV cache in tokens and how
    many there are, 0 where they are not told. ``started_s`` is when the engine's process began, in
    seconds since 1970, NaN where it is not told: another value is another process, with an empty
    cache. ``attributes`` are further numbers by name, as the configuration wants them.
    """

    waiting: float
    running: float
    kv_ratio: float
    active_adapters: frozenset[str] = frozenset()
    waiting_adapters: frozenset[str] = frozenset()
    max_adapters: int = 0
    base_models: frozenset[str] = frozenset()
    block_tokens: int = 0
    cache_blocks: int = 0
    started_s: float = math.nan
    attributes: Mapping[str, float] = {}

    def completed(self, before: "EngineLoad | None") -> "EngineLoad":
        """Return this with what was told ``before`` in the place of what is not told now.

        Attributes that were told before are dropped where there would be more than 256 in all.
        """
        if before is None:
            return self
        attributes = {**before.attributes, **self.attributes}
        return EngineLoad(
            waiting=before.waiting if math.isnan(self.waiting) else self.waiting,
            running=before.running if math.isnan(self.running) else self.running,
            kv_ratio=before.kv_ratio if math.isnan(self.kv_ratio) else self.kv_ratio,
            active_adapters=self.active_adapters or before.active_adapters,
            waiting_adapters=self.waiting_adapters or before.waiting_adapters,
            max_adapters=self.max_adapters or before.max_adapters,
            block_tokens=self.block_tokens or before.block_tokens,
            cache_blocks=self.cache_blocks or before.cache_blocks,
            started_s=before.started_s if math.isnan(self.started_s) else self.started_s,
            attributes=attributes if len(attributes) <= _MOST_ATTRIBUTES else self.attributes,
        )
