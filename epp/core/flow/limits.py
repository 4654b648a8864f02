"""The bounds of the queue and the budgets of a wait."""

import msgspec

__all__ = ["FlowLimits"]


class FlowLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait, and for how long.

    ``max_requests`` and ``max_bytes`` bound the whole queue, ``band_max_requests`` and
    ``band_max_bytes`` each priority. ``wait_limit_s`` is the budget of a wait while the pool has
    endpoints, ``no_endpoint_wait_limit_s`` while it has none; None waits without end.
    ``reject_hopeless`` turns a request away on arrival when, by the measured drain rate, its budget
    would be over before its turn came.
    """

    max_requests: int = 10_000
    max_bytes: int = 1 << 30
    band_max_requests: int = 5_000
    band_max_bytes: int = 1_000_000_000
    wait_limit_s: float | None = 60.0
    no_endpoint_wait_limit_s: float | None = 60.0
    reject_hopeless: bool = True
