"""The detector ``concurrency``: a fixed limit."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from epp.core.gate import Ending
from epp.core.pool import EngineLoad, Pool

__all__ = ["UNLIMITED_REQUESTS", "Concurrency", "ConcurrencyOptions"]

UNLIMITED_REQUESTS = 1_000_000
"""The limit of an endpoint whose requests are not limited."""


class ConcurrencyOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests, and how many tokens of prompts, an endpoint has in flight at most.

    None is no limit: with ``max_tokens`` alone only tokens count, with both whichever is reached
    first. Where endpoints differ, those whose label ``label`` has a value that is in
    ``max_requests_by_label`` take so many requests instead.
    """

    max_requests: int | None = 100
    max_tokens: int | None = None
    label: str = ""
    max_requests_by_label: Mapping[str, int] = MappingProxyType({})


class Concurrency:
    """Every endpoint takes so many requests, and so many tokens, at a time."""

    def __init__(self, options: ConcurrencyOptions, pool: Pool) -> None:
        self._options = options
        self._pool = pool

    def joined(self, slot: int) -> None:
        """Set its limit, once for all."""
        options = self._options
        value = self._pool.endpoint(slot).labels.get(options.label, "")
        requests = options.max_requests_by_label.get(value, options.max_requests)
        self._pool.set_limit(
            slot,
            UNLIMITED_REQUESTS if requests is None else requests,
            "inflight",
            math.inf if options.max_tokens is None else options.max_tokens,
        )

    def changed(self, slot: int) -> None:
        """Set its limit by its labels of now."""
        self.joined(slot)

    def dispatched(self, slot: int, now: float) -> None:
        """Nothing changes."""

    def ended(self, slot: int, ending: Ending, slot_s: float, now: float) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """Nothing is to be ended."""

    def scraped(self, slot: int, load: EngineLoad, now: float) -> None:
        """Nothing changes."""
