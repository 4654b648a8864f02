"""A scenario for another number of endpoints, or under another load."""

import msgspec

from epp.errors import UsageError
from epp.simulation.scenario import (
    Arrivals,
    Burst,
    ClosedLoop,
    Content,
    Documents,
    OnOff,
    Scenario,
    SharedPrefix,
)

__all__ = ["scaled"]


def scaled(scenario: Scenario, endpoints: int | None = None, load: float = 1.0) -> Scenario:
    """Return a scenario with so many endpoints, and with so many times the load of each.

    With the endpoints grow, in proportion, the arrivals, and the shared prefixes and documents, so
    that each endpoint has as much to do and to cache as before. Raises UsageError for a scenario
    with several groups of endpoints.
    """
    if endpoints is None:
        factor = 1.0
    else:
        if len(scenario.pool) != 1:
            raise UsageError(
                f"{scenario.name}: {len(scenario.pool)} groups of endpoints; expected one, to have"
                f" {endpoints} endpoints in it"
            )
        factor = endpoints / scenario.pool[0].count
        group = msgspec.structs.replace(scenario.pool[0], count=endpoints)
        scenario = msgspec.structs.replace(scenario, pool=(group,))
    tenants = tuple(
        msgspec.structs.replace(
            tenant,
            arrivals=_arrivals(tenant.arrivals, factor * load),
            content=_content(tenant.content, factor),
        )
        for tenant in scenario.tenants
    )
    return msgspec.structs.replace(scenario, tenants=tenants)


def _arrivals(arrivals: Arrivals, factor: float) -> Arrivals:
    if isinstance(arrivals, ClosedLoop):
        return msgspec.structs.replace(arrivals, clients=_times(arrivals.clients, factor))
    if isinstance(arrivals, Burst):
        return msgspec.structs.replace(arrivals, size=_times(arrivals.size, factor))
    rate_per_s = arrivals.rate_per_s * factor
    if isinstance(arrivals, OnOff):
        off = arrivals.off_rate_per_s * factor
        return msgspec.structs.replace(arrivals, rate_per_s=rate_per_s, off_rate_per_s=off)
    return msgspec.structs.replace(arrivals, rate_per_s=rate_per_s)


def _content(content: Content | None, factor: float) -> Content | None:
    if isinstance(content, SharedPrefix):
        return msgspec.structs.replace(content, prefixes=_times(content.prefixes, factor))
    if isinstance(content, Documents):
        return msgspec.structs.replace(content, documents=_times(content.documents, factor))
    return content


def _times(count: int, factor: float) -> int:
    return max(1, round(count * factor))
