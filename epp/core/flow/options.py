"""What the flow control can be told: bounds and budgets, policies by band, weights, costs."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

__all__ = [
    "BandOptions",
    "CostOptions",
    "Fairness",
    "FlowLimits",
    "FlowOptions",
    "Ordering",
    "UsageLimit",
    "UsageLimitOptions",
]

Fairness = Literal["weighted-fair", "round-robin", "global-strict"]
Ordering = Literal["fcfs", "edf", "slo-deadline"]
UsageLimit = Literal["static", "priority-holdback", "soft-reflective-ceiling"]


class FlowLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait, and for how long.

    ``max_requests`` and ``max_bytes`` bound the whole queue. ``wait_limit_s`` is the budget of a
    wait while the pool has endpoints, ``no_endpoint_wait_limit_s`` while it has none; None waits
    without end. ``reject_hopeless`` turns a request away on arrival when, by the measured drain
    rate, its budget would be over before its turn came. ``max_retry_after_s`` bounds the advice to
    clients that are turned away.
    """

    max_requests: int = 10_000
    max_bytes: int = 1 << 30
    wait_limit_s: float | None = 60.0
    no_endpoint_wait_limit_s: float | None = 60.0
    reject_hopeless: bool = True
    max_retry_after_s: int = 300


class BandOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One priority: its bounds, and the policies among and within its flows.

    ``min_share`` is the fraction of all dispatches that the band is sure of while it waits, also
    where a higher one could use them; 0 is strict priority. Its oldest request goes next once it
    has waited ``max_wait_s``; None never. ``wait_limit_s`` is the band's own budget of a wait, in
    place of that of FlowLimits; None takes that, and infinity waits without end.
    """

    max_requests: int = 5_000
    max_bytes: int = 1_000_000_000
    fairness: Fairness = "weighted-fair"
    ordering: Ordering = "fcfs"
    min_share: float = 0.0
    max_wait_s: float | None = None
    wait_limit_s: float | None = None


class CostOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a request costs its flow.

    ``unit`` is ``tokens``, ``prompt_weight · prompt tokens + output_weight · output tokens``, or
    ``slot-time``, the time for which it holds capacity. Where a response does not tell its
    length, it is told by the time that it took: ``prefill_tokens_per_s`` for the prompt and
    ``s_per_output_token`` for the rest, until responses that do tell have shown better.
    ``default_output_tokens`` is the estimate before anything was seen.
    """

    unit: Literal["tokens", "slot-time"] = "tokens"
    prompt_weight: float = 1.0
    output_weight: float = 2.0
    default_output_tokens: int = 16
    prefill_tokens_per_s: float = 10_000.0
    s_per_output_token: float = 0.03


class UsageLimitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the pool each band may fill, so that higher ones find room.

    ``static``: up to ``ceiling`` for all. ``priority-holdback``: from ``ceiling`` for the highest
    band that has traffic down to ``min_ceiling`` for the lowest, by rank or by the value of the
    priority. ``soft-reflective-ceiling``: lower bands are let through less often the fuller the
    pool is.
    """

    policy: UsageLimit = "static"
    ceiling: float = 1.0
    min_ceiling: float = 0.0
    domain: Literal["rank", "value"] = "rank"


class FlowOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All of the flow control.

    ``band`` holds for priorities that have no entry in ``bands``; ``negative_band``, where there is
    one, for those below 0. ``weights`` are the shares of flows by fairness id, 1 where there is
    none. Each band tells ``max_flows`` flows apart, and all in ``weights``, and spreads those
    beyond over ``shared_flows``. With ``eviction``, running requests of negative priority are ended
    for higher bands that are blocked.
    """

    limits: FlowLimits = FlowLimits()
    band: BandOptions = BandOptions()
    negative_band: BandOptions | None = None
    bands: Mapping[int, BandOptions] = MappingProxyType({})
    weights: Mapping[str, float] = MappingProxyType({})
    cost: CostOptions = CostOptions()
    usage_limit: UsageLimitOptions = UsageLimitOptions()
    eviction: bool = False
    max_flows: int = 1_000
    shared_flows: int = 64

    def band_of(self, priority: int) -> BandOptions:
        """Return the options of a priority."""
        own = self.bands.get(priority)
        if own is not None:
            return own
        if priority < 0 and self.negative_band is not None:
            return self.negative_band
        return self.band

    def budget_s(self, priority: int, own_s: float | None, *, pool_is_empty: bool) -> float | None:
        """Return for how long a request of this priority may wait, in seconds, None for ever: the
        smaller of what it says itself, ``own_s``, and what holds for its band, or for all while the
        pool is empty."""
        if pool_is_empty:
            general_s = self.limits.no_endpoint_wait_limit_s
        else:
            general_s = self.band_of(priority).wait_limit_s
            if general_s is None:
                general_s = self.limits.wait_limit_s
        waits_s = [wait_s for wait_s in (general_s, own_s) if wait_s is not None]
        budget_s = min(waits_s, default=math.inf)
        return None if budget_s == math.inf else budget_s
