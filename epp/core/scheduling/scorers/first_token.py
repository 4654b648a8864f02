"""``first-token-scorer``: where the first token comes soonest, all in one number.

The other scorers each look at one sign of load, and a sum of their scores weighs seconds against
ratios. Here everything is brought into one unit, the time until the first token, told in tokens of
prompt that an engine computes in that time::

    cost = backlog + (1 + pollution) * uncached + recent_weight * recent
         + request_tokens * in flight + waiting_tokens * waiting + adapter

* ``backlog``: prompt tokens that were sent there before and should not be computed yet. Each
  dispatch adds what the prefix cache does not have; an engine computes ``tokens_per_s`` of them.
  It is no more than what is in flight there has added: an engine that is faster than was thought,
  or has refused a prompt, has no backlog of what has ended.
* ``uncached``: what this prompt adds. It also pushes as much out of the cache that others would
  have hit: ``pollution`` is what a token that is pushed out is worth.
* ``recent``: the prompt tokens that it was given to compute of late, and ``request_tokens`` for
  each request, which count the less the longer that is ago (1/e after ``recent_s``). Whoever has
  computed a prompt gets those that go on with it; so what is new goes where little else was new, or
  the same few serve most.
* ``in flight``: what decodes slows down every iteration, and holds the cache's memory.
* ``waiting``: the engine's own queue, brought up to date, where there was one when it told: behind
  it nothing is computed at all. Where there was none, newcomers need not wait.
* ``adapter``: what loading the LoRA adapter costs where it is not loaded, and more where all slots
  are taken, since one of them must first become free.

All of it counts as many times as an endpoint is slower than the others (:class:`Pace`).

``score = (least cost + 1) / (cost + 1)``: 1 for the best, half for twice the cost.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np

from epp.core.gate import Ending
from epp.core.pool import Column, EngineLoad, Lease, Pool
from epp.core.request import Request
from epp.core.scheduling.candidates import Candidates
from epp.core.scheduling.definition import Parameters, PluginContext, PluginDefinition
from epp.core.scheduling.plugin import Observer
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.core.scheduling.scorers.adapters import AdapterPlaces
from epp.core.scheduling.scorers.pace import Pace

__all__ = ["FIRST_TOKEN_SCORER", "FirstTokenOptions", "FirstTokenScorer"]

_FAILED: Final = 400


class FirstTokenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What things cost: see the formula of the module. ``adapter_load_s`` is the time to load an
    adapter into a slot that is free, ``adapter_wait_s`` the time until one becomes free."""

    tokens_per_s: float = 8_000.0
    pollution: float = 0.5
    request_tokens: float = 32.0
    waiting_tokens: float = 500.0
    adapter_load_s: float = 0.1
    adapter_wait_s: float = 2.0
    recent_s: float = 30.0
    recent_weight: float = 0.2


