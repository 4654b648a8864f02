"""Pools, requests and candidates for the tests of scheduling plugins."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from epp.core.pool import EngineLoad, Pool
from epp.core.request import FlowKey, Request
from epp.core.resources import Endpoint
from epp.core.scheduling import Candidates
from epp.core.scheduling.catalogue import CATALOGUE
from epp.core.scheduling.prefix_cache import PrefixHits

__all__ = [
    "NOW",
    "UNKNOWN",
    "FixedHits",
    "PluginsByName",
    "candidates_of",
    "make",
    "pool_of",
    "request_of",
    "told",
]

NOW = 1000.0
BLOCK_TOKENS = 64


def told(
    waiting: float = 0.0, running: float = 0.0, kv_ratio: float = 0.0, **others: Any
) -> EngineLoad:
    """Return what an engine tells: all 0 but for what is given."""
    return EngineLoad(waiting=waiting, running=running, kv_ratio=kv_ratio, **others)


UNKNOWN = told(math.nan, math.nan, math.nan)
"""What an engine tells that answers and says nothing."""


def pool_of(
    loads: int | Sequence[EngineLoad | None],
    *,
    labels: Sequence[Mapping[str, str]] = (),
    in_flight: Iterable[int] = (),
    tokens: int = 0,
    max_concurrency: int = 1000,
) -> Pool:
    """Return a pool with endpoints in the slots from 0 on, as many as there are ``loads``.

    Their engines have told these loads at ``NOW``; None has told nothing. ``labels`` and
    ``in_flight`` are those of the first endpoints; each request in flight has so many ``tokens``.
    """
    each_load = [None] * loads if isinstance(loads, int) else loads
    each_labels = [*labels, *({} for _ in each_load)]
    pool = Pool(max_concurrency=max_concurrency)
    pool.apply(
        Endpoint(
            name=f"default/server-{slot}",
            address=f"10.0.{slot // 250}.{slot % 250 + 1}",
            port=8000,
            labels=each_labels[slot],
        )
        for slot in range(len(each_load))
    )
    for slot, count in enumerate(in_flight):
        for _ in range(count):
            pool.lease(slot, tokens)
    for slot, load in enumerate(each_load):
        if load is not None:
            pool.scraped(slot, load, NOW)
    return pool


def request_of(model: str = "base", **others: Any) -> Request:
    """Return a request for a model."""
    return Request(flow=FlowKey(0, "tenant"), model=model, **others)


def candidates_of(
    pool: Pool,
    request: Request | None = None,
    *,
    slots: Sequence[int] | None = None,
    now: float = NOW,
    seed: int = 0,
) -> Candidates:
    """Return the candidates in these slots, in this order; all that are active, if None."""
    chosen = pool.active.nonzero()[0] if slots is None else np.array(slots, dtype=np.intp)
    return Candidates(request or request_of(), pool, chosen, now, random.Random(seed))


class FixedHits:
    """A producer of prefix hits that knows from the beginning what it finds.

    ``blocks`` are those of the first slots; the others have none.
    """

    def __init__(
        self, total_blocks: int, blocks: Sequence[int] = (), block_tokens: int = BLOCK_TOKENS
    ) -> None:
        self.total_blocks = total_blocks
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.asked = 0

    def produce(self, candidates: Candidates) -> PrefixHits:
        self.asked += 1
        blocks = np.zeros(len(candidates.pool.active), dtype=np.int64)
        blocks[: len(self.blocks)] = self.blocks
        return PrefixHits(self.total_blocks, self.block_tokens, blocks)


class PluginsByName:
    """What a plugin is made with: other plugins, those of the catalogue made when asked for."""

    def __init__(self, plugins: Mapping[str, object] | None = None, name: str = "plugin") -> None:
        self.name = name
        self.plugins = dict(plugins or {})

    def plugin(self, name: str, *, default_type: str) -> Any:
        """Return the plugin of this name, or the one of the type."""
        if name and name not in self.plugins:
            raise ValueError(f'found no plugin "{name}"')
        key = name or default_type
        if key not in self.plugins:
            self.plugins[key] = make(default_type, context=self)
        return self.plugins[key]

    def secret(self, path: str) -> bytes:
        """Return what stands for the key in this file."""
        return b"the key of " + path.encode().ljust(16)


def make(
    type: str,
    parameters: Mapping[str, object] | None = None,
    *,
    context: PluginsByName | None = None,
    **plugins: object,
) -> Any:
    """Make a plugin of the catalogue as a configuration does, of parameters by their names there.

    ``plugins`` are those that it may ask for, by name or type, with underscores for hyphens.
    """
    definition = CATALOGUE[type]
    by_name = {name.replace("_", "-"): plugin for name, plugin in plugins.items()}
    typed = msgspec.convert(parameters or {}, definition.parameters)
    return definition.make(typed, context or PluginsByName(by_name))
