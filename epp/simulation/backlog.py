"""Who always had something waiting, and how evenly those were served: what fairness is about.

A tenant that gets all it asks for says nothing about fairness, so its service does not count.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from epp.simulation.result import SERVED, Floats, SimulationResult
from epp.simulation.summary import FlowName, jain_index

__all__ = ["backlogged_flows", "evenness", "served_within"]

_ALWAYS = 0.99


def backlogged_flows(result: SimulationResult) -> tuple[FlowName, ...]:
    """Return the tenants, by priority, that had requests in the queue at 99 of 100 samples between
    the end of the warm-up and the last arrival."""
    requests, time_s = result.requests, result.timeline.time_s
    measured = time_s[(time_s >= result.measure_from_s) & (time_s <= result.duration_s)]
    left_s = np.fmin(requests.dispatched_s, requests.ended_s)  # NaN where it is still there
    found = []
    for index, name in enumerate(result.tenants):
        of_tenant = requests.tenant == index
        for priority in np.unique(requests.priority[of_tenant]).tolist():
            rows = of_tenant & (requests.priority == priority)
            waiting = _until(requests.entered_s[rows], measured) - _until(left_s[rows], measured)
            if len(measured) and np.mean(waiting > 0) >= _ALWAYS:
                found.append(FlowName(name, priority))
    return tuple(found)


def evenness(
    service: Mapping[str, float], weights: Mapping[str, float], flows: Iterable[FlowName]
) -> tuple[float, float]:
    """Return, of the tenants' service by weight, the least by the most, and Jain's index.

    Tenants of one priority are compared with one another; of several priorities with at least two
    tenants the worst counts. NaN where there is none.
    """
    by_priority: dict[int, list[float]] = {}
    for name, priority in flows:
        by_priority.setdefault(priority, []).append(service[name] / weights.get(name, 1.0))
    groups = [group for group in by_priority.values() if len(group) > 1 and max(group) > 0]
    ratio = min((min(group) / max(group) for group in groups), default=np.nan)
    return ratio, min(map(jain_index, groups), default=np.nan)


def served_within(result: SimulationResult, tries: int) -> float:
    """Return how many of the requests that arrived after the warm-up were served within so many
    tries, 0 to 1; NaN where nothing arrived."""
    requests = result.requests
    measured = requests.arrived_s >= result.measure_from_s
    served = requests.outcome == result.outcomes.index(SERVED)
    within = served & (requests.tries <= tries)
    return float(np.mean(within[measured])) if measured.any() else np.nan


def _until(times_s: Floats, grid_s: Floats) -> Floats:
    """Return how many of the times have come by each time of the grid; NaN never comes."""
    known = np.sort(times_s[~np.isnan(times_s)])
    return np.searchsorted(known, grid_s, side="right").astype(np.float64)
