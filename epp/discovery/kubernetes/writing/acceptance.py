"""The condition ``Accepted`` of an InferenceObjective: what it should say, and who may say so.

Several EPPs share a namespace, each with its own pools, and each sees the objectives of all. So
that they neither contradict each other for ever nor write without end, these rules hold:

* The EPP that serves an objective's pool decides. It says True, or False where the objective is no
  good, whatever the condition says now.
* Others only say False, and only where nobody has accepted the present generation. An EPP takes its
  own True back when its pool is gone or is served no more.
* An EPP that cannot know whether a pool exists, because it does not watch its kind, speaks only
  where nobody has said anything of the present generation.
* A condition that says the same (status, reason, generation) is left alone, whatever its message.

EPPs that see the same pools so come to the same, and then are quiet; what one of them sees late it
takes back once. Conditions of other types, such as ``Ready``, are nobody's business here.
"""

from collections.abc import Collection
from typing import Any, Final, NamedTuple

import msgspec

from epp.discovery.kubernetes.objects import Condition, InferenceObjective
from epp.discovery.kubernetes.reading import BadObject, read_objective
from epp.discovery.schema import PoolRef

__all__ = [
    "ACCEPTED",
    "KnownPools",
    "PoolName",
    "accepted_condition",
    "complaint",
    "decide",
    "is_served",
]

ACCEPTED: Final = "Accepted"

_REASON_ACCEPTED: Final = "Accepted"
_REASON_INVALID: Final = "Invalid"
_REASON_NOT_FOUND: Final = "PoolNotFound"
_REASON_NOT_SERVED: Final = "PoolNotServed"
_REASONS_OF_OTHERS: Final = (_REASON_NOT_FOUND, _REASON_NOT_SERVED)
_MESSAGE_CHARACTERS: Final = 1024


class PoolName(NamedTuple):
    """What an objective calls its pool, in its own namespace."""

    group: str
    kind: str
    name: str


class KnownPools(msgspec.Struct, frozen=True, kw_only=True):
    """The pools of one namespace, as one EPP knows them.

    ``served`` are those that it serves, ``wanted`` those that it would serve if they existed,
    ``existing`` all that there are of the ``kinds`` (API group and kind) of which it sees all.
    """

    served: Collection[PoolName] = frozenset()
    wanted: Collection[PoolName] = frozenset()
    existing: Collection[PoolName] = frozenset()
    kinds: Collection[tuple[str, str]] = frozenset()


class _Verdict(NamedTuple):
    """``overrules`` is whether it may replace what another has said of the same generation; True
    and None stand for anything, and anything but an acceptance."""

    status: str
    reason: str
    message: str
    overrules: bool | None = None


def decide(
    objective: InferenceObjective, group: str, pools: KnownPools, *, is_own: bool, now: str
) -> Condition | None:
    """Return the condition to write, None if there is nothing to say.

    ``group`` is the API group of the objective. ``is_own`` is whether this EPP has accepted its
    present generation; ``now`` is the time for a condition whose status changes.
    """
    metadata = objective.metadata
    pool = _pool_of(objective)
    if pool is None or metadata.deletion_timestamp is not None:
        return None
    verdict = _judge(objective, group, pool, pools)
    said = accepted_condition(objective)
    is_current = said is not None and said.observed_generation == metadata.generation
    if said is not None and is_current:
        if (said.status, said.reason) == (verdict.status, verdict.reason):
            return None
        if not _may_replace(verdict, said, is_own=is_own or pool in pools.wanted):
            return None
    is_same_status = said is not None and said.status == verdict.status
    since = said.last_transition_time if said is not None and is_same_status else ""
    return Condition(
        type=ACCEPTED,
        status=verdict.status,
        observed_generation=metadata.generation,
        last_transition_time=since or now,
        reason=verdict.reason,
        message=verdict.message[:_MESSAGE_CHARACTERS],
    )


def accepted_condition(objective: InferenceObjective) -> Condition | None:
    """Return the condition as it is."""
    for condition in objective.status.conditions:
        if condition.type == ACCEPTED:
            return condition
    return None


def is_served(objective: InferenceObjective, pools: KnownPools) -> bool:
    """Whether the objective's pool is one that this EPP serves."""
    pool = _pool_of(objective)
    return pool is not None and pool in pools.served


def complaint(
    objective: InferenceObjective, group: str, pools: KnownPools
) -> tuple[str, str] | None:
    """Return what an Event should say of an objective, and on which served pool, by its key
    ``namespace/name``: that it is no good, or that it misses the pool that it is meant for, because
    it names another API group or kind. None: nothing."""
    pool = _pool_of(objective)
    if pool is None or objective.metadata.deletion_timestamp is not None:
        return None
    namespace = objective.metadata.namespace
    key = f"{namespace}/{pool.name}"
    title = f"InferenceObjective {namespace}/{objective.metadata.name} of {group}"
    if pool in pools.served:
        problem = _problem_of(objective, group)
        return (key, f"{title}: {problem}") if problem else None
    if pool in pools.existing:
        return None
    for served in pools.served:
        if served.name == pool.name:
            names = f"names {pool.kind} {pool.name} of group {pool.group!r}"
            return key, f"{title} {names}; expected {served.kind} of group {served.group!r}"
    return None


def _problem_of(objective: InferenceObjective, group: str) -> str:
    try:
        read_objective(objective, group)
    except BadObject as error:
        return str(error)
    return ""


def _pool_of(objective: InferenceObjective) -> PoolName | None:
    spec: Any = objective.spec
    reference = spec.get("poolRef") if isinstance(spec, dict) else None
    try:
        named = msgspec.convert(reference, PoolRef)
    except msgspec.ValidationError:
        return None  # told by an Event: nobody knows whose pool it is meant for
    return PoolName(named.group, named.kind, named.name)


def _judge(
    objective: InferenceObjective, group: str, pool: PoolName, pools: KnownPools
) -> _Verdict:
    name = f"{pool.kind} {objective.metadata.namespace}/{pool.name}"
    if pool in pools.served:
        if problem := _problem_of(objective, group):
            return _Verdict("False", _REASON_INVALID, problem, overrules=True)
        message = f"{name} is served by this endpoint picker"
        return _Verdict("True", _REASON_ACCEPTED, message, overrules=True)
    if pool in pools.existing:
        message = f"{name} exists, and no endpoint picker has said that it serves it"
        return _Verdict("False", _REASON_NOT_SERVED, message)
    if pool in pools.wanted or (pool.group, pool.kind) in pools.kinds:
        message = f"there is no {name} of {pool.group or 'the core group'}"
        return _Verdict("False", _REASON_NOT_FOUND, message)
    message = f"{name} of {pool.group or 'the core group'} is none that is watched here"
    return _Verdict("False", _REASON_NOT_SERVED, message, overrules=False)


def _may_replace(verdict: _Verdict, said: Condition, *, is_own: bool) -> bool:
    if verdict.overrules is not None:
        return verdict.overrules
    if said.status == "True":
        return is_own
    return said.status == "Unknown" or said.reason in _REASONS_OF_OTHERS or is_own
