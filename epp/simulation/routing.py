"""Who picks the endpoints in a simulation, by name.

* ``random``, ``round-robin``: any candidate; the next one in turn.
* ``least-in-flight``: the one with the fewest requests by its limit.
* ``reference-default``: the plugins and weights that the llm-d router has by default: queue-scorer
  2, kv-cache-utilization-scorer 2, prefix-cache-scorer 3, max-score-picker.
* ``default``: what this endpoint picker does by itself.
* ``oracle``: sees into the engines, and picks where the first token will come soonest.
* ``oracle-hits``: sees into the engines, and picks where most of the prompt is cached, then where
  the fewest requests are.
"""

import random
from collections.abc import Callable, Mapping
from typing import TypeAlias

from epp.core.pool import Mask, Pool
from epp.core.request import Request
from epp.core.scheduling import Explanation, LeastLoaded, Observer, ProfileScheduler, Scheduler
from epp.core.scheduling.default import default_scheduler
from epp.core.scheduling.pickers.max_score import MaxScorePicker
from epp.core.scheduling.prefix_cache import PrefixCache
from epp.core.scheduling.profile import SchedulingProfile, WeightedScorer
from epp.core.scheduling.scorers.kv_cache import KvCacheScorer
from epp.core.scheduling.scorers.prefix_cache import PrefixCacheScorer
from epp.core.scheduling.scorers.queue import QueueScorer
from epp.simulation.engine import SimulatedEngine
from epp.simulation.scenario import RoutingName
from epp.simulation.work import Work

__all__ = ["Engines", "make_scheduler"]

Engines: TypeAlias = Mapping[str, SimulatedEngine]
"""By ``ip:port``."""

_Choice: TypeAlias = Callable[[Request, Pool, list[int], float, random.Random], int]
"""Returns one of the slots, of which there is at least one."""


def make_scheduler(name: RoutingName, engines: Engines, works: Mapping[int, Work]) -> Scheduler:
    """Return a scheduler. The oracles look into ``engines``, and at the sequences of requests,
    which ``works`` has by the number that is the request's id."""
    if name == "random":
        return _Chooser(lambda request, pool, slots, now, rng: rng.choice(slots))
    if name == "round-robin":
        return _Chooser(_Turns())
    if name == "oracle":
        return _Chooser(_Oracle(engines, works, _soonest))
    if name == "oracle-hits":
        return _Chooser(_Oracle(engines, works, _most_cached))
    if name == "reference-default":
        return _reference_default()
    return default_scheduler() if name == "default" else LeastLoaded()


def _soonest(engine: SimulatedEngine, work: Work, now: float) -> tuple[float, int]:
    return engine.first_token_in_s(work, now), engine.requests


def _most_cached(engine: SimulatedEngine, work: Work, now: float) -> tuple[float, int]:
    return -engine.cached_tokens(work), engine.requests


def _reference_default() -> Scheduler:
    cache = PrefixCache()
    scorers = [
        WeightedScorer("queue-scorer", QueueScorer(), 2.0),
        WeightedScorer("kv-cache-utilization-scorer", KvCacheScorer(), 2.0),
        WeightedScorer("prefix-cache-scorer", PrefixCacheScorer(cache), 3.0),
    ]
    profile = SchedulingProfile("reference-default", (), scorers, MaxScorePicker())
    return ProfileScheduler(profile, observers=(cache,))


class _Chooser:
    """A scheduler that is one function."""

    observers: tuple[Observer, ...] = ()

    def __init__(self, choose: _Choice) -> None:
        self._choose = choose

    def pick(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> tuple[int, ...]:
        """Return the slot that is chosen; nothing where the mask is empty."""
        slots = mask.nonzero()[0].tolist()
        return (self._choose(request, pool, slots, now, rng),) if slots else ()

    def kind(self, request: Request, pool: Pool) -> None:
        """Return None: all requests are alike."""

    def kinds_follow(self, pool: Pool) -> None:
        """Return None: they are so whatever the pool is."""

    def usable(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Mask:
        """Return the mask."""
        return mask

    def explain(
        self, request: Request, pool: Pool, mask: Mask, now: float, rng: random.Random
    ) -> Explanation | None:
        """Return None: there is nothing to tell."""
        return None


class _Turns:
    """The candidate after the one that was chosen last, in order of their slots."""

    def __init__(self) -> None:
        self._last = -1

    def __call__(
        self, request: Request, pool: Pool, slots: list[int], now: float, rng: random.Random
    ) -> int:
        self._last = next((slot for slot in slots if slot > self._last), slots[0])
        return self._last


class _Oracle:
    """The candidate whose engine's cost is the least, ties by chance."""

    def __init__(
        self,
        engines: Engines,
        works: Mapping[int, Work],
        cost: Callable[[SimulatedEngine, Work, float], tuple[float, int]],
    ) -> None:
        self._engines = engines
        self._works = works
        self._cost = cost

    def __call__(
        self, request: Request, pool: Pool, slots: list[int], now: float, rng: random.Random
    ) -> int:
        work = self._works[int(request.id)]

        def cost(slot: int) -> tuple[float, int, float]:
            engine = self._engines[pool.endpoint(slot).destination]
            return (*self._cost(engine, work, now), rng.random())

        return min(slots, key=cost)
