"""Writes what exports want: imports in all members, and the condition ``Exported`` of the pools.

What to write is decided in :mod:`~epp.discovery.kubernetes.imports.exports`.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from math import inf
from typing import Any, Final

import msgspec

from epp.discovery.declared import EXPERIMENTAL_GROUP, POOL_GROUP
from epp.discovery.kubernetes.api.backoff import Backoff
from epp.discovery.kubernetes.api.errors import ApiError, ClusterError
from epp.discovery.kubernetes.imports.exports import (
    CONTROLLER,
    CREATED_BY,
    MemberState,
    Step,
    is_own,
    own_entry,
    own_parent,
    parents_of,
    plan,
)
from epp.discovery.kubernetes.imports.member import MemberCluster
from epp.discovery.kubernetes.imports.objects import IMPORT_API_VERSION, IMPORT_KIND
from epp.discovery.kubernetes.objects import Condition
from epp.discovery.kubernetes.text import second_time
from epp.discovery.kubernetes.waiting import wait_at_most
from epp.discovery.kubernetes.watch.mirror import Key
from epp.discovery.kubernetes.writing.status import (
    CONFLICT,
    FAILED,
    FIELD_MANAGER,
    GONE,
    INVALID,
    OK,
    REFUSED,
    WRITE_RESULTS,
)

__all__ = ["ExportWriter"]

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
_COALESCE_S: Final = 0.1
_PLANNING_SHARE: Final = 0.1
"""How much of the time may go into working out what is to be done, where there is very much."""

_TIMEOUT_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.125
_LONGEST_PAUSE_S: Final = 600.0
_REFUSED_PAUSE_S: Final = 60.0
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_PASSING: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)


class ExportWriter:
    """Acts as the exporting controller of the ``members``, while ``may_write`` says so.

    Each member is written to by itself, no more than ``max_writes_per_s``, one at a time; what was
    written and is wanted again waits twice as long each time, so that a disagreement with another
    writer costs next to nothing. That members do not have an import is said when that has been so
    for ``patience_s``. ``clock`` is monotonic, ``utc_now`` for conditions.

    :attr:`writes` counts writes by one of
    :data:`~epp.discovery.kubernetes.writing.status.WRITE_RESULTS`.
    """

    def __init__(
        self,
        members: Mapping[str, MemberCluster],
        namespace: str,
        *,
        may_write: Callable[[], bool],
        rng: random.Random,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        max_writes_per_s: float = 10.0,
        patience_s: float = 2.0,
    ) -> None:
        self.writes: Counter[str] = Counter(dict.fromkeys(WRITE_RESULTS, 0))
        self._members = members
        self._may_write = may_write
        self._clock = clock
        self._changed = asyncio.Event()
        self._writers = {
            cluster: _MemberWriter(
                member,
                namespace,
                self.writes,
                may_write=may_write,
                backoff=Backoff(rng),
                clock=clock,
                utc_now=utc_now,
                interval_s=1.0 / max_writes_per_s,
                patience_s=patience_s,
            )
            for cluster, member in members.items()
        }

    def changed(self) -> None:
        """Something in the members may not be what it was."""
        self._changed.set()

    async def run(self) -> None:
        """Write for ever, or until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cluster, writer in self._writers.items():
                tasks.create_task(writer.run(), name=f"export to {cluster}")
            await self._plan()

    async def _plan(self) -> None:
        was_allowed = False
        while True:
            is_allowed = self._may_write()
            took_s = 0.0
            if is_allowed and (self._changed.is_set() or not was_allowed):
                self._changed.clear()
                began_s = self._clock()
                steps = plan({name: _state(each) for name, each in self._members.items()})
                took_s = self._clock() - began_s
                for cluster, writer in self._writers.items():
                    writer.want(steps.get(cluster, ()))
            was_allowed = is_allowed
            if is_allowed:
                await asyncio.sleep(max(_COALESCE_S, took_s / _PLANNING_SHARE))
                await self._next_change()
            else:
                await asyncio.sleep(_LOOK_S)

    async def _next_change(self) -> None:
        """Wait for it; nobody tells when it is not allowed any more, or is again."""
        await wait_at_most(self._changed, _LOOK_S)


