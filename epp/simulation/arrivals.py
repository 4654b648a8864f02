"""When requests arrive: open processes as endless iterators of times, in seconds."""

import itertools
import random
from collections.abc import Iterator

from epp.simulation.scenario import Burst, Constant, OnOff, Poisson

__all__ = ["arrival_times"]


def arrival_times(
    arrivals: Poisson | Constant | Burst | OnOff, start_s: float, rng: random.Random
) -> Iterator[float]:
    """Return the times of arrival from ``start_s`` on, in order."""
    if isinstance(arrivals, Poisson):
        times_s = _poisson(arrivals.rate_per_s, start_s, rng)
        return _growing(times_s, arrivals.ramp_s, start_s, rng) if arrivals.ramp_s else times_s
    if isinstance(arrivals, Constant):
        rate_per_s = arrivals.rate_per_s
        return (start_s + number / rate_per_s for number in itertools.count())
    if isinstance(arrivals, Burst):
        return _bursts(arrivals, start_s)
    return _on_off(arrivals, start_s, rng)


def _poisson(rate_per_s: float, start_s: float, rng: random.Random) -> Iterator[float]:
    time_s = start_s
    while True:
        time_s += rng.expovariate(rate_per_s)
        yield time_s


def _growing(
    times_s: Iterator[float], ramp_s: float, start_s: float, rng: random.Random
) -> Iterator[float]:
    """Leave out so many of the first times that their rate grows linearly."""
    return (time_s for time_s in times_s if rng.random() * ramp_s < time_s - start_s)


def _bursts(burst: Burst, start_s: float) -> Iterator[float]:
    if burst.period_s is None:
        yield from itertools.repeat(start_s, burst.size)
        return
    for number in itertools.count():
        yield from itertools.repeat(start_s + number * burst.period_s, burst.size)


def _on_off(process: OnOff, start_s: float, rng: random.Random) -> Iterator[float]:
    phases = ((process.rate_per_s, process.on_s), (process.off_rate_per_s, process.off_s))
    for rate_per_s, length_s in itertools.cycle(phases):
        end_s = start_s + length_s
        if rate_per_s > 0:
            # Arrivals without memory: what a phase cuts off is drawn anew in the next.
            for time_s in _poisson(rate_per_s, start_s, rng):
                if time_s >= end_s:
                    break
                yield time_s
        start_s = end_s
