"""From what was counted to the figures: per run, and over the rounds."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean, median

import msgspec

from loadkit.client import Window

__all__ = ["Counters", "Result", "Round", "Sample", "Spread", "Summary", "sample", "spread",
           "summary"]  # fmt: skip


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What was read before or after a run: CPU time so far, ext_proc messages so far."""

    epp_cpu_s: float = 0.0
    envoy_cpu_s: float = 0.0
    messages: int = 0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run; CPU times and messages (to the EPP) are per request."""

    requests: int
    requests_per_s: float
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    envoy_cpu_us: float
    epp_cpu_us: float
    ext_proc_messages: float
    queued_share: float
    queue_wait_mean_ms: float


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """A run without the filter, and one with it right after."""

    off: Sample
    on: Sample


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """One figure over all rounds."""

    median: float
    min: float
    max: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures over all rounds; ``added`` is with the filter minus without, round by round."""

    requests_per_s_off: Spread
    requests_per_s_on: Spread
    latency_p50_off_ms: Spread
    latency_p50_on_ms: Spread
    added_p50_ms: Spread
    added_p90_ms: Spread
    added_p99_ms: Spread
    envoy_cpu_off_us: Spread
    envoy_cpu_on_us: Spread
    epp_cpu_us: Spread
    epp_cpu_us_per_message: Spread
    ext_proc_messages: Spread
    queued_share: Spread
    queue_wait_mean_ms: Spread


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """All about one scenario with one number of clients."""

    scenario: str
    text: str
    clients: int
    summary: Summary
    rounds: tuple[Round, ...]


def sample(window: Window, before: Counters, after: Counters) -> Sample:
    """Return the figures of a run without failures between two readings of the counters."""
    count = len(window.latencies_s)
    latencies_ms = [latency_s * 1e3 for latency_s in sorted(window.latencies_s)]
    waits_ms = window.queue_waits_ms
    return Sample(
        requests=count,
        requests_per_s=count / window.elapsed_s,
        latency_p50_ms=_percentile(latencies_ms, 0.50),
        latency_p90_ms=_percentile(latencies_ms, 0.90),
        latency_p99_ms=_percentile(latencies_ms, 0.99),
        envoy_cpu_us=(after.envoy_cpu_s - before.envoy_cpu_s) / count * 1e6,
        epp_cpu_us=(after.epp_cpu_s - before.epp_cpu_s) / count * 1e6,
        ext_proc_messages=(after.messages - before.messages) / count,
        queued_share=sum(1 for wait_ms in waits_ms if wait_ms) / count,
        queue_wait_mean_ms=fmean(waits_ms) if waits_ms else 0.0,
    )


def summary(rounds: Sequence[Round]) -> Summary:
    """Return the figures over the rounds."""

    def over(figure: Callable[[Round], float]) -> Spread:
        return spread([figure(each) for each in rounds])

    return Summary(
        requests_per_s_off=over(lambda r: r.off.requests_per_s),
        requests_per_s_on=over(lambda r: r.on.requests_per_s),
        latency_p50_off_ms=over(lambda r: r.off.latency_p50_ms),
        latency_p50_on_ms=over(lambda r: r.on.latency_p50_ms),
        added_p50_ms=over(lambda r: r.on.latency_p50_ms - r.off.latency_p50_ms),
        added_p90_ms=over(lambda r: r.on.latency_p90_ms - r.off.latency_p90_ms),
        added_p99_ms=over(lambda r: r.on.latency_p99_ms - r.off.latency_p99_ms),
        envoy_cpu_off_us=over(lambda r: r.off.envoy_cpu_us),
        envoy_cpu_on_us=over(lambda r: r.on.envoy_cpu_us),
        epp_cpu_us=over(lambda r: r.on.epp_cpu_us),
        epp_cpu_us_per_message=over(lambda r: r.on.epp_cpu_us / max(r.on.ext_proc_messages, 1.0)),
        ext_proc_messages=over(lambda r: r.on.ext_proc_messages),
        queued_share=over(lambda r: r.on.queued_share),
        queue_wait_mean_ms=over(lambda r: r.on.queue_wait_mean_ms),
    )


def spread(values: Sequence[float]) -> Spread:
    """Return one figure over all rounds."""
    return Spread(median=median(values), min=min(values), max=max(values))


def _percentile(ascending: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
