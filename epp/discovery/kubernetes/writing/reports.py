"""What of the state of the cluster becomes an Event on a pool.

It is looked at once a second: soon enough for people, and what has come and gone by then is no
news. Only what has changed is looked at.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from epp.discovery.kubernetes.objects import InferenceObjective
from epp.discovery.kubernetes.view import KnownPool
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.writing.acceptance import KnownPools, complaint
from epp.discovery.kubernetes.writing.events import (
    CONFIGURATION_REJECTED,
    OBJECTIVE_REJECTED,
    POOL_REJECTED,
    EventSubject,
    EventWriter,
)

__all__ = ["PoolReports"]

_INTERVAL_S: Final = 1.0
_BATCH: Final = 50
_MAX_OBJECTIVES: Final = 20_000

_Key = tuple[str, str]


class PoolReports:
    """Tells what happens to the pools
    (to an :class:`~epp.discovery.kubernetes.writing.events.EventWriter`).

    ``pools`` gives all pools of the namespace as they are now, ``api_version`` and ``kind`` are
    theirs. Whoever follows the cluster calls :meth:`follow_pools` and :meth:`follow_objectives`.
    Objectives beyond the first 20,000 are passed over.
    """

    def __init__(
        self,
        events: EventWriter,
        *,
        pools: Callable[[], Iterable[KnownPool]],
        api_version: str,
        kind: str = "InferencePool",
    ) -> None:
        self._events = events
        self._pools = pools
        self._api_version = api_version
        self._kind = kind
        self._known: KnownPools | None = None
        self._keys: tuple[str, ...] = ()
        self._bad_pools: dict[str, str] = {}
        self._objectives: dict[_Key, InferenceObjective] = {}
        self._changed: dict[_Key, None] = {}
        self._complaints: dict[_Key, str] = {}

    def follow_pools(self, pools: KnownPools) -> None:
        """These are the pools now, as objectives name them."""
        if pools != self._known:
            self._known = pools
            self._changed.update(dict.fromkeys(self._objectives))

    def follow_objectives(self, group: str, changes: Changes[InferenceObjective]) -> None:
        """So the objectives of an API group have changed."""
        for gone in changes.gone:
            key = (group, gone.metadata.name)
            self._objectives.pop(key, None)
            self._changed.pop(key, None)
            self._complaints.pop(key, None)
        for objective in changes.present:
            key = (group, objective.metadata.name)
            if key in self._objectives or len(self._objectives) < _MAX_OBJECTIVES:
                self._objectives[key] = objective
                self._changed[key] = None

    def configuration_rejected(self, problem: str) -> None:
        """A new configuration is no good, and the last one stays."""
        for key in self._keys:
            self._events.tell(key, CONFIGURATION_REJECTED, problem)

    async def run(self) -> None:
        """Look, for ever or until cancelled."""
        while True:
            self._look_at_pools()
            await self._look_at_objectives()
            await asyncio.sleep(_INTERVAL_S)

    def _look_at_pools(self) -> None:
        pools = {
            f"{pool.found.metadata.namespace}/{pool.found.metadata.name}": pool
            for pool in self._pools()
            if pool.is_wanted
        }
        self._keys = tuple(pools)
        self._events.follow_pools(
            EventSubject.of(pool.found, self._api_version, self._kind) for pool in pools.values()
        )
        for key, pool in pools.items():
            if pool.endpoints is not None:
                self._events.follow_endpoints(key, pool.endpoints)
            if pool.problem and self._bad_pools.get(key) != pool.problem:
                self._events.tell(key, POOL_REJECTED, pool.problem)
        self._bad_pools = {key: pool.problem for key, pool in pools.items()}

    async def _look_at_objectives(self) -> None:
        looked_at = 0
        while self._changed and self._known is not None:
            key = next(iter(self._changed))
            del self._changed[key]
            self._look_at_objective(key, self._known)
            looked_at += 1
            if looked_at % _BATCH == 0:
                await asyncio.sleep(0)  # a namespace may have thousands

    def _look_at_objective(self, key: _Key, known: KnownPools) -> None:
        told = complaint(self._objectives[key], key[0], known)
        if told is None:
            self._complaints.pop(key, None)
            return
        pool, note = told
        # Not again for each change of its status or labels.
        if self._complaints.get(key) != note:
            self._complaints[key] = note
            self._events.tell(pool, OBJECTIVE_REJECTED, note)
