"""When a request goes: priority bands, queues, limits, deadlines."""

from epp.core.flow.controller import FlowController, Waiter
from epp.core.flow.limits import FlowLimits
from epp.core.flow.queue import Ticket

__all__ = ["FlowController", "FlowLimits", "Ticket", "Waiter"]
