"""What a report compares: the runs of one scenario, by policy, and how each thing looks in it."""

from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from epp.simulation.result import SimulationResult
from epp.simulation.summary import FlowName, Summary, summarise

__all__ = ["OTHER", "Comparison", "Variant", "compare"]

OTHER: Final = "other"
"""The style of what is drawn as one because there is too much of it."""

_MOST_DRAWN: Final = 12
_TENANT_COLOURS: Final = 6
_PRIORITY_COLOURS: Final = 4
_STROKES: Final = 4

_Item = TypeVar("_Item")


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one scenario under one policy, one for each seed."""

    policy: str
    results: tuple[SimulationResult, ...]
    summaries: tuple[Summary, ...]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one scenario.

    ``tenants`` and ``priorities`` are all there are; ``flows`` all that had requests, from the
    highest priority down. The ``drawn_`` ones have the most requests; plots show no others.
    """

    scenario: str
    variants: tuple[Variant, ...]
    tenants: tuple[str, ...]
    drawn_tenants: tuple[str, ...]
    priorities: tuple[int, ...]
    drawn_priorities: tuple[int, ...]
    flows: tuple[FlowName, ...]
    drawn_flows: tuple[FlowName, ...]

    @property
    def results(self) -> list[SimulationResult]:
        """The runs of all policies."""
        return [result for variant in self.variants for result in variant.results]

    def tenant_style(self, tenant: str) -> str:
        """Return the classes that give a tenant its colour, the same in all plots."""
        return _style("t", self.drawn_tenants.index(tenant), _TENANT_COLOURS)

    def flow_style(self, flow: FlowName) -> str:
        """Return the classes of a flow: its tenant's colour, a stroke for each priority of it."""
        number = self.drawn_tenants.index
        colour = number(flow.tenant) % _TENANT_COLOURS
        alike = [of for of in self.drawn_flows if number(of.tenant) % _TENANT_COLOURS == colour]
        stroke = sorted(alike, key=lambda of: number(of.tenant)).index(flow)
        return f"t{colour} d{stroke % _STROKES}"

    def priority_style(self, priority: int) -> str:
        """Return the classes of a priority, the strongest colour for the highest."""
        return _style("p", self.drawn_priorities.index(priority), _PRIORITY_COLOURS)


def compare(results: Sequence[SimulationResult]) -> list[Comparison]:
    """Return the runs by scenario and policy, both in the order in which they first appear."""
    scenarios: dict[str, dict[str, list[SimulationResult]]] = {}
    for result in results:
        scenarios.setdefault(result.scenario, {}).setdefault(result.policy, []).append(result)
    return [_comparison(scenario, policies) for scenario, policies in scenarios.items()]


def _comparison(scenario: str, policies: dict[str, list[SimulationResult]]) -> Comparison:
    variants = tuple(
        Variant(
            policy=policy,
            results=tuple(results),
            summaries=tuple(summarise(result) for result in results),
        )
        for policy, results in policies.items()
    )
    results = [result for variant in variants for result in variant.results]
    requests: Counter[FlowName] = Counter()
    for variant in variants:
        for summary in variant.summaries:
            for of in summary.flows:
                requests[FlowName(of.tenant, of.priority)] += of.figures.requests
    tenants = tuple(dict.fromkeys(tenant for result in results for tenant in result.tenants))
    order = {tenant: number for number, tenant in enumerate(tenants)}
    flows = tuple(sorted(requests, key=lambda flow: (-flow.priority, order[flow.tenant])))
    of_tenant: Counter[str] = Counter()
    of_priority = Counter(
        {priority: 0 for result in results for priority in result.timeline.queued}
    )
    for flow, count in requests.items():
        of_tenant[flow.tenant] += count
        of_priority[flow.priority] += count
    drawn_tenants = _most(of_tenant, tenants)
    candidates = [flow for flow in flows if flow.tenant in drawn_tenants]
    priorities = tuple(sorted(of_priority, reverse=True))
    return Comparison(
        scenario=scenario,
        variants=variants,
        tenants=tenants,
        drawn_tenants=drawn_tenants,
        priorities=priorities,
        drawn_priorities=_most(of_priority, priorities),
        flows=flows,
        drawn_flows=_most(requests, candidates),
    )


def _most(counts: Counter[_Item], ordered: Sequence[_Item]) -> tuple[_Item, ...]:
    """Those with the highest counts, in their own order."""
    chosen = set(sorted(ordered, key=lambda item: -counts[item])[:_MOST_DRAWN])
    return tuple(item for item in ordered if item in chosen)


def _style(kind: str, number: int, colours: int) -> str:
    return f"{kind}{number % colours} d{number // colours % _STROKES}"
