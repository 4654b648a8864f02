"""What an engine counts about itself: plain numbers, under no metrics library's rules."""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate

__all__ = ["EngineStats", "Histogram"]

# vLLM's own bucket bounds, in seconds, so that queries written for it give the same resolution.
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_INTER_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class Histogram:
    """Counts of observed values by bucket, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value in the first bucket whose upper bound it does not exceed."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return each upper bound as Prometheus writes it, with the number of values up to it."""
        labels = [*map(str, self.bounds), "+Inf"]
        return list(zip(labels, accumulate(self._counts), strict=True))


class EngineStats:
    """Counters since the engine was made. Token counts are tokens, times are seconds."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_cache_queried_tokens = 0
        self.prefix_cache_hit_tokens = 0
        self.preemptions = 0
        self.adapter_loads = 0
        self.finished: Counter[str] = Counter(stop=0, length=0)
        self.peak_running = 0
        self.first_token_s = Histogram(_FIRST_TOKEN_S)
        self.inter_token_s = Histogram(_INTER_TOKEN_S)
        self.request_s = Histogram(_REQUEST_S)
        self.queue_s = Histogram(_REQUEST_S)
