"""``no-hit-lru-scorer``: prompts that nobody has cached go where it is longest ago that one went.

So new prompts, with all that will follow them, spread over the caches of the pool.
"""

from collections import OrderedDict
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from epp.core.pool import Column, Lease
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates, Producer
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.prefix_cache import PrefixHits

__all__ = ["NO_HIT_LRU_SCORER", "NoHitLruScorer"]

_PRODUCER: Final = "approx-prefix-cache-producer"
_INDIFFERENT: Final = 0.5


class NoHitLruScorer(Observer):
    """``score = 1 - rank / (n - 1)`` for a prompt of which no candidate has a block, else 0.5 for
    all; a single candidate scores 1.

    Endpoints that never got such a prompt rank first, in the order of their slots, then the others,
    who got one least recently before. The last ``most_endpoints`` that got one are remembered.
    Source: the llm-d router's ``no-hit-lru-scorer``, which ranks by the place among all endpoints
    that got one, where this ranks among the candidates alone: there, a few candidates of many may
    all score 0. An endpoint whose engine has restarted is as good as new.
    """

    def __init__(self, producer: Producer[PrefixHits], most_endpoints: int = 1024) -> None:
        self._producer = producer
        self._most_endpoints = most_endpoints
        self._slots: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._turns: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # 0 for never
        self._turn = 0
        self._cold: Request | None = None

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        slots, count = candidates.slots, len(candidates)
        is_warm = candidates.produced(self._producer).blocks[slots].any()
        self._cold = None if is_warm else candidates.request
        if is_warm:
            return np.full(count, _INDIFFERENT)
        all_slots = len(candidates.pool.active)
        self._reserve(all_slots)
        order = (self._turns[slots] * all_slots + slots).argsort()
        scores = np.empty(count)
        scores[order] = np.linspace(1.0, 0.0, count)
        return scores

    # epp.core.scheduling.Observer

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """An endpoint has got a prompt that nobody had, if it is the one that was just scored."""
        if request is self._cold:
            lease.notes[self] = True
            self._use(lease.slot)

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """Another endpoint has got it, too."""
        if self in lease.notes:
            self._use(lease.slot)

    def freed(self, slot: int) -> None:
        """The endpoint is gone."""
        self._forget(slot)

    def restarted(self, slot: int) -> None:
        """The cache is empty."""
        self._forget(slot)

    def _use(self, slot: int) -> None:
        self._reserve(slot + 1)
        self._turn += 1
        self._turns[slot] = self._turn
        self._slots[slot] = None
        self._slots.move_to_end(slot)
        if len(self._slots) > self._most_endpoints:
            self._forget(next(iter(self._slots)))

    def _forget(self, slot: int) -> None:
        if slot in self._slots:
            del self._slots[slot]
            self._turns[slot] = 0

    def _reserve(self, slots: int) -> None:
        missing = slots - len(self._turns)
        if missing > 0:
            self._turns = np.concatenate([self._turns, np.zeros(missing, dtype=np.int64)])


_Text = Annotated[str, msgspec.Meta(description="text")]


class NoHitLruParameters(Parameters, frozen=True, kw_only=True):
    """Of ``no-hit-lru-scorer``."""

    lru_size: Annotated[
        int, msgspec.Meta(ge=1, le=10**6, description="a whole number from 1 to 10^6")
    ] = 1024
    prefix_match_info_producer_name: _Text = ""
    prefix_plugin_type: _Text = ""
    prefix_plugin_name: _Text = ""


def _make(parameters: NoHitLruParameters, context: PluginContext) -> NoHitLruScorer:
    return NoHitLruScorer(
        context.plugin(parameters.prefix_match_info_producer_name, default_type=_PRODUCER),
        parameters.lru_size,
    )


NO_HIT_LRU_SCORER = PluginDefinition(
    type="no-hit-lru-scorer",
    summary="Spreads the prompts that nobody has cached: prefers endpoints that got none for long.",
    make=_make,
    parameters=NoHitLruParameters,
    explains={
        "lruSize": "How many endpoints are remembered, those that got a prompt last.",
        "prefixMatchInfoProducerName": "The producer that knows the prefix caches, by default"
        f" {_PRODUCER}.",
        "prefixPluginType": "Deprecated, has no effect: see prefixMatchInfoProducerName.",
        "prefixPluginName": "Deprecated, has no effect: see prefixMatchInfoProducerName.",
    },
)
