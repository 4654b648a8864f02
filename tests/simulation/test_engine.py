import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from epp.core.timers import Timers
from epp.modelserver.engine import Engine, EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.sequence import EngineRequest
from epp.simulation.engine import SimulatedEngine
from epp.simulation.events import Events
from epp.simulation.work import Work
from tests.simulation.support import ONE_TOKEN_PER_S


class Ask(NamedTuple):
    arrived_s: float
    prompt_tokens: int
    output_tokens: int


class Times(NamedTuple):
    first_s: list[float]
    end_s: list[float]
    preemptions: int


class Listener:
    def __init__(self) -> None:
        self.first_s: dict[Work, float] = {}
        self.end_s: dict[Work, float] = {}

    def began(self, work: Work, now: float) -> None:
        assert work not in self.first_s
        self.first_s[work] = now

    def ended(self, work: Work, now: float) -> None:
        assert work not in self.end_s
        self.end_s[work] = now


class Bench:
    """A simulated engine with a clock."""

    def __init__(self, options: EngineOptions, slow_factor: float = 1.0) -> None:
        self.events = Events(Timers())
        self.listener = Listener()
        self.engine = SimulatedEngine(options, self.events.schedule, self.listener, slow_factor)
        self.works: list[Work] = []

    def ask(self, arrived_s: float, prompt_tokens: int, output_tokens: int) -> Work:
        work = Work(prompt_tokens, output_tokens)
        self.works.append(work)
        self.events.schedule(arrived_s, lambda now: self.engine.add(work, now))
        return work

    def run(self, until_s: float = 1e9) -> None:
        self.events.run(until_s, lambda: False)

    def times(self) -> Times:
        first = [self.listener.first_s[work] for work in self.works]
        end = [self.listener.end_s[work] for work in self.works]
        return Times(first, end, self.engine.preemptions)


def _simulated(options: EngineOptions, asks: Sequence[Ask]) -> Times:
    bench = Bench(options)
    for ask in asks:
        bench.ask(*ask)
    bench.run()
    load = bench.engine.load(bench.events.now)
    assert (load.waiting, load.running, load.kv_ratio) == (0, 0, 0.0)
    return bench.times()


def _exact(options: EngineOptions, asks: Sequence[Ask]) -> Times:
    engine = Engine(options)
    first_s: dict[int, float] = {}
    end_s: dict[int, float] = {}
    number = 0
    while number < len(asks) or engine.wake_at is not None:
        wake_s = engine.wake_at
        if number < len(asks) and (wake_s is None or asks[number].arrived_s < wake_s):
            now, prompt_tokens, output_tokens = asks[number]
            request = EngineRequest(
                request_id=str(number), prompt_tokens=prompt_tokens, output_tokens=output_tokens
            )
            engine.add(request, now)
            if wake_s is None:
                engine.step(now)
            number += 1
            continue
        assert wake_s is not None
        for token in engine.step(wake_s).tokens:
            first_s.setdefault(int(token.request_id), wake_s)
            if token.finish_reason:
                end_s[int(token.request_id)] = wake_s
    numbers = range(len(asks))
    return Times(
        [first_s[n] for n in numbers], [end_s[n] for n in numbers], engine.stats.preemptions
    )


def _load(rate_per_s: float, prompt: float, output: float, most: int, count: int) -> list[Ask]:
    rng = random.Random(1)
    asks, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(rate_per_s)
        lengths = [
            max(1, min(most, round(rng.lognormvariate(np.log(median), 0.7))))
            for median in (prompt, output)
        ]
        asks.append(Ask(now, *lengths))
    return asks


@pytest.mark.parametrize(
    ("options", "rate_per_s", "prompt", "output"),
    [
        (EngineOptions(), 1.0, 500, 100),
        (EngineOptions(), 8.0, 500, 100),
        (EngineOptions(max_num_seqs=8, num_kv_blocks=16384), 0.6, 6000, 150),
        (EngineOptions(max_num_seqs=128, num_kv_blocks=65536), 8.0, 200, 200),
    ],
    ids=["light", "overloaded", "prompt-heavy", "large-batch"],
)
def test_it_is_the_exact_engine_where_the_kv_cache_is_large(
    options: EngineOptions, rate_per_s: float, prompt: float, output: float
) -> None:
    asks = _load(rate_per_s, prompt, output, 20_000, 250)
    simulated, exact = _simulated(options, asks), _exact(options, asks)
    assert np.allclose(simulated.first_s, exact.first_s, rtol=1e-9)
    assert np.allclose(simulated.end_s, exact.end_s, rtol=1e-9)


