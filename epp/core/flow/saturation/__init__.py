"""How many requests each endpoint can take: the saturation detectors, by name."""

from typing import TypeAlias

from epp.core.flow.saturation.adaptive import Adaptive, AdaptiveOptions
from epp.core.flow.saturation.concurrency import (
    UNLIMITED_REQUESTS,
    Concurrency,
    ConcurrencyOptions,
)
from epp.core.flow.saturation.detector import SaturationDetector
from epp.core.flow.saturation.utilization import Utilization, UtilizationOptions
from epp.core.pool import Pool
from epp.core.timers import Timers

__all__ = [
    "Adaptive",
    "AdaptiveOptions",
    "Concurrency",
    "ConcurrencyOptions",
    "SaturationDetector",
    "SaturationOptions",
    "Utilization",
    "UtilizationOptions",
    "known_limit",
    "make_detector",
]

SaturationOptions: TypeAlias = ConcurrencyOptions | UtilizationOptions | AdaptiveOptions
"""What a detector can be told; its type tells which one it is."""


def make_detector(options: SaturationOptions, pool: Pool, timers: Timers) -> SaturationDetector:
    """Make the detector that has these options."""
    if isinstance(options, ConcurrencyOptions):
        return Concurrency(options, pool)
    if isinstance(options, UtilizationOptions):
        return Utilization(options, pool, timers)
    return Adaptive(options, pool, timers)


def known_limit(options: SaturationOptions) -> int:
    """Return a limit in requests that does for an endpoint of which nothing is known."""
    if isinstance(options, ConcurrencyOptions):
        return UNLIMITED_REQUESTS if options.max_requests is None else options.max_requests
    return options.unknown_requests
