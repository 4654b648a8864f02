"""When waits end at the latest."""

import math
from collections.abc import Callable

from epp.core.flow.options import FlowOptions
from epp.core.flow.ticket import Ticket
from epp.core.timers import Timers

__all__ = ["Deadlines"]


class Deadlines:
    """The ends of the budgets of all that wait: ``expire(ticket, now)`` is called at each.

    Other budgets hold while the pool is empty; they begin anew when that changes.
    """

    def __init__(
        self, options: FlowOptions, timers: Timers, expire: Callable[[Ticket, float], None]
    ) -> None:
        self.options = options
        self._timers = timers
        self._expire = expire
        self._regime_since_s = -math.inf

    def begin_anew(self, now: float) -> None:
        """Have all budgets begin now at the earliest."""
        self._regime_since_s = now

    def of(self, ticket: Ticket, *, pool_is_empty: bool) -> float | None:
        """Return the end of a ticket's budget, None where it has none."""
        request = ticket.request
        budget_s = self.options.budget_s(
            request.flow.priority, request.wait_limit_s, pool_is_empty=pool_is_empty
        )
        return None if budget_s is None else max(ticket.entered_s, self._regime_since_s) + budget_s

    def set(self, ticket: Ticket, *, pool_is_empty: bool) -> None:
        """Have a ticket expire at the end of its budget, as that is now."""
        self.cancel(ticket)
        deadline_s = self.of(ticket, pool_is_empty=pool_is_empty)
        if deadline_s is not None:
            ticket.timer = self._timers.schedule(deadline_s, lambda now: self._expire(ticket, now))

    def cancel(self, ticket: Ticket) -> None:
        """Have a ticket not expire any more."""
        if ticket.timer is not None:
            ticket.timer.cancel()
            ticket.timer = None
