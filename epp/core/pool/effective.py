"""The load of the engines as it should be by now.

What an engine told is as old as its last scrape; what was dispatched to it and what has ended since
is known exactly. So ``effective = told + dispatched since - ended since``, and never below 0: the
newcomers are taken to wait as long as the engine's next page does not say otherwise, which is what
keeps a burst between two scrapes from going to one and the same endpoint.

An endpoint of which nothing is known, or nothing new for ``stale_after_s`` seconds, is neither full
nor empty: it is taken to run as many requests as the others do on average, as far as it has so many
in flight, and the rest of those to wait; its KV cache is taken to be as full as theirs.
"""

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from epp.core.pool.pool import Column, Mask, Pool

__all__ = ["EffectiveLoad", "effective_load"]


class EffectiveLoad(msgspec.Struct, frozen=True):
    """Columns of shape ``(slots,)``: requests that wait and that run in the engine, and the share
    of its KV cache in use, 0 to 1. Nothing in them is NaN where an endpoint is in the slot."""

    waiting: "Column"
    running: "Column"
    kv_ratio: "Column"


def effective_load(pool: "Pool", now: float) -> EffectiveLoad:
    """Return the load of all slots of a pool at ``now``, monotonic seconds."""
    since = pool.in_flight - pool.in_flight_then
    waiting = np.maximum(pool.waiting + since, 0.0)
    running = np.maximum(pool.running + since, 0.0)
    kv_ratio = pool.kv_ratio
    is_fresh = now - pool.scraped_s <= pool.stale_after_s  # False for NaN
    is_known = is_fresh & ~np.isnan(waiting + running + kv_ratio)
    if not (is_known | ~pool.active).all():
        in_flight = pool.in_flight.astype(np.float64)
        running = _completed(running, is_fresh, pool.active, most=in_flight)
        queued = np.maximum(in_flight - running, 0.0)
        waiting = np.where(is_fresh & ~np.isnan(waiting), waiting, queued)
        kv_ratio = _completed(kv_ratio, is_fresh, pool.active)
    return EffectiveLoad(waiting, running, kv_ratio)


def _completed(
    column: "Column", is_fresh: "Mask", active: "Mask", most: "Column | None" = None
) -> "Column":
    """Put the mean of what is known where nothing is, and not more than ``most``."""
    is_known = is_fresh & ~np.isnan(column)
    known = column[is_known & active]
    mean = float(known.mean()) if len(known) else 0.0
    return np.where(is_known, column, mean if most is None else np.minimum(most, mean))
