"""Who may wait, and for how long."""

from epp.core.flow.band import Band
from epp.core.flow.bands import Bands
from epp.core.flow.options import FlowOptions
from epp.core.flow.ticket import Ticket

__all__ = ["WaitLimits"]


class WaitLimits:
    """The bounds of the queue, applied to what waits."""

    def __init__(self, options: FlowOptions, bands: Bands) -> None:
        self._options = options
        self._limits = options.limits
        self._bands = bands

    def is_hopeless(self, ticket: Ticket, band: Band, cost_per_s: float | None) -> bool:
        """Tell whether a ticket that is in the queue by now will expire before its turn comes, if
        the queue drains at this rate; None where the rate is not known."""
        request = ticket.request
        if not self._limits.reject_hopeless or cost_per_s is None:
            return False
        if request.subset is not None:
            return False  # the drain rate of the pool says nothing about some of its endpoints
        budget_s = self._options.budget_s(
            request.flow.priority, request.wait_limit_s, pool_is_empty=False
        )
        if budget_s is None:
            return False
        higher = self._bands.cost(from_priority=band.priority + 1)
        ahead = higher + band.cost_ahead(ticket)
        return ahead > cost_per_s * budget_s

    def who_gives_way(
        self, band: Band, waiting_requests: int, waiting_bytes: int
    ) -> list[Ticket] | None:
        """Return who must leave so that the queue, a newcomer of ``band`` included, holds its
        limits; None if it cannot.

        The youngest of the lowest band go first, and only those of bands strictly below.
        """
        limits, own = self._limits, band.options
        if band.requests > own.max_requests or band.bytes > own.max_bytes:
            return None
        requests_over = waiting_requests - limits.max_requests
        bytes_over = waiting_bytes - limits.max_bytes
        victims: list[Ticket] = []
        for victim in self._bands.youngest_below(band.priority):
            if requests_over <= 0 and bytes_over <= 0:
                break
            if requests_over <= 0 and not victim.request.body_bytes:
                continue
            victims.append(victim)
            requests_over -= 1
            bytes_over -= victim.request.body_bytes
        return victims if requests_over <= 0 and bytes_over <= 0 else None
