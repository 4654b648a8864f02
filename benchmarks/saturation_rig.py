"""One engine, one detector and a load, under a virtual clock.

What runs is the production code: the detector, the pool that it sets limits in, the timers; and the
engine of the simulated model server, iteration by iteration. Only what lies between them is
simpler: requests wait in one line, first come first served, and go as soon as the pool has room.
"""

import itertools
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from epp.core.flow.saturation import ConcurrencyOptions, SaturationOptions, make_detector
from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Lease, Pool
from epp.core.resources import Endpoint
from epp.core.timers import Timers
from epp.modelserver.engine import Engine, EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.sequence import EngineRequest

__all__ = ["PROFILES", "Figures", "Load", "Profile", "Reports", "best_fixed", "fresh", "frozen",
           "late", "outage", "run"]  # fmt: skip

SCRAPE_PERIOD_S: Final = 1.0
_ENDPOINT: Final = Endpoint(name="default/engine", address="127.0.0.1", port=8000)

Reports: TypeAlias = Callable[[list[EngineLoad], float], EngineLoad | None]
"""What a scrape brings, of all that the engine would have said until now, one a second, and the
time in seconds; None for no answer."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """An engine and the requests that it gets; means and spread (of the logarithm) of lengths."""

    name: str
    engine: EngineOptions
    prompt_tokens: int
    output_tokens: int
    spread: float = 0.6


def _profile(
    name: str, *, seqs: int, blocks: int, batched: int, prefill: float, step_s: float,
    per_seq_s: float, prompt: int, output: int, spread: float = 0.6,
) -> Profile:  # fmt: skip
    latency = LatencyModel(
        prefill_tokens_per_s=prefill, decode_step_s=step_s, decode_step_per_seq_s=per_seq_s
    )
    engine = EngineOptions(
        max_num_seqs=seqs, num_kv_blocks=blocks, max_num_batched_tokens=batched, latency=latency
    )
    return Profile(
        name=name, engine=engine, prompt_tokens=prompt, output_tokens=output, spread=spread
    )


PROFILES: Final = (
    # full when its batch is: the default engine
    _profile("batch", seqs=32, blocks=8192, batched=2048, prefill=8000.0, step_s=0.02,
             per_seq_s=0.0003, prompt=300, output=120),
    # full when its KV cache is, long before its batch; outputs outgrow the prompts
    _profile("small-kv", seqs=256, blocks=1024, batched=2048, prefill=8000.0, step_s=0.03,
             per_seq_s=0.0004, prompt=200, output=250),
    # a large machine: a wide batch that costs more the wider it is
    _profile("large-kv", seqs=160, blocks=32768, batched=8192, prefill=60000.0, step_s=0.04,
             per_seq_s=0.0004, prompt=500, output=120),
    # full when it can read no more prompts
    _profile("slow-prefill", seqs=128, blocks=16384, batched=2048, prefill=3000.0, step_s=0.03,
             per_seq_s=0.0003, prompt=1000, output=60),
)  # fmt: skip


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the engine: more than it can do where ``rate_per_s`` is None, else so many
    requests per second, on average, and ``change_factor`` times as many from ``change_s`` on.
    Measured is ``from_s`` to ``until_s``.
    """

    from_s: float
    until_s: float
    rate_per_s: float | None = None
    change_s: float = float("inf")
    change_factor: float = 1.0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run brought, between the load's ``from_s`` and ``until_s``.

    ``tokens_per_s`` counts output tokens, ``waiting`` is the mean over time of the engine's own
    queue, ``limit`` that of the limit.
    """

    tokens_per_s: float
    waiting: float
    limit: float


def fresh(loads: list[EngineLoad], now: float) -> EngineLoad | None:
    """Report the engine as it is."""
    return loads[-1]


def late(delay_s: int) -> Reports:
    """Report the engine as it was a while ago."""
    return lambda loads, now: loads[-1 - delay_s] if len(loads) > delay_s else None


def frozen(since_s: int) -> Reports:
    """Report the engine as it was at some moment, for ever."""
    return lambda loads, now: loads[min(len(loads) - 1, since_s)]


def outage(since_s: int) -> Reports:
    """Report nothing any more from some moment on."""
    return lambda loads, now: loads[-1] if now < since_s else None


def run(
    profile: Profile, saturation: SaturationOptions, load: Load, seed: int,
    reports: Reports = fresh,
) -> Figures:  # fmt: skip
    """Let the load run and return what it brought."""
    return _Run(profile, saturation, load, seed, reports).figures()


def best_fixed(profile: Profile, load: Load, seed: int, limits: Iterable[int]) -> tuple[int, float]:
    """Return the fixed limit that brings the most tokens per second, and how many."""
    tried = {
        limit: run(profile, ConcurrencyOptions(max_requests=limit), load, seed).tokens_per_s
        for limit in limits
    }
    best = max(tried, key=tried.__getitem__)
    return best, tried[best]


class _Flight:
    """A request on its way."""

    __slots__ = ("first_byte_s", "lease", "request", "since_s")

    def __init__(self, request: EngineRequest, lease: Lease, since_s: float) -> None:
        self.request = request
        self.lease = lease
        self.since_s = since_s
        self.first_byte_s: float | None = None


class _Run:
    def __init__(
        self, profile: Profile, saturation: SaturationOptions, load: Load, seed: int,
        reports: Reports,
    ) -> None:  # fmt: skip
        self._profile = profile
        self._load = load
        self._reports = reports
        self._engine = Engine(profile.engine)
        self._pool = Pool(max_concurrency=1)
        self._timers = Timers()
        self._detector = make_detector(saturation, self._pool, self._timers)
        self._pool.on_joined = self._detector.joined
        self._pool.apply([_ENDPOINT])
        self._slot = self._pool.slot_of(_ENDPOINT.destination) or 0
        self._lengths = self._draw(random.Random(seed))
        self._arrivals = random.Random(seed + 1)
        self._line: deque[EngineRequest] = deque()
        self._flights: dict[str, _Flight] = {}
        self._told: list[EngineLoad] = []
        self._now = 0.0
        self._waiting_area = self._limit_area = 0.0
        self._by_second = [0] * (int(load.until_s) + 1)

    def figures(self) -> Figures:
        load = self._load
        arrival_s = 0.0 if load.rate_per_s else float("inf")
        scrape_s = SCRAPE_PERIOD_S / 2
        while self._now < load.until_s:
            self._pump(self._now)
            wake_s = self._engine.wake_at
            timer_s = self._timers.next_deadline()
            next_s = min(
                arrival_s,
                scrape_s,
                load.until_s,
                float("inf") if wake_s is None else wake_s,
                float("inf") if timer_s is None else timer_s,
            )
            self._advance(next_s)
            if next_s == wake_s:
                self._step(next_s)
            if next_s == timer_s:
                self._timers.run(next_s)
            if next_s == scrape_s:
                self._scrape(next_s)
                scrape_s += SCRAPE_PERIOD_S
            if next_s == arrival_s:
                self._line.append(next(self._lengths))
                arrival_s += self._arrivals.expovariate(self._rate_per_s(next_s))
        measured_s = load.until_s - load.from_s
        return Figures(
            tokens_per_s=sum(self._by_second[int(load.from_s) : int(load.until_s)]) / measured_s,
            waiting=self._waiting_area / measured_s,
            limit=self._limit_area / measured_s,
        )

    def _rate_per_s(self, now: float) -> float:
        load = self._load
        return (load.rate_per_s or 0.0) * (load.change_factor if now >= load.change_s else 1.0)

    def _draw(self, rng: random.Random) -> Iterator[EngineRequest]:
        profile = self._profile
        most = profile.engine.context_tokens // 3

        def length(mean: int) -> int:
            drawn = rng.lognormvariate(0.0, profile.spread) / _mean_of_spread(profile.spread)
            return max(1, min(most, round(mean * drawn)))

        for number in itertools.count():
            yield EngineRequest(
                request_id=str(number),
                prompt_tokens=length(profile.prompt_tokens),
                output_tokens=length(profile.output_tokens),
            )

    def _advance(self, now: float) -> None:
        passed_s = now - max(self._now, self._load.from_s)
        if passed_s > 0:
            self._waiting_area += passed_s * self._engine.num_waiting
            self._limit_area += passed_s * int(self._pool.limit[self._slot])
        self._now = now

    def _pump(self, now: float) -> None:
        while self._pool.has_room and (self._line or self._load.rate_per_s is None):
            request = self._line.popleft() if self._line else next(self._lengths)
            lease = self._pool.lease(self._slot)
            self._flights[request.request_id] = _Flight(request, lease, now)
            self._engine.add(request, now)
            self._detector.dispatched(self._slot, now)

    def _step(self, now: float) -> None:
        result = self._engine.step(now)
        self._by_second[int(now)] += len(result.tokens)
        for token in result.tokens:
            flight = self._flights[token.request_id]
            if flight.first_byte_s is None:
                flight.first_byte_s = now - flight.since_s
            if token.finish_reason is not None:
                self._end(self._flights.pop(token.request_id), now)

    def _end(self, flight: _Flight, now: float) -> None:
        ending = Ending(
            status=200,
            cause="complete",
            duration_s=now - flight.since_s,
            response_bytes=None,
            first_byte_s=flight.first_byte_s,
            prompt_tokens=flight.request.prompt_tokens,
            output_tokens=flight.request.output_tokens,
        )
        flight.lease.release()
        self._detector.ended(self._slot, ending, now - flight.since_s, now)

    def _scrape(self, now: float) -> None:
        engine = self._engine
        self._told.append(
            EngineLoad(
                waiting=engine.num_waiting,
                running=engine.num_running,
                kv_ratio=engine.kv_usage_ratio,
            )
        )
        report = self._reports(self._told, now)
        if report is not None:
            self._pool.scraped(self._slot, report, now)
            self._detector.scraped(self._slot, report, now)


def _mean_of_spread(spread: float) -> float:
    """Return the mean of a lognormal variable whose logarithm has mean 0 and this deviation."""
    return 2.718281828459045 ** (spread * spread / 2.0)
