"""Takes down what happens in a simulation, in columns."""

import math
from array import array
from collections.abc import Callable

import numpy as np

from epp.core.pool import Pool
from epp.core.request import Outcome
from epp.simulation.result import OUTCOMES, SERVED, UNFINISHED, Floats, RequestTable, Timeline

__all__ = ["PoolSamples", "RequestLog", "service_curve"]

_SERVED = OUTCOMES.index(SERVED)
_UNFINISHED = OUTCOMES.index(UNFINISHED)
_OUTCOME_INDEX = {
    outcome: OUTCOMES.index(outcome.value) for outcome in Outcome if outcome.value in OUTCOMES
}


class RequestLog:
    """One row per request. Times in seconds."""

    def __init__(self) -> None:
        self._tenant = array("i")
        self._priority = array("i")
        self._prompt_tokens = array("i")
        self.output_tokens = array("i")
        self._endpoint = array("i")
        self._cached_tokens = array("i")
        self._tries = array("i")
        self._outcome = array("i")
        self._arrived_s = array("d")
        self._entered_s = array("d")
        self._dispatched_s = array("d")
        self._first_token_s = array("d")
        self._ended_s = array("d")

    def arrived(
        self, tenant: int, priority: int, prompt_tokens: int, output_tokens: int, now: float
    ) -> int:
        """Begin a row; return its number."""
        row = len(self._tenant)
        self._tenant.append(tenant)
        self._priority.append(priority)
        self._prompt_tokens.append(prompt_tokens)
        self.output_tokens.append(output_tokens)
        self._endpoint.append(-1)
        self._cached_tokens.append(0)
        self._tries.append(0)
        self._outcome.append(_UNFINISHED)
        self._arrived_s.append(now)
        for column in (self._entered_s, self._dispatched_s, self._first_token_s, self._ended_s):
            column.append(math.nan)
        return row

    def entered(self, row: int, now: float) -> None:
        """Another try of the request has come to the gate."""
        self._tries[row] += 1
        self._entered_s[row] = now

    def dispatched(self, row: int, endpoint: int, now: float) -> None:
        """The request has gone to the endpoint with this number."""
        self._dispatched_s[row] = now
        self._endpoint[row] = endpoint

    def began(self, row: int, cached_tokens: int, now: float) -> None:
        """Its first token has come out; so many of its prompt were in the engine's cache."""
        self._first_token_s[row] = now
        self._cached_tokens[row] = cached_tokens

    def served(self, row: int, now: float) -> None:
        """Its response is complete."""
        self._outcome[row] = _SERVED
        self._ended_s[row] = now

    def refused(self, row: int, outcome: Outcome, now: float) -> None:
        """It was turned away, and its client does not come back."""
        self._outcome[row] = _OUTCOME_INDEX[outcome]
        self._ended_s[row] = now

    def since_dispatch_s(self, row: int, now: float) -> tuple[float, float]:
        """Return how long ago the request was dispatched, and how long after that its first token
        came."""
        dispatched_s = self._dispatched_s[row]
        return now - dispatched_s, self._first_token_s[row] - dispatched_s

    def table(self) -> RequestTable:
        """Return all rows."""
        return RequestTable(
            tenant=np.array(self._tenant, dtype=np.int32),
            priority=np.array(self._priority, dtype=np.int32),
            arrived_s=np.array(self._arrived_s),
            entered_s=np.array(self._entered_s),
            dispatched_s=np.array(self._dispatched_s),
            first_token_s=np.array(self._first_token_s),
            ended_s=np.array(self._ended_s),
            prompt_tokens=np.array(self._prompt_tokens, dtype=np.int32),
            output_tokens=np.array(self.output_tokens, dtype=np.int32),
            outcome=np.array(self._outcome, dtype=np.int32),
            tries=np.array(self._tries, dtype=np.int32),
            endpoint=np.array(self._endpoint, dtype=np.int32),
            cached_tokens=np.array(self._cached_tokens, dtype=np.int32),
        )


class PoolSamples:
    """The pool and its queue, sampled.

    ``queued`` returns the requests that wait by priority, ``engines`` how many wait and run in the
    engines.
    """

    def __init__(
        self,
        pool: Pool,
        queued: Callable[[], dict[int, int]],
        engines: Callable[[], tuple[int, int]],
    ) -> None:
        self._pool = pool
        self._queued = queued
        self._engines = engines
        self._rows: list[tuple[float, int, int, int, int]] = []
        self._queues: dict[int, array[float]] = {}

    def take(self, now: float) -> None:
        """Take a sample."""
        pool = self._pool
        limit = int(pool.limit[pool.active].sum())
        self._rows.append((now, pool.total_in_flight, *self._engines(), limit))
        for priority, requests in self._queued().items():
            column = self._queues.setdefault(priority, array("d"))
            column.extend([0.0] * (len(self._rows) - 1 - len(column)))
            column.append(requests)

    def timeline(self, served_cost: Callable[[Floats], dict[str, Floats]]) -> Timeline:
        """Return all samples, with the service that each tenant had by their times."""
        time_s, in_flight, waiting, running, limit = (
            np.array(self._rows, dtype=np.float64).reshape(-1, 5).T
        )
        return Timeline(
            time_s=time_s,
            queued={each: np.array(self._queues[each]) for each in sorted(self._queues)},
            in_flight=in_flight,
            engine_waiting=waiting,
            engine_running=running,
            limit=limit,
            served_cost=served_cost(time_s),
        )


def service_curve(begin_s: Floats, end_s: Floats, cost: Floats, grid_s: Floats) -> Floats:
    """Return, for each time of the sorted grid, how much of the costs was served by then.

    Each cost is served at an even pace from its begin to its end. With the rate ``r = cost / (end -
    begin)``, those that run at ``t`` have had ``r·t - r·begin``, so sums of ``r`` and ``r·begin``
    over what has begun, less those over what has ended, give all times at once.
    """
    points = len(grid_s)
    rate = cost / np.maximum(end_s - begin_s, 1e-9)
    first = np.searchsorted(grid_s, begin_s)  # the first point at or after it
    past = np.searchsorted(grid_s, end_s)

    def running(values: Floats) -> Floats:
        begun = np.bincount(first, weights=values, minlength=points + 1)
        ended = np.bincount(past, weights=values, minlength=points + 1)
        return np.cumsum(begun - ended)[:points]

    done = np.cumsum(np.bincount(past, weights=cost, minlength=points + 1))[:points]
    curve: Floats = done + running(rate) * grid_s - running(rate * begin_s)
    return curve
