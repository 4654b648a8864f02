"""What an exporting controller has to write: pools that members export → imports in all members.

No I/O, no clock: :func:`plan` says what is to be done in each member, given what is there. The
rules:

* An InferencePool with the export annotation has an InferencePoolImport of the same name in every
  member, whose status has an entry of this controller that names the clusters that export it.
* Entries of other controllers, and imports that this one has not made, are left alone. It deletes
  what it has made when no member exports the pool, unless another controller names clusters there.
* The status of an exported pool has an entry of this controller whose condition ``Exported`` is
  True when all members have the import. It goes with the annotation.
* Of a member that has not been heard of yet nothing is known: what is said of it elsewhere stays.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from epp.discovery.kubernetes.imports.objects import (
    EXPORT_ANNOTATION,
    EXPORT_TO_ALL,
    ImportController,
    InferencePoolImport,
    MemberPool,
)
from epp.discovery.kubernetes.objects import Condition
from epp.discovery.kubernetes.text import listed

__all__ = [
    "CONTROLLER",
    "CREATED_BY",
    "MemberState",
    "Step",
    "is_own",
    "own_entry",
    "own_parent",
    "parents_of",
    "plan",
]

CONTROLLER: Final = "inference-epp/exporting-controller"
"""What this controller calls itself in the status of objects."""

CREATED_BY: Final = "inference-epp/created-by"
"""The annotation of imports that this controller has made; its value is :data:`CONTROLLER`."""

_MAX_POOLS: Final = 1000
_NAME_CHARACTERS: Final = 253

Verb = Literal["create", "name-clusters", "delete", "set-condition"]


class MemberState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a member, by name; ``has_told`` is whether that is anything yet."""

    pools: Mapping[str, MemberPool] = {}
    imports: Mapping[str, InferencePoolImport] = {}
    has_told: bool = True


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be done in a member with the import, or the pool, ``name``.

    ``create`` an import; ``name-clusters`` in its status, or, without ``clusters``, take the entry
    there away; ``delete`` it, if it is still what was looked at (``uid`` and ``version``);
    ``set-condition`` in the status of the pool, or, without ``condition``, take the entry away. The
    condition has no time.
    """

    verb: Verb
    name: str
    clusters: tuple[str, ...] = ()
    condition: Condition | None = None
    uid: str = ""
    version: str = ""


def plan(members: Mapping[str, MemberState]) -> dict[str, list[Step]]:
    """Return what is to be done in each member; those that have not told of themselves are left
    alone. Pools beyond the first 1,000 are not exported."""
    exporters = _exporters(members)
    return {
        cluster: [*_import_steps(state, exporters), *_pool_steps(cluster, members, exporters)]
        for cluster, state in members.items()
        if state.has_told
    }


def own_entry(found: InferencePoolImport) -> ImportController | None:
    """Return what the status of an import has of this controller."""
    return next((each for each in found.status.controllers if each.name == CONTROLLER), None)


def own_parent(status: Any) -> dict[str, Any] | None:
    """Return what the status of an InferencePool has of this controller."""
    for parent in parents_of(status):
        if is_own(parent):
            return parent
    return None


def parents_of(status: Any) -> list[dict[str, Any]]:
    """Return the entries in the status of an InferencePool."""
    listed = status.get("parents") if isinstance(status, dict) else None
    return [each for each in listed or () if isinstance(each, dict)]


def is_own(parent: Mapping[str, Any]) -> bool:
    """Whether this controller has written an entry in the status of an InferencePool."""
    return parent.get("controllerName") == CONTROLLER


def _exporters(members: Mapping[str, MemberState]) -> dict[str, tuple[str, ...]]:
    """Return the clusters that export each pool, in the order of their names. For a member that has
    not told of itself stands what this controller has said of it before."""
    found: dict[str, set[str]] = {}
    for cluster, state in members.items():
        for name, pool in state.pools.items():
            if pool.export == EXPORT_TO_ALL:
                found.setdefault(name, set()).add(cluster)
        for name, each in state.imports.items():
            entry = own_entry(each)
            for named in entry.exporting_clusters if entry is not None else ():
                if named.name in members and not members[named.name].has_told:
                    found.setdefault(name, set()).add(named.name)
    return {name: tuple(sorted(found[name])) for name in sorted(found)[:_MAX_POOLS]}


def _import_steps(state: MemberState, exporters: Mapping[str, tuple[str, ...]]) -> Iterator[Step]:
    for name, clusters in exporters.items():
        found = state.imports.get(name)
        if found is None:
            yield Step(verb="create", name=name)
        elif _is_going(found):
            continue  # and then it is made again
        elif _named(found) != clusters:
            yield Step(verb="name-clusters", name=name, clusters=clusters)
    for name, found in state.imports.items():
        if name in exporters or _is_going(found):
            continue
        if _is_ours(found) and not _others(found):
            metadata = found.metadata
            version = metadata.resource_version
            yield Step(verb="delete", name=name, uid=metadata.uid, version=version)
        elif own_entry(found) is not None:
            yield Step(verb="name-clusters", name=name)


def _pool_steps(
    cluster: str,
    members: Mapping[str, MemberState],
    exporters: Mapping[str, tuple[str, ...]],
) -> Iterator[Step]:
    for name, pool in members[cluster].pools.items():
        if pool.metadata.deletion_timestamp is not None:
            continue
        wanted = _condition(cluster, pool, members, is_exported=cluster in exporters.get(name, ()))
        parent = own_parent(pool.status)
        if wanted is None:
            if parent is not None:
                yield Step(verb="set-condition", name=name)
        elif not _says(parent, wanted):
            yield Step(verb="set-condition", name=name, condition=wanted)


def _condition(
    cluster: str, pool: MemberPool, members: Mapping[str, MemberState], *, is_exported: bool
) -> Condition | None:
    if pool.export is None:
        return None
    metadata = pool.metadata
    if pool.export != EXPORT_TO_ALL:
        status, reason = "False", "NotSupported"
        value = pool.export[:_NAME_CHARACTERS]
        message = f'{EXPORT_ANNOTATION} is "{value}"; expected {EXPORT_TO_ALL}'
    elif not is_exported:
        status, reason = "False", "TooManyPools"
        message = f"there are more than {_MAX_POOLS} pools to export"
    else:
        missing = sorted(
            each for each, state in members.items() if not _has(state, metadata.name, cluster)
        )
        status, reason, message = "True", "Exported", "all members have the import"
        if missing:
            status, reason = "False", "MemberFailed"
            message = f"no import in {listed(missing)}"
    return Condition(
        type="Exported",
        status=status,
        observed_generation=metadata.generation,
        reason=reason,
        message=message,
    )


def _has(state: MemberState, name: str, cluster: str) -> bool:
    """Whether a member has the import of a pool that the cluster exports."""
    found = state.imports.get(name)
    return found is not None and cluster in _named(found)


def _named(found: InferencePoolImport) -> tuple[str, ...]:
    entry = own_entry(found)
    return () if entry is None else tuple(sorted(each.name for each in entry.exporting_clusters))


def _others(found: InferencePoolImport) -> bool:
    """Whether another controller says where the import comes from."""
    return any(
        each.exporting_clusters for each in found.status.controllers if each.name != CONTROLLER
    )


def _is_ours(found: InferencePoolImport) -> bool:
    return found.metadata.annotations.get(CREATED_BY) == CONTROLLER


def _is_going(found: InferencePoolImport) -> bool:
    return found.metadata.deletion_timestamp is not None


def _says(parent: Mapping[str, Any] | None, wanted: Condition) -> bool:
    """Whether an entry says just what is wanted, since whenever."""
    if parent is None:
        return False
    said = parent.get("conditions") or []
    fields = ("type", "status", "reason", "message")
    return (
        len(said) == 1
        and isinstance(said[0], dict)
        and all(said[0].get(field) == getattr(wanted, field) for field in fields)
        and said[0].get("observedGeneration") == wanted.observed_generation
    )