class FirstTokenScorer(Observer):
    """Scores by the formula of the module."""

    def __init__(self, prefix_cache: PrefixCache, options: FirstTokenOptions) -> None:
        self._prefix_cache = prefix_cache
        self._options = options
        self._done_s: Column = np.zeros(0)  # when each engine will have computed what it has got
        self._pending: Column = np.zeros(0)  # tokens of that, of the requests that have not ended
        self._note = object()  # the key of what is noted of them, also for a successor
        self._recent: Column = np.zeros(0)  # tokens given to each lately, as of ...
        self._recent_at_s = -math.inf
        self._adapters = AdapterPlaces()
        self._pace = Pace()

    def score(self, candidates: Candidates) -> Column:
        """Return the scores."""
        costs = self.costs(candidates)
        scores: Column = (costs.min() + 1.0) / (costs + 1.0)
        return scores

    def costs(self, candidates: Candidates) -> Column:
        """Return the costs, in tokens, of shape ``(n,)``."""
        parts = iter(self.parts(candidates).values())
        costs = next(parts)
        for part in parts:
            costs += part
        return costs

    def parts(self, candidates: Candidates) -> dict[str, Column]:
        """Return what the costs are made of, in tokens, of shape ``(n,)``."""
        options, slots = self._options, candidates.slots
        hits = candidates.produced(self._prefix_cache)
        self._reserve(len(candidates.pool.active))
        uncached = np.maximum(candidates.request.prompt_tokens - hits.tokens[slots], 0.0)
        backlog_s = np.maximum(self._done_s[slots] - candidates.now, 0.0)
        parts = {
            "backlog": backlog_s * options.tokens_per_s,
            "uncached": (1.0 + options.pollution) * uncached,
            "in flight": options.request_tokens * candidates.in_flight,
            "recent": options.recent_weight * self._faded(candidates.now) * self._recent[slots],
        }
        queues = candidates.pool.waiting[slots] > 0.0  # False for NaN
        if queues.any():
            waiting = options.waiting_tokens * candidates.waiting
            parts["waiting"] = np.where(queues, waiting, 0.0)
        if self._adapters.is_adapter(candidates.request.model):
            model = candidates.request.model
            parts["adapter"] = self._adapter_costs(len(candidates.pool.active), model)[slots]
        factors = self._pace.factors(candidates.pool.active)
        if factors is not None:
            for part in parts.values():
                part *= factors[slots]
        return parts

    def costs_of_few(
        self, request: Request, pool: Pool, slots: Sequence[int], now: float
    ) -> list[float]:
        """Return the costs of the endpoints in these slots, the same as :meth:`costs`."""
        options = self._options
        self._reserve(len(pool.active))
        held = self._prefix_cache.held_tokens(request)
        done_s, recent = self._done_s.tolist(), self._recent.tolist()
        in_flight, queues = pool.in_flight.tolist(), pool.waiting.tolist()
        of_recent = options.recent_weight * self._faded(now)
        of_uncached = 1.0 + options.pollution
        prompt, tokens_per_s = request.prompt_tokens, options.tokens_per_s
        costs = [
            max(done_s[slot] - now, 0.0) * tokens_per_s
            + of_uncached * max(prompt - held.get(slot, 0), 0)
            + options.request_tokens * in_flight[slot]
            + of_recent * recent[slot]
            for slot in slots
        ]
        if any(queues[slot] > 0.0 for slot in slots):  # False for NaN
            waiting = pool.effective_load(now).waiting.tolist()
            for index, slot in enumerate(slots):
                if queues[slot] > 0.0:
                    costs[index] += options.waiting_tokens * waiting[slot]
        if self._adapters.is_adapter(request.model):
            tokens = self._adapter_costs(len(pool.active), request.model).tolist()
            costs = [cost + tokens[slot] for cost, slot in zip(costs, slots, strict=True)]
        factors = self._pace.factors(pool.active)
        if factors is not None:
            times = factors.tolist()
            costs = [cost * times[slot] for cost, slot in zip(costs, slots, strict=True)]
        return costs

    # epp.core.scheduling.Observer

    def succeed(self, former: Observer) -> None:
        """Go on with what the engines have to do."""
        if isinstance(former, FirstTokenScorer):
            self._done_s = former._done_s
            self._pending, self._note = former._pending, former._note
            self._recent = former._recent
            self._recent_at_s = former._recent_at_s
            self._adapters.succeed(former._adapters)
            self._pace = former._pace

    def placed(self, request: Request, lease: Lease, now: float) -> None:
        """The endpoint has more to compute."""
        lease.notes[self] = now
        self._adapters.placed(request, lease, now)
        self._note_work(request, lease, now)

    def moved(self, request: Request, lease: Lease, from_slot: int, now: float) -> None:
        """Another endpoint has it to compute."""
        lease.notes[self] = now
        self._adapters.moved(request, lease, from_slot, now)
        self._forget_work(lease, from_slot, now, was_computed=False)
        self._note_work(request, lease, now)

    def ended(self, request: Request, lease: Lease, ending: Ending, now: float) -> None:
        """It is computed, or never will be; the adapter may be needed no more."""
        self._adapters.ended(request, lease, ending, now)
        failed = ending.first_byte_s is None or ending.status >= _FAILED
        self._forget_work(lease, lease.slot, now, was_computed=not failed)
        since_s: float | None = lease.notes.get(self)
        if since_s is not None and ending.cause == "complete" and ending.status < _FAILED:
            self._pace.ended(lease.slot, now - since_s, (request.flow, request.model))

    def scraped(self, pool: Pool, slot: int, load: EngineLoad, now: float) -> None:
        """The engine may have adapters."""
        self._adapters.scraped(pool, slot, load, now)

    def freed(self, slot: int) -> None:
        """The endpoint is gone."""
        self.restarted(slot)

    def restarted(self, slot: int) -> None:
        """The engine has nothing to do and nothing loaded."""
        self._adapters.restarted(slot)
        self._pace.forget(slot)
        self._reserve(slot + 1)
        self._done_s[slot] = self._recent[slot] = 0.0

    def _note_work(self, request: Request, lease: Lease, now: float) -> None:
        self._reserve(lease.slot + 1)
        tokens = self._prefix_cache.uncached_tokens(request, lease)
        work_s = tokens / self._options.tokens_per_s
        self._recent *= self._faded(now)
        self._recent_at_s = max(now, self._recent_at_s)
        self._recent[lease.slot] += tokens + self._options.request_tokens
        self._done_s[lease.slot] = max(now, self._done_s[lease.slot]) + work_s
        self._pending[lease.slot] += tokens
        lease.notes[self._note] = tokens, self._recent_at_s

    def _forget_work(self, lease: Lease, slot: int, now: float, *, was_computed: bool) -> None:
        tokens, at_s = lease.notes.pop(self._note, (0, now))
        if tokens:
            pending = self._pending[slot] = self._pending[slot] - tokens
            at_most_s = pending / self._options.tokens_per_s
            self._done_s[slot] = min(self._done_s[slot], now + at_most_s)
            if not was_computed:
                faded = math.exp((at_s - self._recent_at_s) / self._options.recent_s)
                self._recent[slot] = max(0.0, self._recent[slot] - tokens * faded)

    def _reserve(self, slots: int) -> None:
        missing = slots - len(self._done_s)
        if missing > 0:
            more = np.zeros(missing)
            self._done_s = np.concatenate([self._done_s, more])
            self._pending = np.concatenate([self._pending, more])
            self._recent = np.concatenate([self._recent, more])

    def _faded(self, now: float) -> float:
        """Return what is left by now of what was recent when that was noted."""
        return math.exp(min(0.0, self._recent_at_s - now) / self._options.recent_s)

    def _adapter_costs(self, slots: int, model: str) -> Column:
        """Return what it costs, in tokens, to have a model's adapter in each engine, shape
        ``(slots,)``."""
        load_s, wait_s = self._options.adapter_load_s, self._options.adapter_wait_s
        has_room = self._adapters.has_room(slots)[:slots]
        costs_s = np.where(has_room, load_s, load_s + wait_s)
        costs_s[self._adapters.loaded_at(model)] = 0.0
        tokens: Column = costs_s * self._options.tokens_per_s
        return tokens


