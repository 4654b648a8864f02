"""What a simulation has seen: one row per request, and the pool sampled at a fixed step.

Whoever evaluates or draws a simulation needs this module and nothing else of it.
"""

from typing import Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["OUTCOMES", "SERVED", "UNFINISHED", "RequestTable", "SimulationResult", "Timeline"]

Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int32]

SERVED: Final = "served"
UNFINISHED: Final = "unfinished"

OUTCOMES: Final = (
    SERVED,
    "rejected-capacity",
    "rejected-wait",
    "rejected-no-endpoints",
    "displaced",
    "expired",
    "expired-no-endpoints",
    UNFINISHED,
)
"""How a request can end: its response was complete, or its last try was refused, or it waited or
ran when the simulation ended."""


class RequestTable(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Columns of equal length, one row per request in order of arrival.

    A client that obeys Retry-After tries the same request again: that is one row, with the number
    of its ``tries``. ``tenant`` is an index into the result's ``tenants``, ``outcome`` one into its
    ``outcomes``. Times are in seconds since the simulation began, NaN for what has not happened:
    ``arrived_s`` of the first try, ``entered_s`` of the last one (the wait in the queue is
    ``dispatched_s - entered_s``), ``dispatched_s`` and ``first_token_s`` of the one that was
    dispatched, ``ended_s`` of the response or the last refusal. ``endpoint`` is the number of the
    endpoint that it went to, below 0 where it went to none, ``cached_tokens`` how many tokens of
    its prompt were found in the cache there.
    """

    tenant: Integers
    priority: Integers
    arrived_s: Floats
    entered_s: Floats
    dispatched_s: Floats
    first_token_s: Floats
    ended_s: Floats
    prompt_tokens: Integers
    output_tokens: Integers
    outcome: Integers
    tries: Integers
    endpoint: Integers
    cached_tokens: Integers

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.tenant)


class Timeline(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The state of the pool at the times ``time_s``, in seconds, all columns of their length.

    ``queued`` has the requests in the flow control's queue by priority, ``in_flight`` those that
    hold capacity, ``limit`` how many may. ``engine_waiting`` and ``engine_running`` are what the
    engines really have, in all, reported or not. ``served_cost`` is what each tenant was served by
    then, with the part of those that ran at the time (not of those that had no end within the
    simulation): tokens by weight or milliseconds of a slot, as the flow control counts them.
    """

    time_s: Floats
    queued: dict[int, Floats]
    in_flight: Floats
    engine_waiting: Floats
    engine_running: Floats
    limit: Floats
    served_cost: dict[str, Floats]


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One run of one scenario under one policy with one seed.

    ``policy`` is the label of the variant. ``duration_s`` is how long requests arrived, in virtual
    seconds; those in the system by then run to their end within the scenario's drain time.
    ``measure_from_s`` ends the warm-up that figures leave out, ``end_s`` is when the last request
    was over or the simulation was.
    """

    scenario: str
    policy: str
    seed: int
    duration_s: float
    measure_from_s: float
    end_s: float
    tenants: list[str]
    outcomes: list[str]
    requests: RequestTable
    timeline: Timeline
