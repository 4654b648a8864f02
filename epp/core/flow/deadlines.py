"""When waits end at the latest."""

import math
from collections.abc import Callable, Iterable

from epp.core.flow.band import Band
from epp.core.flow.options import FlowOptions
from epp.core.flow.ticket import Ticket
from epp.core.timers import Timers

__all__ = ["Deadlines"]


class Deadlines:
    """The ends of the budgets of all that wait: ``expire(ticket, now)`` is called at each.

    Other budgets hold while the pool is empty, which is to be told (``pool_is_empty``); they begin
    anew when that changes.
    """

    def __init__(
        self,
        options: FlowOptions,
        timers: Timers,
        expire: Callable[[Ticket, float], None],
        *,
        pool_is_empty: bool,
    ) -> None:
        self.options = options
        self.pool_is_empty = pool_is_empty
        self._timers = timers
        self._expire = expire
        self._regime_since_s = -math.inf

    def begin_anew(self, now: float) -> None:
        """Have all budgets begin now at the earliest."""
        self._regime_since_s = now

    def of(self, ticket: Ticket) -> float | None:
        """Return the end of a ticket's budget, None where it has none."""
        request = ticket.request
        budget_s = self.options.budget_s(
            request.flow.priority, request.wait_limit_s, pool_is_empty=self.pool_is_empty
        )
        return None if budget_s is None else max(ticket.entered_s, self._regime_since_s) + budget_s

    def set(self, ticket: Ticket) -> None:
        """Have a ticket expire at the end of its budget, as that is now."""
        deadline_s = self.of(ticket)
        if deadline_s == ticket.deadline_s:
            return
        self.cancel(ticket)
        if deadline_s is not None:
            ticket.timer = self._timers.schedule(deadline_s, lambda now: self._expire(ticket, now))

    def set_all(self, bands: Iterable[Band]) -> None:
        """Have all that waits in these bands do so, and stand where it belongs by that."""
        for band in bands:
            for ticket in band:
                self.set(ticket)
            band.deadlines_changed()

    def cancel(self, ticket: Ticket) -> None:
        """Have a ticket not expire any more."""
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