_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e9, description="a number above 0")]
_Number = Annotated[float, msgspec.Meta(ge=0, le=1e9, description="a number of at least 0")]
_DEFAULTS: Final = FirstTokenOptions()


class FirstTokenParameters(Parameters, frozen=True, kw_only=True):
    """Of ``first-token-scorer``."""

    prefill_tokens_per_second: _Positive = _DEFAULTS.tokens_per_s
    cache_pollution: _Number = _DEFAULTS.pollution
    recent_seconds: _Positive = _DEFAULTS.recent_s
    recent_weight: _Number = _DEFAULTS.recent_weight
    tokens_per_request: _Number = _DEFAULTS.request_tokens
    tokens_per_waiting_request: _Number = _DEFAULTS.waiting_tokens
    adapter_load_seconds: _Number = _DEFAULTS.adapter_load_s
    adapter_wait_seconds: _Number = _DEFAULTS.adapter_wait_s
    prefix_match_info_producer_name: Annotated[str, msgspec.Meta(description="text")] = ""


def _make(parameters: FirstTokenParameters, context: PluginContext) -> FirstTokenScorer:
    cache = context.plugin(
        parameters.prefix_match_info_producer_name, default_type="approx-prefix-cache-producer"
    )
    return FirstTokenScorer(
        cache,
        FirstTokenOptions(
            tokens_per_s=parameters.prefill_tokens_per_second,
            pollution=parameters.cache_pollution,
            recent_s=parameters.recent_seconds,
            recent_weight=parameters.recent_weight,
            request_tokens=parameters.tokens_per_request,
            waiting_tokens=parameters.tokens_per_waiting_request,
            adapter_load_s=parameters.adapter_load_seconds,
            adapter_wait_s=parameters.adapter_wait_seconds,
        ),
    )


FIRST_TOKEN_SCORER = PluginDefinition(
    type="first-token-scorer",
    summary="Prefers the endpoint that will probably give the first token soonest, by what it has"
    " to compute, what it has cached, its queue and its adapters. It is the default.",
    make=_make,
    parameters=FirstTokenParameters,
    explains={
        "prefillTokensPerSecond": "How many tokens of prompt an engine computes in a second.",
        "cachePollution": "What a cached token is worth that must make room, in tokens computed.",
        "recentSeconds": "For how long what an engine was given to compute counts as recent: by"
        " then it counts 1/e.",
        "recentWeight": "How much a token counts that an engine was given to compute just now.",
        "tokensPerRequest": "How many tokens of prompt a request in flight slows an engine by.",
        "tokensPerWaitingRequest": "The same for a request in the engine's own queue.",
        "adapterLoadSeconds": "How long a LoRA adapter takes to load.",
        "adapterWaitSeconds": "How long it takes until a slot for an adapter becomes free.",
        "prefixMatchInfoProducerName": "The producer that knows the prefix caches.",
    },
)
