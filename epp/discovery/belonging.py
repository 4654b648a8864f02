"""What belongs to a pool: the rules that files and the API server have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from epp.core.resources import Objective, PoolSpec, RewriteRule
from epp.discovery.active_ports import active_ports, rank_names
from epp.discovery.declared import LLM_D_GROUP, DeclaredObjective, DeclaredRewrite
from epp.discovery.schema import MAX_OBJECTIVES, MAX_REWRITES, PoolRef

__all__ = [
    "Choice",
    "choose",
    "endpoint_names",
    "has_labels",
    "objectives_by_name",
    "refers_to",
    "rules_in_order",
]

_Declared = TypeVar("_Declared", DeclaredObjective, DeclaredRewrite)


class Choice(msgspec.Struct, Generic[_Declared], frozen=True, kw_only=True):
    """Of some objects those that belong to a pool, by name, and the ``others``. ``twice`` are names
    that two API groups have; llm-d.ai's object is the chosen one then."""

    chosen: Mapping[str, _Declared]
    others: Sequence[_Declared]
    twice: Sequence[str]


def choose(declared: Iterable[_Declared], pool: PoolSpec) -> Choice[_Declared]:
    """Return those of the objects that refer to the pool from its own namespace."""
    chosen: dict[str, _Declared] = {}
    others: list[_Declared] = []
    twice: list[str] = []
    for found in declared:
        if not refers_to(found.pool_ref, found.namespace, pool):
            others.append(found)
            continue
        if found.name in chosen:
            twice.append(found.name)
            if found.group != LLM_D_GROUP:
                continue
        chosen[found.name] = found
    return Choice(chosen=chosen, others=others, twice=twice)


def refers_to(reference: PoolRef, namespace: str, pool: PoolSpec) -> bool:
    """Tell whether an object in this namespace means the pool by this reference."""
    return (reference.name, reference.group, reference.kind) == (
        pool.name,
        pool.group,
        pool.kind,
    ) and namespace == pool.namespace


def objectives_by_name(chosen: Mapping[str, DeclaredObjective]) -> dict[str, Objective]:
    """Return a pool's objectives in the order of their names; the first 10,000 if there are
    more."""
    return {name: chosen[name].objective for name in sorted(chosen)[:MAX_OBJECTIVES]}


def rules_in_order(chosen: Mapping[str, DeclaredRewrite]) -> tuple[RewriteRule, ...]:
    """Return the rules of a pool's rewrites, the oldest object's first; what has no age comes after
    what has one, and names decide between what is equally old. Those of the first 1,000 objects
    count."""
    by_age = sorted(chosen.values(), key=_age_and_name)
    return tuple(rule for rewrite in by_age[:MAX_REWRITES] for rule in rewrite.rules)


def has_labels(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Tell whether the labels are what a pool's selector asks for; an empty one takes all."""
    return all(labels.get(key) == value for key, value in selector.items())


def endpoint_names(
    name: str, annotations: Mapping[str, str], target_ports: Sequence[int]
) -> dict[int, str]:
    """Return the ports in use of a server with this ``namespace/name``, and what the endpoint at
    each of them is called."""
    names = rank_names(name, target_ports)
    return {port: names[port] for port in active_ports(annotations, target_ports)}


def _age_and_name(rewrite: DeclaredRewrite) -> tuple[bool, float, str]:
    created = rewrite.created
    return created is None, created.timestamp() if created else 0.0, rewrite.name
