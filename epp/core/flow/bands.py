"""All bands of a pool, and whose turn it is."""

from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Final

from epp.core.flow.band import Band
from epp.core.flow.flows import LaneKey
from epp.core.flow.options import FlowOptions
from epp.core.flow.ticket import Ticket
from epp.core.request import Request

__all__ = ["MAX_WAIT", "MIN_SHARE", "Bands"]

MIN_SHARE: Final = "min-share"
MAX_WAIT: Final = "max-wait"
_ONE: Final = 1.0 - 1e-9
"""A whole dispatch, as what fractions may add up to."""


class Bands:
    """The bands that there are, made as they are asked for."""

    def __init__(self, options: FlowOptions) -> None:
        self._options = options
        self._by_priority: dict[int, Band] = {}
        self.descending: list[Band] = []
        self._favoured: list[Band] = []

    def __getitem__(self, priority: int) -> Band:
        """Return the band of a priority, made if it is new."""
        band = self._by_priority.get(priority)
        if band is None:
            options = self._options
            band = self._by_priority[priority] = Band(
                priority,
                options.band_of(priority),
                weights=options.weights,
                max_flows=options.max_flows,
                shared_flows=options.shared_flows,
            )
            self._order()
        return band

    def keep(self, wanted: Collection[int]) -> None:
        """Have bands of these priorities, and forget those of others in which nothing waits or
        runs: in the course of time, objectives may have any number of priorities."""
        for priority in wanted:
            self[priority]
        bands = self._by_priority.values()
        kept = [each for each in bands if each.priority in wanted or each.requests or each.running]
        if len(kept) < len(bands):
            self._by_priority = {band.priority: band for band in kept}
            self._order()

    def reconfigure(self, options: FlowOptions, lane_of: Callable[[Request], LaneKey]) -> None:
        """Go by other options, and other lanes, from now on, also in the bands that there are."""
        self._options = options
        for band in self.descending:
            band.reconfigure(
                options.band_of(band.priority),
                weights=options.weights,
                max_flows=options.max_flows,
                shared_flows=options.shared_flows,
            )
        self._order()
        self.sort_into_lanes(lane_of)

    def sort_into_lanes(self, lane_of: Callable[[Request], LaneKey]) -> None:
        """Have all that waits stand in the lanes that are theirs by now."""
        for band in self.descending:
            band.sort_into_lanes(lane_of)

    def backlog(self, has_endpoints: bool, now: float) -> None:
        """Tell the drain rate of each band whether its requests wait for endpoints that are
        there."""
        for band in self.descending:
            band.drain_rate.backlog(has_endpoints and band.requests > 0, now)

    def tickets(self) -> Iterator[Ticket]:
        """Yield all that wait, of higher bands first."""
        return chain.from_iterable(self.descending)

    def cost(self, *, from_priority: int | None = None) -> int:
        """Return what all that waits is expected to cost, or what has at least this priority."""
        return sum(
            band.cost
            for band in self.descending
            if from_priority is None or band.priority >= from_priority
        )

    def in_turn(self, now: float) -> Iterator[tuple[Band, str | None]]:
        """Yield the bands with waiting requests, the next one first, each with the rule that lets
        it go out of turn, None where it is its turn."""
        for band in self._favoured:
            max_wait_s = band.options.max_wait_s
            if max_wait_s is None or not band.requests:
                continue
            if now - band.oldest().entered_s >= max_wait_s:
                yield band, MAX_WAIT
        for band in self._favoured:
            if band.requests and band.share_credit + band.options.min_share >= _ONE:
                yield band, MIN_SHARE
        for band in self.descending:
            if band.requests:
                yield band, None

    def dispatched(self, dispatched: Band) -> None:
        """Count a dispatch towards the shares of which bands are sure: each that waits earns its
        share of it, and the one that it was of spends a whole one."""
        for band in self._favoured:
            if band is dispatched:
                band.share_credit = max(0.0, band.share_credit + band.options.min_share - 1.0)
            elif band.requests:
                band.share_credit = min(1.0, band.share_credit + band.options.min_share)

    def above(self, band: Band) -> Iterator[Band]:
        """Yield the higher bands."""
        return (each for each in self.descending if each.priority > band.priority)

    def youngest_below(self, priority: int) -> Iterator[Ticket]:
        """Yield the waiting tickets of lower bands, the youngest of the lowest first."""
        lower = (band for band in reversed(self.descending) if band.priority < priority)
        return chain.from_iterable(band.youngest() for band in lower)

    def _order(self) -> None:
        self.descending = sorted(self._by_priority.values(), key=_descending)
        self._favoured = [each for each in self.descending if _is_favoured(each)]


def _descending(band: Band) -> int:
    return -band.priority


def _is_favoured(band: Band) -> bool:
    return bool(band.options.min_share) or band.options.max_wait_s is not None
