"""When a request goes: bands, flows, fairness, limits, deadlines, saturation."""

from epp.core.flow.band import Band
from epp.core.flow.controller import FlowController
from epp.core.flow.options import (
    BandOptions,
    CostOptions,
    FlowLimits,
    FlowOptions,
    UsageLimitOptions,
)
from epp.core.flow.ticket import Ticket
from epp.core.flow.waiter import Charge, Waiter

__all__ = [
    "Band",
    "BandOptions",
    "Charge",
    "CostOptions",
    "FlowController",
    "FlowLimits",
    "FlowOptions",
    "Ticket",
    "UsageLimitOptions",
    "Waiter",
]
