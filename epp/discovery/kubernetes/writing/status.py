"""Writes the condition ``Accepted`` of InferenceObjectives, slowly and only where it must.

What to write is decided in :mod:`~epp.discovery.kubernetes.writing.acceptance`.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from math import inf
from typing import Any, Final

from epp.discovery.kubernetes.api.backoff import Backoff
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import ApiError, ClusterError
from epp.discovery.kubernetes.objects import Condition, InferenceObjective
from epp.discovery.kubernetes.text import second_time
from epp.discovery.kubernetes.waiting import wait_at_most
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.writing.acceptance import (
    KnownPools,
    accepted_condition,
    decide,
    is_served,
)

__all__ = ["FIELD_MANAGER", "WRITE_RESULTS", "StatusWriter"]

logger = logging.getLogger(__name__)

FIELD_MANAGER: Final = "epp"

OK: Final = "ok"
GONE: Final = "gone"
CONFLICT: Final = "conflict"
INVALID: Final = "invalid"
REFUSED: Final = "refused"
FAILED: Final = "failed"

WRITE_RESULTS: Final = (OK, GONE, CONFLICT, INVALID, REFUSED, FAILED)
"""What may come of a write: done, there is no such object (404), another wrote at the same time
(409), the API server does not want it as it is, it is not allowed (403), no good answer."""

_MAX_OBJECTIVES: Final = 20_000
_OWNER_FIRST_S: Final = 2.0
"""How long others leave a generation to the EPP that serves its pool."""

_LONGEST_PAUSE_S: Final = 600.0
_REFUSED_PAUSE_S: Final = 60.0
_FOLLOWER_LOOKS_S: Final = 0.5
_TIMEOUT_S: Final = 10.0
_BATCH: Final = 50
_PASSING: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)

_Key = tuple[str, str, str]


class _Entry:
    """An objective, and what was done about its present generation."""

    __slots__ = ("generation", "is_own", "objective", "seen_at_s", "writes", "wrote_at_s")

    objective: InferenceObjective
    generation: int

    def __init__(self, objective: InferenceObjective, now: float) -> None:
        self.wrote_at_s = -inf
        self._begin(objective, now)

    def follow(self, objective: InferenceObjective, now: float) -> None:
        if objective.metadata.generation == self.generation:
            self.objective = objective
        else:
            self._begin(objective, now)

    @property
    def pause_s(self) -> float:
        """How long to write nothing more after a write: twice as long each time, so that a
        disagreement with another writer costs next to nothing, whoever that is. What the first
        write has done is also told by the watch before that is over."""
        return min(_LONGEST_PAUSE_S, 2.0 ** min(self.writes - 1, 30)) if self.writes else 0.0

    def _begin(self, objective: InferenceObjective, now: float) -> None:
        self.objective = objective
        self.generation = objective.metadata.generation
        self.seen_at_s = now
        self.is_own = False
        self.writes = 0


class StatusWriter:
    """Keeps the conditions of all objectives of a namespace as they should be.

    It writes while ``may_write`` says so, and then looks at all of them once; no more than
    ``max_writes_per_s``, one at a time. ``clock`` is monotonic, ``utc_now`` for the conditions.
    Objectives beyond the first 20,000 are passed over.

    :attr:`writes` counts writes by one of :data:`WRITE_RESULTS`.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        *,
        may_write: Callable[[], bool],
        rng: random.Random,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_writes_per_s: float = 10.0,
    ) -> None:
        self.writes: Counter[str] = Counter(dict.fromkeys(WRITE_RESULTS, 0))
        self._connection = connection
        self._may_write = may_write
        self._clock = clock
        self._utc_now = utc_now
        self._interval_s = 1.0 / max_writes_per_s
        self._backoff = Backoff(rng)
        self._pools: KnownPools | None = None
        self._entries: dict[_Key, _Entry] = {}
        self._queue: dict[_Key, None] = {}
        self._later: list[tuple[float, _Key]] = []
        self._due_s: dict[_Key, float] = {}
        self._poke = asyncio.Event()
        self._complaint = ""
        self._free_at_s = -inf
        self._pools_changed_at_s = -inf

    @property
    def waiting(self) -> int:
        """How many objectives are still to be looked at, or to be looked at again."""
        return len(self._queue) + len(self._due_s)

    def follow_pools(self, pools: KnownPools) -> None:
        """These are the pools now."""
        if pools != self._pools:
            self._pools = pools
            self._pools_changed_at_s = self._clock()
            self._queue.update(dict.fromkeys(self._entries))
            self._poke.set()

    def follow_objectives(self, group: str, changes: Changes[InferenceObjective]) -> None:
        """So the objectives of an API group have changed."""
        for objective in changes.gone:
            key = _key(group, objective)
            self._entries.pop(key, None)
            self._queue.pop(key, None)
            self._due_s.pop(key, None)
        for objective in changes.present:
            key = _key(group, objective)
            entry = self._entries.get(key)
            if entry is not None:
                entry.follow(objective, self._clock())
            elif len(self._entries) < _MAX_OBJECTIVES:
                self._entries[key] = _Entry(objective, self._clock())
            else:
                continue
            self._queue[key] = None
        self._poke.set()

    async def run(self) -> None:
        """Write for ever, or until cancelled."""
        was_allowed = False
        while True:
            is_allowed = self._may_write() and self._pools is not None
            if is_allowed and not was_allowed:
                self._queue.update(dict.fromkeys(self._entries))
            was_allowed = is_allowed
            if is_allowed:
                await self._work()
            else:
                self._forget()
            await self._wait(inf if is_allowed else _FOLLOWER_LOOKS_S)

    # What to look at, and when

    async def _work(self) -> None:
        """Look at all that is due, as long as it is allowed."""
        looked_at = 0
        while self._may_write() and (key := self._next()) is not None:
            if self._is_due(key):
                await asyncio.sleep(max(0.0, self._free_at_s - self._clock()))
                condition = self._wanted(key)  # again: it may have changed in the meantime
                if condition is not None and self._may_write():
                    await self._write(key, condition)
            looked_at += 1
            if looked_at % _BATCH == 0:
                await asyncio.sleep(0)  # a namespace may have thousands

    def _forget(self) -> None:
        self._queue.clear()
        self._later.clear()
        self._due_s.clear()

    def _next(self) -> _Key | None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            due_s, key = heapq.heappop(self._later)
            if self._due_s.get(key) == due_s:
                del self._due_s[key]
                self._queue[key] = None
        if not self._queue:
            return None
        key = next(iter(self._queue))
        del self._queue[key]
        return key

    def _put_off(self, key: _Key, until_s: float) -> None:
        if self._due_s.get(key, inf) > until_s:
            self._due_s[key] = until_s
            heapq.heappush(self._later, (until_s, key))

    async def _wait(self, longest_s: float) -> None:
        next_s = self._later[0][0] - self._clock() if self._later else inf
        # Without a deadline too, now and then: nobody tells when it is not allowed any more.
        delay_s = max(0.0, min(longest_s, next_s, 10 * _FOLLOWER_LOOKS_S))
        await wait_at_most(self._poke, delay_s)
        self._poke.clear()

    def _is_due(self, key: _Key) -> bool:
        """Whether something is to be written now; what is to be written later is put off."""
        condition = self._wanted(key)
        if condition is None:
            return False
        entry = self._entries[key]
        not_before_s = entry.wrote_at_s + entry.pause_s
        is_for_others = condition.status != "True" and not entry.is_own
        if is_for_others:
            not_before_s = max(
                not_before_s, max(entry.seen_at_s, self._pools_changed_at_s) + _OWNER_FIRST_S
            )
        if not_before_s <= self._clock():
            return True
        self._put_off(key, not_before_s)
        return False

    def _wanted(self, key: _Key) -> Condition | None:
        entry, pools = self._entries.get(key), self._pools
        if entry is None or pools is None:
            return None
        said = accepted_condition(entry.objective)
        if said is not None and said.status == "True" and is_served(entry.objective, pools):
            entry.is_own |= said.observed_generation == entry.generation
        now = second_time(self._utc_now())
        return decide(entry.objective, key[0], pools, is_own=entry.is_own, now=now)

    # Writing

    async def _write(self, key: _Key, condition: Condition) -> None:
        entry = self._entries[key]
        entry.writes += 1
        entry.wrote_at_s = self._clock()
        self._free_at_s = self._clock() + self._interval_s
        group, namespace, name = key
        path = f"/apis/{group}/v1alpha2/namespaces/{namespace}/inferenceobjectives/{name}/status"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                body = _body(key, condition)
                await self._connection.apply(path, body, field_manager=FIELD_MANAGER)
        except ApiError as error:
            result = self._take_error(key, entry, error)
        except (ClusterError, TimeoutError) as error:
            result = FAILED
            entry.writes -= 1
            self._try_again(key, str(error) or "no answer in time")
        else:
            result = OK
            entry.is_own = condition.status == "True"
            self._backoff.reset()
            self._complain("")
        self.writes[result] += 1

    def _take_error(self, key: _Key, entry: _Entry, error: ApiError) -> str:
        if error.status == HTTPStatus.NOT_FOUND:
            return GONE
        if error.status == HTTPStatus.CONFLICT:
            self._put_off(key, self._clock() + entry.pause_s)
            return CONFLICT
        if error.status == HTTPStatus.FORBIDDEN:
            self._queue[key] = None
            self._free_at_s = self._clock() + _REFUSED_PAUSE_S
            self._complain(f"may not patch inferenceobjectives/status of {key[0]}: {error}")
            return REFUSED
        is_passing = error.status >= 500 or error.status in _PASSING
        if is_passing:
            entry.writes -= 1
            self._try_again(key, str(error), error.retry_after_s)
            return FAILED
        self._complain(f"{key[1]}/{key[2]}: {error}")
        return INVALID

    def _try_again(self, key: _Key, problem: str, retry_after_s: float | None = None) -> None:
        """Nobody is to be written to for a while: it is the API server that has a problem."""
        self._queue[key] = None
        asked_s = min(retry_after_s or 0.0, _REFUSED_PAUSE_S)
        pause_s = max(self._backoff.next_s(), asked_s, self._interval_s)
        self._free_at_s = self._clock() + pause_s
        self._complain(problem)

    def _complain(self, problem: str) -> None:
        if problem and problem != self._complaint:
            logger.warning("the status of an objective could not be written: %s", problem)
        self._complaint = problem


def _key(group: str, objective: InferenceObjective) -> _Key:
    return (group, objective.metadata.namespace, objective.metadata.name)


def _body(key: _Key, condition: Condition) -> dict[str, Any]:
    group, namespace, name = key
    return {
        "apiVersion": f"{group}/v1alpha2",
        "kind": "InferenceObjective",
        "metadata": {"name": name, "namespace": namespace},
        "status": {"conditions": [condition]},
    }
