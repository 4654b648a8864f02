import random
from collections import Counter
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest

from epp.core.pool import EngineLoad, Pool
from epp.core.request import FlowKey, Request
from epp.core.resources import Endpoint
from epp.core.scheduling import Scheduler
from epp.core.timers import Timers
from epp.modelserver.engine import EngineOptions
from epp.simulation.engine import SimulatedEngine
from epp.simulation.events import Events
from epp.simulation.routing import make_scheduler
from epp.simulation.scenario import RoutingName
from epp.simulation.work import Work


class Nobody:
    def began(self, work: Work, now: float) -> None:
        pass

    def ended(self, work: Work, now: float) -> None:
        pass


class Bench:
    """Engines, the pool of their endpoints, and a request for one of them."""

    def __init__(self, endpoints: int, work: Work) -> None:
        self.pool = Pool(max_concurrency=100)
        found = [Endpoint(name=f"e{n}", address=f"10.0.0.{n}", port=80) for n in range(endpoints)]
        self.pool.apply(found)
        self.events = Events(Timers())
        self.engines = {
            each.destination: SimulatedEngine(EngineOptions(), self.events.schedule, Nobody())
            for each in found
        }
        self.works = {7: work}
        self.rng = random.Random(1)

    def engine(self, slot: int) -> SimulatedEngine:
        return self.engines[self.pool.endpoint(slot).destination]

    def make(self, name: RoutingName) -> Scheduler:
        return make_scheduler(name, self.engines, self.works)

    def picks(self, scheduler: Scheduler, times: int, slots: Sequence[int]) -> list[int]:
        request = Request(flow=FlowKey(0, "a"), id="7", prompt_tokens=1000)
        mask = np.isin(np.arange(len(self.pool.active)), slots)
        now = self.events.now
        return [
            slot
            for _ in range(times)
            for slot in scheduler.pick(request, self.pool, mask, now, self.rng)
        ]


@pytest.mark.parametrize("name", get_args(RoutingName))
def test_all_pick_one_of_the_candidates(name: RoutingName) -> None:
    bench = Bench(5, Work(1000, 10))
    scheduler = bench.make(name)
    assert set(bench.picks(scheduler, 40, [1, 3])) <= {1, 3}
    assert bench.picks(scheduler, 3, []) == []


def test_random_and_round_robin() -> None:
    bench = Bench(4, Work(1000, 10))
    counts = Counter(bench.picks(bench.make("random"), 4000, [0, 1, 3]))
    assert min(counts.values()) > 1200
    turns = bench.make("round-robin")
    assert bench.picks(turns, 5, [0, 1, 2, 3]) == [0, 1, 2, 3, 0]
    assert bench.picks(turns, 3, [0, 2]) == [2, 0, 2]


def test_the_oracles_see_into_the_engines() -> None:
    bench = Bench(3, Work(4000, 10, ((1, 3900), (9, 4010))))
    for slot, text in ((0, ((1, 3900), (2, 4010))), (1, ((3, 4010),))):
        bench.engine(slot).add(Work(4000, 10, text), bench.events.now)
    bench.events.run(100.0, lambda: False)
    assert bench.picks(bench.make("oracle"), 5, [0, 1, 2]) == [0] * 5
    assert bench.picks(bench.make("oracle-hits"), 5, [0, 1, 2]) == [0] * 5
    # Two prompts that must be computed before are more than the one that need not be.
    for number in (11, 12):
        bench.engine(0).add(Work(4000, 10, ((number, 4010),)), bench.events.now)
    assert set(bench.picks(bench.make("oracle"), 40, [0, 1, 2])) == {1, 2}
    assert bench.picks(bench.make("oracle-hits"), 5, [0, 1, 2]) == [0] * 5
    bench.engine(1).add(Work(4000, 10), bench.events.now)
    assert bench.picks(bench.make("oracle-hits"), 5, [1, 2]) == [2] * 5


def test_the_reference_default_weighs_queue_and_cache_against_the_prefix() -> None:
    bench = Bench(3, Work(1000, 10))
    scheduler = bench.make("reference-default")

    def pick(*loads: tuple[float, float]) -> set[int]:
        for slot, (waiting, kv_ratio) in enumerate(loads):
            bench.pool.scraped(slot, EngineLoad(waiting, 0, kv_ratio), bench.events.now)
        return set(bench.picks(scheduler, 30, [0, 1, 2]))

    assert pick((0, 0.1), (0, 0.1), (0, 0.1)) == {0, 1, 2}
    assert pick((4, 0.1), (0, 0.5), (1, 0.1)) == {2}  # 1.8, 2 + 1, 1.5 + 1.8
    assert pick((4, 0.1), (0, 0.3), (1, 0.1)) == {1}  # 1.8, 2 + 1.4, 1.5 + 1.8
