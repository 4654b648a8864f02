"""What the manifests declare → what pools are made of, up to names that only DNS can tell."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from epp.core.resources import (
    Endpoint,
    Objective,
    PoolResources,
    PoolSpec,
    RewriteRule,
    join_host_port,
)
from epp.discovery.belonging import (
    choose,
    endpoint_names,
    has_labels,
    objectives_by_name,
    rules_in_order,
)
from epp.discovery.declared import (
    LLM_D_GROUP,
    DeclaredObjective,
    DeclaredPool,
    DeclaredRewrite,
)
from epp.discovery.hosts import is_ip
from epp.discovery.label_selector import LabelSelector
from epp.discovery.manifests import DeclaredEndpoint, Manifests
from epp.discovery.problems import Problems
from epp.discovery.schema import MAX_ENDPOINTS

__all__ = ["HostEndpoint", "Selection", "WantedPools", "place", "select"]

_SHOWN_NAMES = 10
_SEVERAL_HINT = (
    "choose with --pool-name and --pool-namespace or with --pool-selector, or remove the others"
)


class WantedPools(msgspec.Struct, frozen=True, kw_only=True):
    """Which pools are wanted: those with one of the ``names``, all that the ``selector`` matches,
    or, with neither, the only one that there is; in any namespace where none is given."""

    names: tuple[str, ...] = ()
    selector: LabelSelector | None = None
    namespace: str | None = None


class HostEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of the pool whose ``host``, canonical, may still be a DNS name.

    ``name`` is ``namespace/name``. ``ports`` holds a name for the endpoint at each port.
    """

    name: str
    host: str
    is_dns_name: bool
    ports: Mapping[int, str]
    labels: Mapping[str, str]


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to the pool, and ``notes`` for the log about what does not, a line each.

    ``dns_names`` are the hosts among the endpoints' that must be looked up.
    """

    pool: PoolSpec
    objectives: Mapping[str, Objective]
    rewrites: tuple[RewriteRule, ...]
    endpoints: tuple[HostEndpoint, ...]
    dns_names: frozenset[str]
    notes: tuple[str, ...]


def select(manifests: Manifests, wanted: WantedPools, source: str) -> tuple[Selection, ...]:
    """Return what belongs to each of the wanted pools, in the order of their keys.

    ``source`` says in problems where the manifests come from. Raises
    :class:`~epp.discovery.problems.ManifestError` where a pool is missing or several could be
    meant, and where two endpoints of a pool are the same destination.
    """
    problems = Problems()
    pools = _choose_pools(manifests.pools, wanted, source, problems)
    problems.raise_any()
    selections = tuple(_select_one(manifests, pool, source, problems) for pool in pools)
    problems.raise_any()
    return selections


def _select_one(manifests: Manifests, pool: PoolSpec, source: str, problems: Problems) -> Selection:
    notes: list[str] = []
    if manifests.ignored:
        notes.append(f"manifests of other kinds ignored: {_enumerate(manifests.ignored)}")
    members = _select_endpoints(manifests.endpoints, pool, notes)
    endpoints = _give_ports(members, pool, source, problems, notes)
    return Selection(
        pool=pool,
        objectives=_select_objectives(manifests.objectives, pool, notes),
        rewrites=_select_rewrites(manifests.rewrites, pool, notes),
        endpoints=endpoints,
        dns_names=frozenset(entry.host for entry in endpoints if entry.is_dns_name),
        notes=tuple(notes),
    )


def place(
    selection: Selection, addresses: Mapping[str, Sequence[str]]
) -> tuple[PoolResources, tuple[str, ...]]:
    """Return the pool with every DNS name replaced by its addresses, and notes for the log.

    ``addresses`` has the canonical IP addresses of each name of ``dns_names`` that is known. A name
    without any contributes no endpoint. Of two entries with one destination, which no manifest can
    foresee, the one with an IP address wins, then the one whose name comes first.
    """
    placed: dict[str, Endpoint] = {}
    notes: list[str] = []
    names_last = sorted(selection.endpoints, key=lambda entry: (entry.is_dns_name, entry.name))
    for entry in names_last:
        hosts = addresses.get(entry.host, ()) if entry.is_dns_name else (entry.host,)
        for endpoint in _spread(entry, hosts):
            other = placed.setdefault(endpoint.destination, endpoint)
            if other is not endpoint:
                notes.append(
                    f"endpoint {endpoint.name} ignored: {endpoint.destination} is {other.name}"
                )
    endpoints = sorted(placed.values(), key=lambda endpoint: endpoint.name)
    if len(endpoints) > MAX_ENDPOINTS:
        notes.append(f"only {MAX_ENDPOINTS} of {len(endpoints)} resolved endpoints are used")
    resources = PoolResources(
        pool=selection.pool,
        objectives=selection.objectives,
        rewrites=selection.rewrites,
        endpoints=tuple(endpoints[:MAX_ENDPOINTS]),
    )
    return resources, tuple(notes)


def _choose_pools(
    declared: Iterable[DeclaredPool], wanted: WantedPools, source: str, problems: Problems
) -> list[PoolSpec]:
    known = sorted(declared, key=lambda pool: (pool.spec.key, pool.spec.group))
    if not known:
        problems.add(f"{source}: found no InferencePool; expected one")
        return []
    here = [pool for pool in known if wanted.namespace in (None, pool.spec.namespace)]
    shown = _enumerate([f"{pool.spec.key} ({pool.spec.group})" for pool in known])
    if wanted.selector is not None:
        return _choose_by_labels(here, wanted, f"there are: {shown}", source, problems)
    chosen = []
    names: list[str | None] = [*sorted(set(wanted.names))]
    for name in names or [None]:
        found = [pool.spec for pool in here if name in (None, pool.spec.name)]
        asked = "InferencePool"
        if name or wanted.namespace:
            asked = f"InferencePool {wanted.namespace or '*'}/{name or '*'}"
        if not found:
            problems.add(f"{source}: found no {asked}; there are: {shown}")
        elif len(found) > 1:
            problems.add(f"{source}: found more than one {asked}; {_SEVERAL_HINT}: {shown}")
        chosen += found
    return chosen


def _choose_by_labels(
    here: Iterable[DeclaredPool], wanted: WantedPools, others: str, source: str, problems: Problems
) -> list[PoolSpec]:
    assert wanted.selector is not None
    found = [pool.spec for pool in here if wanted.selector.matches(pool.labels)]
    if not found:
        namespace = wanted.namespace or "*"
        problems.add(f"{source}: found no InferencePool {namespace}/* by --pool-selector; {others}")
    for spec, other in pairwise(found):
        if spec.key == other.key:
            groups = f"{spec.group} and {other.group}"
            problems.add(
                f"{source}: found InferencePool {spec.key} by --pool-selector in the groups "
                f"{groups}; expected it in one"
            )
    return found


def _select_objectives(
    declared: Iterable[DeclaredObjective], pool: PoolSpec, notes: list[str]
) -> dict[str, Objective]:
    choice = choose(declared, pool)
    _note_left_out("objectives", pool, choice.others, choice.twice, notes)
    return objectives_by_name(choice.chosen)


def _select_rewrites(
    declared: Iterable[DeclaredRewrite], pool: PoolSpec, notes: list[str]
) -> tuple[RewriteRule, ...]:
    choice = choose(declared, pool)
    _note_left_out("rewrites", pool, choice.others, choice.twice, notes)
    return rules_in_order(choice.chosen)


def _note_left_out(
    what: str,
    pool: PoolSpec,
    others: Iterable[DeclaredObjective | DeclaredRewrite],
    twice: Sequence[str],
    notes: list[str],
) -> None:
    names = sorted(map(_full_name, others))
    if names:
        own = f"{pool.namespace}/{pool.name} ({pool.group})"
        notes.append(f"{what} of other pools than {own} ignored: {_enumerate(names)}")
    if twice:
        shown = _enumerate(sorted(twice))
        notes.append(f"{what} in two API groups, taken from {LLM_D_GROUP}: {shown}")


def _full_name(found: DeclaredObjective | DeclaredRewrite) -> str:
    reference = found.pool_ref
    target = f"{reference.group}/{reference.kind} {reference.name}"
    return f"{found.namespace}/{found.name} (of {target})"


def _select_endpoints(
    declared: Iterable[DeclaredEndpoint], pool: PoolSpec, notes: list[str]
) -> list[DeclaredEndpoint]:
    members: list[DeclaredEndpoint] = []
    skipped: list[str] = []
    for found in declared:
        if found.namespace == pool.namespace and has_labels(pool.selector, found.labels):
            members.append(found)
        else:
            skipped.append(f"{found.namespace}/{found.name}")
    if skipped:
        selector = ", ".join(f"{key}={value}" for key, value in sorted(pool.selector.items()))
        notes.append(
            f"endpoints not in namespace {pool.namespace} or without the labels of the pool's "
            f"selector ({selector or 'any'}) left out: {_enumerate(sorted(skipped))}"
        )
    return members


def _give_ports(
    members: Iterable[DeclaredEndpoint],
    pool: PoolSpec,
    source: str,
    problems: Problems,
    notes: list[str],
) -> tuple[HostEndpoint, ...]:
    endpoints: list[HostEndpoint] = []
    inactive: list[str] = []
    origins: dict[str, str] = {}
    for member in members:
        name = f"{member.namespace}/{member.name}"
        target_ports = pool.target_ports if member.port is None else (member.port,)
        ports = endpoint_names(name, member.annotations, target_ports)
        if not ports:
            inactive.append(name)
            continue
        for destination in (join_host_port(member.host, port) for port in ports):
            if destination in origins:
                problems.add(
                    f"{member.origin}: endpoint {name}: found {destination} again; expected each "
                    f"destination once (also at {origins[destination]})"
                )
            origins.setdefault(destination, member.origin)
        endpoints.append(
            HostEndpoint(
                name=name,
                host=member.host,
                is_dns_name=not is_ip(member.host),
                ports=ports,
                labels=member.labels,
            )
        )
    if inactive:
        notes.append(f"endpoints without an active port left out: {_enumerate(sorted(inactive))}")
    if len(origins) > MAX_ENDPOINTS:
        problems.add(
            f"{source}: InferencePool {pool.namespace}/{pool.name}: found {len(origins)} "
            f"endpoints, counting every target port; expected up to {MAX_ENDPOINTS}"
        )
    return tuple(sorted(endpoints, key=lambda entry: entry.name))


def _spread(entry: HostEndpoint, hosts: Sequence[str]) -> Iterable[Endpoint]:
    """Yield an endpoint per address and port, each under a name of its own."""
    for host in hosts:
        for port, rank_name in entry.ports.items():
            name = f"{rank_name}@{host}" if len(hosts) > 1 else rank_name
            yield Endpoint(name=name, address=host, port=port, labels=entry.labels)


def _enumerate(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
