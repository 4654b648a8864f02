"""The simulated engine's prefix cache and adapter slots, against the engine that it models."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from epp.core.timers import Timers
from epp.modelserver.engine import Engine, EngineOptions
from epp.modelserver.latency import LatencyModel
from epp.modelserver.sequence import EngineRequest
from epp.simulation.engine import SimulatedEngine
from epp.simulation.events import Events
from epp.simulation.prefix_store import Text
from epp.simulation.work import Work


class Ask(NamedTuple):
    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    text: Text = ()
    adapter: str | None = None


class Run(NamedTuple):
    first_s: list[float]
    hit_tokens: int
    preemptions: int


class Listener:
    def __init__(self) -> None:
        self.first_s: dict[Work, float] = {}

    def began(self, work: Work, now: float) -> None:
        self.first_s[work] = now

    def ended(self, work: Work, now: float) -> None:
        pass


def _simulated(options: EngineOptions, asks: Sequence[Ask]) -> Run:
    events, listener = Events(Timers()), Listener()
    engine = SimulatedEngine(options, events.schedule, listener)
    works = [Work(*ask[1:]) for ask in asks]
    for ask, work in zip(asks, works, strict=True):
        events.schedule(ask.arrived_s, lambda now, work=work: engine.add(work, now))
    events.run(1e9, lambda: False)
    load = engine.load(events.now)
    assert (load.waiting, load.running, load.kv_ratio) == (0, 0, 0.0)
    first_s = [listener.first_s[work] for work in works]
    return Run(first_s, sum(work.cached_tokens for work in works), engine.preemptions)


def _exact(options: EngineOptions, asks: Sequence[Ask]) -> Run:
    engine = Engine(options)
    first_s: dict[str, float] = {}
    number = 0
    while number < len(asks) or engine.wake_at is not None:
        wake_s = engine.wake_at
        if number < len(asks) and (wake_s is None or asks[number].arrived_s < wake_s):
            ask = asks[number]
            request = EngineRequest(
                request_id=str(number),
                prompt_tokens=ask.prompt_tokens,
                output_tokens=ask.output_tokens,
                block_hashes=_hashes(ask.text, options.block_size),
                adapter=ask.adapter,
            )
            engine.add(request, ask.arrived_s)
            if wake_s is None:
                engine.step(ask.arrived_s)
            number += 1
            continue
        assert wake_s is not None
        for token in engine.step(wake_s).tokens:
            first_s.setdefault(token.request_id, wake_s)
    return Run(
        [first_s[str(number)] for number in range(len(asks))],
        engine.stats.prefix_cache_hit_tokens,
        engine.stats.preemptions,
    )


def _hashes(text: Text, block_tokens: int) -> list[int]:
    hashes, start = [], 0
    for number, end_tokens in text:
        end = end_tokens // block_tokens
        hashes += [number * 1_000_000 + index for index in range(start, end)]
        start = max(start, end)
    return hashes


def _prefixes(rng: random.Random, number: int) -> tuple[int, int, Text]:
    """Twenty prefixes, the first ones more often, and a question of one's own."""
    prefix = min(int(rng.expovariate(0.15)), 19)
    prompt, output = 700 + 37 * prefix + rng.randint(1, 400), rng.randint(1, 200)
    return prompt, output, ((prefix, 700 + 37 * prefix), (1000 + number, prompt + output))


def _documents(rng: random.Random, number: int) -> tuple[int, int, Text]:
    """Each document of 6,000 tokens is asked about four times, with others in between."""
    document = number // 40 * 10 + rng.randrange(10)
    prompt, output = 6000 + rng.randint(1, 60), rng.randint(1, 60)
    return prompt, output, ((document, 6000), (100_000 + number, prompt + output))


def _chats(rng: random.Random, number: int) -> tuple[int, int, Text]:
    """The turn of one of thirty chats, all of which go on for ever after the same beginning."""
    chat, turn = number % 30, number // 30
    lengths = random.Random(chat)
    text, end = [(0, 300)], 300
    for each in range(turn + 1):
        prompt, output = lengths.randint(1, 150), lengths.randint(1, 150)
        text.append((1 + chat * 1000 + each, end + prompt + output))
        end += prompt + output
    return end - output, output, tuple(text)


Draw = Callable[[random.Random, int], tuple[int, int, Text]]


def _asks(draw: Draw, rate_per_s: float, count: int) -> list[Ask]:
    rng, now, asks = random.Random(1), 0.0, []
    for number in range(count):
        now += rng.expovariate(rate_per_s)
        asks.append(Ask(now, *draw(rng, number)))
    return asks