@pytest.mark.parametrize(("blocks", "rate_per_s"), [(1024, 5.0), (512, 2.0)])
def test_throughput_and_latency_agree_where_sequences_are_preempted(
    blocks: int, rate_per_s: float
) -> None:
    options = EngineOptions(num_kv_blocks=blocks)
    asks = _load(rate_per_s, 500, 200, 3_000, 300)
    simulated, exact = _simulated(options, asks), _exact(options, asks)
    assert exact.preemptions > 100
    assert simulated.preemptions == pytest.approx(exact.preemptions, rel=0.1)
    assert max(simulated.end_s) == pytest.approx(max(exact.end_s), rel=0.02)
    assert np.mean(simulated.end_s) == pytest.approx(np.mean(exact.end_s), rel=0.02)


def test_a_sequence_takes_an_iteration_for_each_token() -> None:
    bench = Bench(ONE_TOKEN_PER_S)
    work = bench.ask(10.0, 100, 5)
    bench.run()
    assert bench.listener.first_s[work] == pytest.approx(11.0, abs=1e-6)
    assert bench.listener.end_s[work] == pytest.approx(15.0, abs=1e-6)


def test_a_slow_engine_takes_as_many_times_as_long() -> None:
    bench = Bench(ONE_TOKEN_PER_S, slow_factor=3.0)
    work = bench.ask(0.0, 100, 5)
    bench.run()
    assert bench.listener.end_s[work] == pytest.approx(15.0, abs=1e-6)


def test_a_long_prompt_is_computed_in_chunks_beside_those_that_decode() -> None:
    latency = LatencyModel(prefill_tokens_per_s=100.0, decode_step_s=1.0, decode_step_per_seq_s=0.0)
    options = EngineOptions(max_num_batched_tokens=101, latency=latency)
    bench = Bench(options)
    short = bench.ask(0.0, 1, 4)
    long = bench.ask(0.5, 250, 1)
    bench.run()
    # After the first iteration, two of 100 prompt tokens and one of 50, and a decoded token each.
    assert bench.listener.end_s[short] == pytest.approx(1.01 + 2.0 + 2.0 + 1.5)
    assert bench.listener.end_s[long] == pytest.approx(1.01 + 2.0 + 2.0 + 1.5)


def test_what_has_no_slot_waits_and_is_told() -> None:
    bench = Bench(ONE_TOKEN_PER_S)
    works = [bench.ask(0.0, 16, 10) for _ in range(3)]
    bench.run(5.5)
    load = bench.engine.load(5.5)
    assert (load.waiting, load.running) == (1, 2)
    assert list(bench.engine.running) == works[:2]
    assert [bench.engine.generated(work, 5.5) for work in works[:2]] == [5, 4]
    assert bench.engine.generated(works[2], 5.5) == 0
    # Prompts of 16 tokens, four and three of the outputs, and half a block each: the second one
    # came when the first iteration had begun.
    assert load.kv_ratio == pytest.approx((16 + 4 + 8 + 16 + 3 + 8) / (4096 * 16))
    bench.run()
    ends = [bench.listener.end_s[work] for work in works]
    assert ends == pytest.approx([10.0, 11.0, 20.0], abs=1e-6)


def test_an_arrival_that_finds_a_slot_begins_with_the_next_iteration() -> None:
    bench = Bench(ONE_TOKEN_PER_S)
    bench.ask(0.0, 1, 100)
    late = bench.ask(50.5, 1, 2)
    bench.run()
    assert bench.listener.first_s[late] == pytest.approx(52.0, abs=1e-6)
    assert bench.listener.end_s[late] == pytest.approx(53.0, abs=1e-6)


def test_the_work_is_in_what_changes_the_batch_and_not_in_tokens() -> None:
    bench = Bench(ONE_TOKEN_PER_S)
    bench.ask(0.0, 1, 60_000)
    bench.run()
    assert bench.events.scheduled < 10