class _MemberWriter:
    """Does the steps in one member, those that come first first."""

    def __init__(
        self,
        member: MemberCluster,
        namespace: str,
        writes: Counter[str],
        *,
        may_write: Callable[[], bool],
        backoff: Backoff,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime],
        interval_s: float,
        patience_s: float,
    ) -> None:
        self._member = member
        self._namespace = namespace
        self._writes = writes
        self._may_write = may_write
        self._backoff = backoff
        self._clock = clock
        self._utc_now = utc_now
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._steps: dict[Step, float] = {}
        self._done: dict[Step, tuple[int, float]] = {}
        self._poke = asyncio.Event()
        self._free_at_s = -inf
        self._complaint = ""

    def want(self, steps: Iterable[Step]) -> None:
        """These are the steps now."""
        now = self._clock()
        self._steps = {step: self._steps.get(step, now) for step in steps}
        horizon_s = now - 2 * _LONGEST_PAUSE_S
        self._done = {step: done for step, done in self._done.items() if done[1] > horizon_s}
        self._poke.set()

    async def run(self) -> None:
        while True:
            step, wait_s = self._next()
            if step is None:
                await self._wait(None)
            elif not self._may_write():
                await self._wait(_LOOK_S)
            elif wait_s > 0.0:
                await self._wait(wait_s)
            else:
                await self._do(step)

    def _next(self) -> tuple[Step | None, float]:
        """Return the step that is due first, and how long until then."""
        now = self._clock()
        due = [(max(self._free_at_s, self._due_s(*each)), each[0]) for each in self._steps.items()]
        if not due:
            return None, inf
        at_s, step = min(due, key=lambda each: each[0])
        return step, max(0.0, at_s - now)

    def _due_s(self, step: Step, wanted_since_s: float) -> float:
        if step.condition is not None and step.condition.status == "False":
            wanted_since_s += self._patience_s
        times, at_s = self._done.get(step, (0, -inf))  # that is at once, the first time
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(times, 30))
        return max(wanted_since_s, at_s + pause_s)

    async def _wait(self, longest_s: float | None) -> None:
        await wait_at_most(self._poke, longest_s)
        self._poke.clear()

    # Writing

    async def _do(self, step: Step) -> None:
        now = self._clock()
        times, _ = self._done.get(step, (0, -inf))
        self._free_at_s = now + self._interval_s
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._send(step)
        except ApiError as error:
            result = self._take_error(step, error)
        except (ClusterError, TimeoutError, msgspec.DecodeError) as error:
            result = FAILED
            self._pause(str(error) or "no answer in time")
        else:
            result = OK
            self._backoff.reset()
            self._complain("")
        if result != FAILED:
            self._done[step] = (times + 1, self._clock())
        self._writes[result] += 1

    async def _send(self, step: Step) -> None:
        connection = self._member.connection
        imports = f"/apis/{IMPORT_API_VERSION}/namespaces/{self._namespace}/inferencepoolimports"
        match step.verb:
            case "create":
                head = self._import_head(step.name)
                head["metadata"]["annotations"] = {CREATED_BY: CONTROLLER}
                await connection.create(imports, head)
            case "name-clusters" if step.clusters:
                status = {"controllers": [self._entry(step)]}
                body = {**self._import_head(step.name), "status": status}
                path = f"{imports}/{step.name}/status"
                await connection.apply(path, body, field_manager=FIELD_MANAGER)
            case "name-clusters":
                await self._withdraw(f"{imports}/{step.name}")
            case "delete":
                conditions = {"uid": step.uid, "resourceVersion": step.version}
                await connection.delete(
                    f"{imports}/{step.name}",
                    {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": conditions},
                )
            case "set-condition":
                await self._set_condition(step)

    async def _withdraw(self, path: str) -> None:
        """Take the entry of this controller out of the status of an import.

        To apply a status without it would do so as well, but API servers refuse that where nothing
        is left and the list was another's: it becomes null then.
        """
        found = _decode(await self._member.connection.get(path))
        status = found.get("status") or {}
        listed = status.get("controllers") or ()
        entries = [each for each in listed if each.get("name") != CONTROLLER]
        found["status"] = {**status, "controllers": entries}
        await self._member.connection.replace(f"{path}/status", found)

    async def _set_condition(self, step: Step) -> None:
        """Put the entry of this controller into the status of a pool as it is now, or take it out.

        Entries are a list without keys, which belongs as a whole to whoever applies it, so to apply
        ours would take away those of gateways. A version keeps two writers apart instead.
        """
        pools = f"/apis/{POOL_GROUP}/v1/namespaces/{self._namespace}/inferencepools"
        path = f"{pools}/{step.name}"
        found = _decode(await self._member.connection.get(path))
        status = found.get("status")
        parents = [parent for parent in parents_of(status) if not is_own(parent)]
        if step.condition is not None:
            parents.append(self._parent(step.name, step.condition, own_parent(status)))
        found["status"] = {**(status or {}), "parents": parents}
        await self._member.connection.replace(f"{path}/status", found)

    def _import_head(self, name: str) -> dict[str, Any]:
        return {
            "apiVersion": IMPORT_API_VERSION,
            "kind": IMPORT_KIND,
            "metadata": {"name": name, "namespace": self._namespace},
        }

    def _entry(self, step: Step) -> dict[str, Any]:
        found = self._member.imports.get(Key(self._namespace, step.name))
        entry = None if found is None else own_entry(found)
        condition = Condition(
            type="Accepted",
            status="True",
            observed_generation=0 if found is None else found.metadata.generation,
            reason="Accepted",
            message="kept as the pools of the exporting clusters are",
        )
        said = () if entry is None else entry.conditions
        return {
            "name": CONTROLLER,
            "exportingClusters": [{"name": cluster} for cluster in step.clusters],
            "conditions": [self._since(condition, said)],
        }

    def _parent(
        self, name: str, condition: Condition, before: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        said = (before or {}).get("conditions") or ()
        return {
            "parentRef": {
                "group": EXPERIMENTAL_GROUP,
                "kind": IMPORT_KIND,
                "name": name,
                "namespace": self._namespace,
            },
            "controllerName": CONTROLLER,
            "conditions": [self._since(condition, said)],
        }

    def _since(self, condition: Condition, said: Iterable[Any]) -> Condition:
        """Return the condition with the time since when its status has been what it is."""
        since = second_time(self._utc_now())
        for each in said:
            if not isinstance(each, dict):
                continue
            if (each.get("type"), each.get("status")) == (condition.type, condition.status):
                since = each.get("lastTransitionTime") or since
        return msgspec.structs.replace(condition, last_transition_time=since)

    # Trouble

    def _take_error(self, step: Step, error: ApiError) -> str:
        if error.status == HTTPStatus.NOT_FOUND:
            self._complain(str(error))  # without the kind installed, it is so for ever
            return GONE
        if error.status == HTTPStatus.CONFLICT:
            return CONFLICT
        if error.status == HTTPStatus.FORBIDDEN:
            self._free_at_s = self._clock() + _REFUSED_PAUSE_S
            self._complain(f"may not {step.verb}: {error}")
            return REFUSED
        if error.status >= 500 or error.status in _PASSING:
            self._pause(str(error), error.retry_after_s)
            return FAILED
        self._complain(str(error))
        return INVALID

    def _pause(self, problem: str, retry_after_s: float | None = None) -> None:
        """The member is not to be written to for a while: its API server has a problem."""
        asked_s = min(retry_after_s or 0.0, _REFUSED_PAUSE_S)
        pause_s = max(self._backoff.next_s(), asked_s, self._interval_s)
        self._free_at_s = self._clock() + pause_s
        self._complain(problem)

    def _complain(self, problem: str) -> None:
        if problem and problem != self._complaint:
            cluster = self._member.cluster
            logger.warning("cluster %s: an export could not be written: %s", cluster, problem)
        self._complaint = problem


def _state(member: MemberCluster) -> MemberState:
    return MemberState(
        pools={key.name: found for key, found in member.pools.items()},
        imports={key.name: found for key, found in member.imports.items()},
        has_told=member.has_told,
    )
