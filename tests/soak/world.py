"""A pool under random traffic and every kind of trouble, with what must hold at any time."""

import heapq
import random
from collections import Counter

from epp.core.claims import RequestClaims
from epp.core.flow import BandOptions, CostOptions, FlowLimits, FlowOptions, UsageLimitOptions
from epp.core.flow.saturation import (
    AdaptiveOptions,
    ConcurrencyOptions,
    SaturationOptions,
    UtilizationOptions,
    make_detector,
)
from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Pool
from epp.core.request import Outcome, Request
from epp.core.router import MakeDetector

from ..core.support import Harness, destination, headers, resources
from .clients import Client, GateClient, StreamClient

__all__ = ["SoakWorld"]

_NUMBERS = range(1, 9)
_OBJECTIVES = ("", "interactive", "standard", "batch", "spare")
_PRIORITIES = (-20, -10, 0, 5, 10)


class _Recorder:
    """Counts, and insists on one outcome and one ending for each request, in bounded memory."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.overrides: Counter[str] = Counter()
        self.ended_requests = 0
        self._running: dict[int, Request] = {}

    def wait_ended(self, request: Request, outcome: Outcome, waited_s: float) -> None:
        assert waited_s >= 0
        assert id(request) not in self._running, "a second outcome"
        self.outcomes[outcome] += 1
        if outcome is Outcome.DISPATCHED:
            self._running[id(request)] = request

    def adopted(self, request: Request) -> None:
        raise AssertionError("nobody has left anything to adopt")

    def overridden(self, priority: int, rule: str) -> None:
        self.overrides[rule] += 1

    def settled(self, request: Request, charged: int, actual: int) -> None:
        assert charged > 0
        assert actual > 0

    def evicted(self, *_: object) -> None:
        self.overrides["evicted"] += 1

    def ended(self, request: Request, ending: Ending) -> None:
        assert self._running.pop(id(request)) is request
        assert ending.duration_s >= 0
        self.ended_requests += 1

    def refused_early(self, reason: str) -> None:
        raise AssertionError(f"refused early: {reason}")


class SoakWorld:
    """One life of a pool, from its first endpoint until nothing is left, by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.harness = Harness(None, options=self._options(), detector=self._detector())
        self.router = self.harness.router
        self.recorder = _Recorder()
        self.router.recorder = self.recorder
        self.router.flow._recorder = self.recorder
        self.clients: list[Client] = []
        self.offered = 0
        self._ends: list[tuple[float, int, Client]] = []
        self._has_outage = False
        self._engine_slots = {number: self.rng.randint(1, 12) for number in _NUMBERS}
        self._apply(set(_NUMBERS[:4]))

    @property
    def now(self) -> float:
        return self.harness.now

    def live(self, steps: int) -> None:
        """Let so many things happen."""
        happenings = [
            (self._arrives, 40),
            (self._burst, 1),
            (self._somebody_leaves, 8),
            (self._something_is_brought, 20),
            (self._somebody_moves, 2),
            (self._engines_tell, 6),
            (self._members_change, 1),
            (self._outage, 1),
            (self._clock_jumps, 0.2),
        ]
        actions, weights = zip(*happenings, strict=True)
        for step in range(steps):
            self._time_passes(self.rng.expovariate(30.0))
            self.rng.choices(actions, weights)[0]()
            self._check()
            if step % 100 == 0:
                self._check_sums()

    def come_to_rest(self) -> None:
        """Let all go home: nothing may be left, and nothing left to do."""
        for client in self.rng.sample(self.clients, len(self.clients)):
            client.leaves(self.now)
            self._check()
        self._forget()
        assert not self.clients
        self._check_sums()
        self.harness.clock.advance(3_600.0)
        flow, pool = self.router.flow, self.router.pool
        assert (flow.requests, flow.bytes, pool.total_in_flight) == (0, 0, 0)
        assert not any(pool._tokens)
        assert not any(pool.in_flight)
        for band in flow.bands():
            assert (band.requests, band.bytes, band.cost, band.running) == (0, 0, 0, 0)
            assert not any((band.flows, band.lanes, band.arrivals, band._indebted))
        assert len(self.harness.timers) == 0, "somebody wants to be woken for nothing"
        assert self.recorder.outcomes.total() == self.offered
        assert self.recorder.outcomes[Outcome.DISPATCHED] == self.recorder.ended_requests
        assert not self.recorder._running

    # What happens

    def _arrives(self) -> None:
        rng, self.offered = self.rng, self.offered + 1
        numbers = rng.sample(_NUMBERS, rng.randint(1, 3))
        subset = frozenset(map(destination, numbers)) if rng.random() < 0.15 else None
        objective = rng.choice(_OBJECTIVES)
        tenant = f"tenant-{min(int(rng.expovariate(0.3)), 50)}"
        wait_limit_s = rng.choice([None, None, 0.05, 5.0])
        if rng.random() < 0.3:
            exchange, stream = self.harness.exchange()
            pairs = [
                (b"x-llm-d-inference-objective", b"interactive"),
                (b"x-llm-d-inference-fairness-id", tenant.encode()),
            ]
            if wait_limit_s is not None:
                pairs.append((b"x-gateway-request-ttl-ms", b"%d" % (wait_limit_s * 1000)))
            client: Client = StreamClient(exchange, stream, headers(*pairs), subset, rng, self.now)
        else:
            claims = RequestClaims(
                objective=objective,
                fairness_id=tenant,
                wait_limit_s=wait_limit_s,
                subset=subset,
                body_bytes=rng.randint(0, 100_000),
                prompt_tokens=rng.randint(0, 8_000),
                max_output_tokens=rng.choice([None, 50, 1_000]),
                slo_ttft_s=rng.choice([None, 0.5, 10.0]),
            )
            client = GateClient(self.router, claims, self.now)
        self.clients.append(client)

    def _burst(self) -> None:
        for _ in range(self.rng.randint(10, 80)):
            self._arrives()

    def _somebody_leaves(self) -> None:
        if self.clients:
            self.rng.choice(self.clients).leaves(self.now)

    def _running(self) -> list[Client]:
        return [client for client in self.clients if client.destination is not None]

    def _something_is_brought(self) -> None:
        running = self._running()
        if running:
            client = self.rng.choice(running)
            client.brings(self.rng, self.now)
            delay_s = self.rng.expovariate(1.0)
            heapq.heappush(self._ends, (self.now + delay_s, id(client), client))

    def _somebody_moves(self) -> None:
        running = self._running()
        if running:
            self.rng.choice(running).moves(self.rng.choice(_NUMBERS), self.now)

    def _engines_tell(self) -> None:
        if self._has_outage:
            return
        for number in _NUMBERS:
            slots = self._engine_slots[number]
            slot = self.router.pool.slot_of(destination(number))
            load = 0 if slot is None else int(self.router.pool.in_flight[slot])
            told = EngineLoad(
                waiting=max(0, load - slots),
                running=min(load, slots),
                kv_ratio=min(1.0, load / slots * self.rng.uniform(0.3, 1.0)),
            )
            self.router.scraped(destination(number), told, self.now)

    def _members_change(self) -> None:
        count = self.rng.choice([0, 1, 2, 4, 8])
        self._apply(set(self.rng.sample(_NUMBERS, count)))

    def _apply(self, numbers: set[int]) -> None:
        priorities = dict(zip(_OBJECTIVES[1:], self.rng.sample(_PRIORITIES, 4), strict=True))
        priorities["interactive"] = max(0, priorities["interactive"])
        self.router.apply(resources(sorted(numbers), priorities), self.now)

    def _outage(self) -> None:
        self._has_outage = not self._has_outage

    def _clock_jumps(self) -> None:
        self._time_passes(self.rng.choice([5.0, 61.0, 3_600.0]))

    def _time_passes(self, seconds: float) -> None:
        self.harness.clock.advance(seconds)
        while self._ends and self._ends[0][0] <= self.now:
            client = heapq.heappop(self._ends)[2]
            if client.destination is not None:
                client.ends(self.rng, self.now)
        self._forget()

    def _forget(self) -> None:
        self.clients = [client for client in self.clients if not client.is_over]

    # What holds

    def _check(self) -> None:
        flow, pool = self.router.flow, self.router.pool
        assert min(flow.requests, flow.bytes, pool.total_in_flight) >= 0
        assert (pool.in_flight >= 0).all()
        assert min(pool._tokens) >= 0
        limits = flow.options.limits
        assert flow.requests <= limits.max_requests
        assert flow.bytes <= limits.max_bytes
        outcomes = self.recorder.outcomes
        assert outcomes.total() + flow.requests == self.offered
        running = outcomes[Outcome.DISPATCHED] - self.recorder.ended_requests
        assert pool.total_in_flight == running

    def _check_sums(self) -> None:
        bands = self.router.flow.bands()
        assert self.router.flow.requests == sum(band.requests for band in bands)
        assert self.router.flow.bytes == sum(band.bytes for band in bands)
        for band in bands:
            flows = band.flows.values()
            assert band.requests == sum(flow.requests for flow in flows) == len(band.arrivals)
            assert band.cost == sum(flow.cost for flow in flows)
            assert band.running == sum(flow.running for flow in flows)
            assert all(flow.unsettled >= 0 for flow in flows)
            assert all(flow.running or not flow.unsettled for flow in flows)
            assert len(flows) <= band._max_flows + band._shared_flows + len(band._weights)

    # What it is made of

    def _options(self) -> FlowOptions:
        rng = self.rng
        band = BandOptions(
            max_requests=rng.choice([20, 5_000]),
            fairness=rng.choice(["weighted-fair", "weighted-fair", "round-robin", "global-strict"]),
            ordering=rng.choice(["fcfs", "edf", "slo-deadline"]),
            max_wait_s=rng.choice([None, None, 2.0]),
        )
        return FlowOptions(
            limits=FlowLimits(
                max_requests=rng.choice([50, 10_000]),
                max_bytes=rng.choice([1_000_000, 1 << 30]),
                wait_limit_s=rng.choice([2.0, 60.0]),
                no_endpoint_wait_limit_s=rng.choice([1.0, 30.0]),
                reject_hopeless=rng.random() < 0.7,
            ),
            band=band,
            negative_band=BandOptions(min_share=rng.choice([0.0, 0.1])),
            weights={"tenant-1": 4.0, "tenant-2": 0.25},
            cost=CostOptions(unit=rng.choice(["tokens", "tokens", "slot-time"])),
            usage_limit=UsageLimitOptions(
                policy=rng.choice(["static", "priority-holdback", "soft-reflective-ceiling"]),
                min_ceiling=rng.choice([0.0, 0.5]),
            ),
            eviction=rng.random() < 0.4,
            max_flows=rng.choice([5, 1_000]),
            shared_flows=2,
        )

    def _detector(self) -> MakeDetector:
        options: SaturationOptions = self.rng.choice(
            [
                ConcurrencyOptions(max_requests=self.rng.randint(1, 8)),
                ConcurrencyOptions(max_requests=8, max_tokens=20_000),
                UtilizationOptions(),
                AdaptiveOptions(),
            ]
        )

        def make(pool: Pool, *more: object) -> object:
            return make_detector(options, pool, *more)  # type: ignore[arg-type]

        return make  # type: ignore[return-value]