@pytest.mark.parametrize(
    ("draw", "blocks", "rate_per_s", "is_tight"),
    [
        (_prefixes, 4096, 6.0, False),
        (_prefixes, 1024, 3.0, True),
        (_documents, 4096, 1.5, False),
        (_documents, 2048, 1.0, True),
        (_chats, 4096, 3.0, False),
        (_chats, 2048, 2.0, True),
    ],
)
def test_prefixes_are_found_as_by_the_exact_engine(
    draw: Draw, blocks: int, rate_per_s: float, is_tight: bool
) -> None:
    options = EngineOptions(num_kv_blocks=blocks, max_num_seqs=64)
    asks = _asks(draw, rate_per_s, 400)
    simulated, exact = _simulated(options, asks), _exact(options, asks)
    arrived_s = [ask.arrived_s for ask in asks]
    ours_s, theirs_s = (np.subtract(run.first_s, arrived_s) for run in (simulated, exact))
    assert exact.hit_tokens > 0.4 * sum(ask.prompt_tokens for ask in asks)
    if not is_tight:  # nobody is preempted: there is nothing that half a block could change
        assert simulated.hit_tokens == exact.hit_tokens
        assert np.allclose(ours_s, theirs_s, rtol=1e-6)
        return
    assert exact.preemptions > 0
    assert simulated.hit_tokens == pytest.approx(exact.hit_tokens, rel=0.02)
    assert ours_s.mean() == pytest.approx(theirs_s.mean(), rel=0.03)
    assert np.percentile(ours_s, 95) == pytest.approx(np.percentile(theirs_s, 95), rel=0.03)


def test_without_prefix_caching_nothing_is_found() -> None:
    asks = _asks(_prefixes, 3.0, 100)
    simulated = _simulated(EngineOptions(prefix_caching=False), asks)
    exact = _exact(EngineOptions(prefix_caching=False), asks)
    assert simulated.hit_tokens == exact.hit_tokens == 0
    assert np.allclose(simulated.first_s, exact.first_s)


@pytest.mark.parametrize("rate_per_s", [2.0, 5.0])
def test_adapters_wait_for_slots_as_in_the_exact_engine(rate_per_s: float) -> None:
    rng, now, asks = random.Random(2), 0.0, []
    for _ in range(400):
        now += rng.expovariate(rate_per_s)
        adapter = rng.choice([None, *(f"adapter-{number}" for number in range(6))])
        asks.append(Ask(now, rng.randint(1, 500), rng.randint(1, 200), (), adapter))
    options = EngineOptions(max_loras=2, latency=LatencyModel(lora_load_s=0.3))
    simulated, exact = _simulated(options, asks), _exact(options, asks)
    assert np.allclose(simulated.first_s, exact.first_s, rtol=1e-6)


def test_what_an_engine_tells_of_its_cache_and_its_adapters() -> None:
    events = Events(Timers())
    engine = SimulatedEngine(EngineOptions(max_loras=1), events.schedule, Listener())
    for adapter in ("one", "two", None):
        engine.add(Work(100, 100, (), adapter), 0.0)
    events.run(1.0, lambda: False)
    load = engine.load(1.0)
    assert (load.active_adapters, load.waiting_adapters) == ({"one"}, {"two"})
    assert (load.max_adapters, load.block_tokens, load.cache_blocks) == (1, 16, 4096)
    assert (load.running, load.waiting) == (2, 1)


class Told(NamedTuple):
    """What an engine with two sequences says of one that is added, and what comes of it."""

    cached_tokens: int
    told_s: float
    took_s: float


def _told(work: Work, **options: int) -> Told:
    latency = LatencyModel(
        prefill_tokens_per_s=1000.0, decode_step_s=1.0, decode_step_per_seq_s=0.0, lora_load_s=0.0
    )
    events, listener = Events(Timers()), Listener()
    engine = SimulatedEngine(
        EngineOptions(max_num_batched_tokens=100_000, latency=latency, **options),
        events.schedule,
        listener,
    )
    assert engine.first_token_in_s(Work(1000, 10), 0.0) == pytest.approx(2.0)
    engine.add(Work(1000, 10, ((1, 1010),)), 0.0)
    engine.add(Work(1000, 10, ((2, 1010),), "adapter"), 0.0)
    events.run(5.5, lambda: False)
    cached_tokens, told_s = engine.cached_tokens(work), engine.first_token_in_s(work, 5.5)
    engine.add(work, 5.5)
    events.run(1e9, lambda: work in listener.first_s)
    return Told(cached_tokens, told_s, listener.first_s[work] - 5.5)


def test_an_oracle_is_told_what_an_engine_has_and_how_long_it_takes() -> None:
    hit = _told(Work(1000, 9, ((1, 1009),)))
    assert (hit.cached_tokens, hit.told_s) == (992, pytest.approx(hit.took_s))
    miss = _told(Work(1000, 9, ((3, 1009),)))
    assert (miss.cached_tokens, miss.told_s) == (0, pytest.approx(miss.took_s))
    assert miss.took_s - hit.took_s == pytest.approx(0.992)


def test_an_oracle_knows_the_wait_for_a_place_and_for_an_adapter() -> None:
    # An iteration more or less, since the one that runs is long or short.
    place = _told(Work(1000, 9), max_num_seqs=2)
    assert place.took_s > 7.0
    assert place.told_s == pytest.approx(place.took_s, abs=1.01)
    adapter = _told(Work(1000, 9, (), "other"), max_loras=1)
    assert adapter.took_s > 7.0
    assert adapter.told_s == pytest.approx(adapter.took_s, abs=1.01)
    assert _told(Work(1000, 9, (), "adapter"), max_loras=1).took_s < 4.0
