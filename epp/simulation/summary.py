"""The figures of a simulation: counts, percentiles, shares, and how even the shares are.

The command's table and the report both show these, so they cannot differ. Figures are of the
requests that arrived after the warm-up. Shares are of the service given from the end of the warm-up
until requests stopped arriving: once nothing more arrives, everybody is served in the end, and what
the policy did no longer shows.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from epp.simulation.result import SERVED, Floats, SimulationResult

__all__ = [
    "Figures",
    "FlowName",
    "FlowSummary",
    "Percentiles",
    "Rows",
    "Summary",
    "jain_index",
    "measured_rows",
    "percentiles",
    "summarise",
    "times_to_first_token_s",
    "waits_s",
]

Rows: TypeAlias = npt.NDArray[np.intp]
"""Which rows of a request table."""


class FlowName(NamedTuple):
    """All requests of one tenant at one priority."""

    tenant: str
    priority: int


class Percentiles(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Percentiles of ``count`` values, in the unit of these; NaN where there is no value."""

    count: int
    p50: float
    p90: float
    p99: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a set of requests.

    ``outcomes`` counts them by outcome, without those that did not occur. ``wait_s`` is the wait in
    the queue in the try that was dispatched; ``ttft_s`` is from the arrival of the first try to the
    first token. Both know only the requests that came so far. ``mean_tries`` is NaN without any
    request.
    """

    requests: int
    outcomes: dict[str, int]
    wait_s: Percentiles
    ttft_s: Percentiles
    mean_tries: float
    most_tries: int

    @property
    def served(self) -> int:
        """The requests whose response was complete."""
        return self.outcomes.get(SERVED, 0)


class FlowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one tenant at one priority.

    ``tenant_share`` is the whole tenant's share of the service, 0 to 1, NaN where nobody got any.
    """

    tenant: str
    priority: int
    figures: Figures
    tenant_share: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one run.

    ``flows`` go from the highest priority down, those of one priority in the order of the tenants.
    ``service`` is each tenant's served cost, ``shares`` the same as a part of all of it, ``jain``
    Jain's index over the tenants; where nobody got anything, shares and index are NaN.
    """

    scenario: str
    policy: str
    seed: int
    duration_s: float
    measure_from_s: float
    total: Figures
    flows: tuple[FlowSummary, ...]
    service: dict[str, float]
    shares: dict[str, float]
    jain: float


def summarise(result: SimulationResult) -> Summary:
    """Return the figures of a run."""
    rows = measured_rows(result)
    service = _service(result)
    total = sum(service.values())
    shares = {name: cost / total if total > 0 else np.nan for name, cost in service.items()}
    everything = np.concatenate([*rows.values(), np.empty(0, dtype=np.intp)])
    return Summary(
        scenario=result.scenario,
        policy=result.policy,
        seed=result.seed,
        duration_s=result.duration_s,
        measure_from_s=result.measure_from_s,
        total=_figures(result, everything),
        flows=tuple(
            FlowSummary(
                tenant=flow.tenant,
                priority=flow.priority,
                figures=_figures(result, of_flow),
                tenant_share=shares.get(flow.tenant, np.nan),
            )
            for flow, of_flow in rows.items()
        ),
        service=service,
        shares=shares,
        jain=jain_index(list(service.values())),
    )


def measured_rows(result: SimulationResult) -> dict[FlowName, Rows]:
    """Return for each flow the rows of its requests that arrived after the warm-up, in order.

    Flows without such a request are not there; the others go from the highest priority down, those
    of one priority in the order of the tenants.
    """
    requests = result.requests
    measured = np.flatnonzero(requests.arrived_s >= result.measure_from_s)
    tenant, priority = requests.tenant[measured], requests.priority[measured]
    order = np.lexsort((tenant, -priority.astype(np.int64)))
    tenant, priority = tenant[order], priority[order]
    is_first = (np.diff(tenant) != 0) | (np.diff(priority) != 0)
    starts = np.concatenate(
        [np.zeros(min(1, len(order)), dtype=np.intp), 1 + np.flatnonzero(is_first)]
    )
    groups = np.split(measured[order], starts[1:]) if len(order) else []
    return {
        FlowName(result.tenants[tenant[start]], int(priority[start])): group
        for start, group in zip(starts, groups, strict=True)
    }


def waits_s(result: SimulationResult, rows: Rows) -> Floats:
    """Return how long the requests in these rows waited in the queue, in seconds, as far as they
    were dispatched."""
    return _known(result.requests.dispatched_s[rows] - result.requests.entered_s[rows])


def times_to_first_token_s(result: SimulationResult, rows: Rows) -> Floats:
    """Return the time from the first try to the first token, in seconds, of those requests in
    these rows that had one."""
    return _known(result.requests.first_token_s[rows] - result.requests.arrived_s[rows])


def percentiles(values: Floats) -> Percentiles:
    """Return the percentiles of the values, between two of them by linear interpolation."""
    if not len(values):
        return Percentiles(count=0, p50=np.nan, p90=np.nan, p99=np.nan)
    p50, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return Percentiles(count=len(values), p50=p50, p90=p90, p99=p99)


def jain_index(values: Sequence[float]) -> float:
    """Return how even the values are: 1 if all are equal, 1/n if one of the n has everything.

    ``(sum x)^2 / (n sum x^2)``; source: Jain, Chiu, Hawe, "A quantitative measure of fairness and
    discrimination for resource allocation in shared computer systems" (1984). NaN where there is no
    value but 0.
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares > 0 else np.nan


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _figures(result: SimulationResult, rows: Rows) -> Figures:
    counts = np.bincount(result.requests.outcome[rows], minlength=len(result.outcomes)).tolist()
    tries = result.requests.tries[rows]
    return Figures(
        requests=len(rows),
        outcomes={
            name: count for name, count in zip(result.outcomes, counts, strict=True) if count
        },
        wait_s=percentiles(waits_s(result, rows)),
        ttft_s=percentiles(times_to_first_token_s(result, rows)),
        mean_tries=float(tries.mean()) if len(rows) else np.nan,
        most_tries=int(tries.max()) if len(rows) else 0,
    )


def _service(result: SimulationResult) -> dict[str, float]:
    """Each tenant's served cost between the end of the warm-up and the last arrival."""
    timeline = result.timeline
    if not len(timeline.time_s):
        return dict.fromkeys(result.tenants, 0.0)
    window = (result.measure_from_s, result.duration_s)
    service = {}
    for tenant in result.tenants:
        served = timeline.served_cost.get(tenant)
        if served is None:
            service[tenant] = 0.0
            continue
        before, after = np.interp(window, timeline.time_s, served)
        service[tenant] = max(0.0, float(np.nan_to_num(after - before)))
    return service
