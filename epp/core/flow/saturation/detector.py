"""What a saturation detector is.

A detector never says yes or no to a request. It sets each endpoint's limit on requests in flight
(:meth:`epp.core.pool.Pool.set_limit`), whenever it learns something; the pool knows at any moment
what is in flight, with no delay, so "below its limit" is all that there is to ask. What an engine
reports is turned into a limit in the same way: what it could take more at the time of the report,
above what was in flight then, so dispatches and ends since the report are accounted for.
"""

from typing import Protocol

from epp.core.gate import Ending
from epp.core.pool import EngineLoad

__all__ = ["SaturationDetector"]


class SaturationDetector(Protocol):
    """Sets the limits of the endpoints of one pool; told of all that happens at them.

    Slots are those of the pool. After each call the dispatch loop runs, so a limit that has grown
    is used at once. From a timer, where it does not, no limit may grow.
    """

    def joined(self, slot: int) -> None:
        """An endpoint has joined the pool, or has come back: nothing is known of it."""

    def changed(self, slot: int) -> None:
        """An endpoint that is in the pool has other labels, or another name, than before."""

    def dispatched(self, slot: int, now: float) -> None:
        """A request has gone to the endpoint; it is counted in what is in flight."""

    def ended(self, slot: int, ending: Ending, slot_s: float, now: float) -> None:
        """A request is over at the endpoint, which it has kept busy for ``slot_s`` seconds; it is
        not in flight any more. The endpoint may have left the pool."""

    def close(self) -> None:
        """Another detector takes over: set no limit any more."""

    def scraped(self, slot: int, load: EngineLoad, now: float) -> None:
        """The engine has told its load, which was taken just now."""
