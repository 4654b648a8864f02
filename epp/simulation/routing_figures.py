"""What routing is judged by: the time to the first token, what was found in the caches, and how
evenly the work was spread.

Figures are of the requests that arrived after the warm-up.
"""

import msgspec
import numpy as np

from epp.simulation.result import OUTCOMES, SERVED, SimulationResult

__all__ = ["RoutingFigures", "routing_figures"]


class RoutingFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run; NaN for what there was none of.

    ``ttft_…_s`` are from the arrival to the first token, of those that had one. ``hit_ratio`` is
    the part of all prompt tokens that the engines found in their prefix caches. ``imbalance`` is
    how many times the mean over the endpoints the busiest one computed, prompt and output tokens
    together. ``refused_ratio`` is the part of the requests that were not served.
    """

    scenario: str
    policy: str
    seed: int
    requests: int
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    ttft_p99_s: float
    hit_ratio: float
    output_tokens_per_s: float
    imbalance: float
    refused_ratio: float


def routing_figures(result: SimulationResult) -> RoutingFigures:
    """Return the figures of a run."""
    table = result.requests
    rows = table.arrived_s >= result.measure_from_s
    ttft_s = (table.first_token_s - table.arrived_s)[rows]
    ttft_s = ttft_s[~np.isnan(ttft_s)]
    p50, p95, p99 = np.percentile(ttft_s, (50, 95, 99)) if len(ttft_s) else (np.nan,) * 3
    served = rows & (table.outcome == OUTCOMES.index(SERVED))
    requests, prompt_tokens = int(rows.sum()), int(table.prompt_tokens[served].sum())
    cached_tokens = int(table.cached_tokens[served].sum())
    computed = table.prompt_tokens - table.cached_tokens + table.output_tokens
    work = np.bincount(table.endpoint[served], weights=computed[served])
    in_time = (table.ended_s >= result.measure_from_s) & (table.ended_s <= result.duration_s)
    in_time &= table.outcome == OUTCOMES.index(SERVED)
    length_s = result.duration_s - result.measure_from_s
    return RoutingFigures(
        scenario=result.scenario,
        policy=result.policy,
        seed=result.seed,
        requests=requests,
        ttft_mean_s=float(ttft_s.mean()) if len(ttft_s) else np.nan,
        ttft_p50_s=float(p50),
        ttft_p95_s=float(p95),
        ttft_p99_s=float(p99),
        hit_ratio=cached_tokens / prompt_tokens if prompt_tokens else np.nan,
        output_tokens_per_s=float(table.output_tokens[in_time].sum()) / length_s,
        imbalance=float(work.max() / work.mean()) if len(work) else np.nan,
        refused_ratio=1.0 - int(served.sum()) / requests if requests else np.nan,
    )
