"""How long who follows a collection of the API server waits for what."""

import msgspec

__all__ = ["Pace"]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long a reflector waits for what, seconds.

    A watch is asked to end after a time drawn from ``watch_s``. Bookmarks come about once a minute,
    but not of a kind of which the API server has seen no change since its start; so after
    ``idle_limit_s`` without a byte it is asked whether it is there. A watch that ends before
    ``shortest_watch_s`` counts as a failure. ``absent_s`` (for a kind that is not installed) and
    ``doubtful_s`` (for one that was) are pauses, give or take a half. ``answered_s`` is the longest
    pause after the first answer of an API server that was away, whatever that says.
    """

    first_pause_s: float = 0.8
    longest_pause_s: float = 30.0
    watch_s: tuple[float, float] = (240.0, 480.0)
    idle_limit_s: float = 90.0
    shortest_watch_s: float = 1.0
    relist_spread_s: float = 5.0
    absent_s: float = 60.0
    doubtful_s: float = 4.0
    answered_s: float = 4.0
    longest_retry_after_s: float = 120.0
