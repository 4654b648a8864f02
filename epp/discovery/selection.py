"""What the manifests declare → what one pool is made of, up to names that only DNS can tell."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from epp.core.resources import (
    Endpoint,
    Objective,
    PoolResources,
    PoolSpec,
    RewriteRule,
    join_host_port,
)
from epp.discovery.active_ports import active_ports, rank_names
from epp.discovery.hosts import is_ip
from epp.discovery.manifests import (
    LLM_D_GROUP,
    DeclaredEndpoint,
    DeclaredObjective,
    DeclaredRewrite,
    Manifests,
)
from epp.discovery.problems import Problems
from epp.discovery.schema import MAX_ENDPOINTS, PoolRef

__all__ = ["HostEndpoint", "Selection", "place", "select"]

_SHOWN_NAMES = 10


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


def select(
    manifests: Manifests, *, pool_name: str | None, pool_namespace: str | None, source: str
) -> Selection:
    """Return what belongs to the wanted pool, or to the only one if none is named.

    ``source`` says in problems where the manifests come from. Raises
    :class:`~epp.discovery.problems.ManifestError` where no pool or several could be meant, and
    where two of the pool's endpoints are the same destination.
    """
    problems = Problems()
    notes: list[str] = []
    if manifests.ignored:
        notes.append(f"manifests of other kinds ignored: {_enumerate(manifests.ignored)}")
    pool = _choose_pool(manifests.pools, pool_name, pool_namespace, source, problems)
    problems.raise_any()
    assert pool is not None
    members = _select_endpoints(manifests.endpoints, pool, notes)
    endpoints = _give_ports(members, pool, source, problems, notes)
    problems.raise_any()
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


def _choose_pool(
    pools: Iterable[PoolSpec],
    name: str | None,
    namespace: str | None,
    source: str,
    problems: Problems,
) -> PoolSpec | None:
    known = sorted(pools, key=lambda pool: (pool.namespace, pool.name, pool.group))
    wanted = [
        pool for pool in known if name in (None, pool.name) and namespace in (None, pool.namespace)
    ]
    if len(wanted) == 1:
        return wanted[0]
    names = _enumerate([f"{pool.namespace}/{pool.name} ({pool.group})" for pool in known])
    asked = (
        f"InferencePool {namespace or '*'}/{name or '*'}" if name or namespace else "InferencePool"
    )
    if not known:
        problems.add(f"{source}: found no InferencePool; expected one")
    elif not wanted:
        problems.add(f"{source}: found no {asked}; there are: {names}")
    else:
        hint = "choose one with --pool-name and --pool-namespace, or remove the others"
        problems.add(f"{source}: found more than one {asked}; {hint}: {names}")
    return None


def _select_objectives(
    declared: Iterable[DeclaredObjective], pool: PoolSpec, notes: list[str]
) -> dict[str, Objective]:
    chosen: dict[str, DeclaredObjective] = {}
    others = []
    twice = []
    for found in declared:
        name = found.objective.name
        if not _is_of(pool, found.pool_ref, found.objective.namespace):
            others.append(f"{found.objective.namespace}/{name} ({_target(found.pool_ref)})")
            continue
        if name in chosen:
            twice.append(name)
            if found.group != LLM_D_GROUP:
                continue
        chosen[name] = found
    _note_left_out("objectives", pool, others, twice, notes)
    return {name: chosen[name].objective for name in sorted(chosen)}


def _select_rewrites(
    declared: Iterable[DeclaredRewrite], pool: PoolSpec, notes: list[str]
) -> tuple[RewriteRule, ...]:
    """Return the rules of the pool's rewrites, the oldest object's first; what has no age comes
    after what has one, and names decide between what is equally old."""
    chosen: dict[str, DeclaredRewrite] = {}
    others = []
    twice = []
    for found in declared:
        if not _is_of(pool, found.pool_ref, found.namespace):
            others.append(f"{found.namespace}/{found.name} ({_target(found.pool_ref)})")
            continue
        if found.name in chosen:
            twice.append(found.name)
            if found.group != LLM_D_GROUP:
                continue
        chosen[found.name] = found
    _note_left_out("rewrites", pool, others, twice, notes)
    by_age = sorted(chosen.values(), key=_age_and_name)
    return tuple(rule for rewrite in by_age for rule in rewrite.rules)


def _age_and_name(rewrite: DeclaredRewrite) -> tuple[bool, float, str]:
    created = rewrite.created
    return created is None, created.timestamp() if created else 0.0, rewrite.name


def _is_of(pool: PoolSpec, reference: PoolRef, namespace: str) -> bool:
    return (
        (reference.name, reference.group) == (pool.name, pool.group)
        and reference.kind == "InferencePool"
        and namespace == pool.namespace
    )


def _target(reference: PoolRef) -> str:
    return f"of {reference.group}/{reference.kind} {reference.name}"


def _note_left_out(
    what: str, pool: PoolSpec, others: list[str], twice: list[str], notes: list[str]
) -> None:
    if others:
        own = f"{pool.namespace}/{pool.name} ({pool.group})"
        notes.append(f"{what} of other pools than {own} ignored: {_enumerate(sorted(others))}")
    if twice:
        names = _enumerate(sorted(twice))
        notes.append(f"{what} in two API groups, taken from {LLM_D_GROUP}: {names}")


def _select_endpoints(
    declared: Iterable[DeclaredEndpoint], pool: PoolSpec, notes: list[str]
) -> list[DeclaredEndpoint]:
    members: list[DeclaredEndpoint] = []
    skipped: list[str] = []
    for found in declared:
        if found.namespace == pool.namespace and _matches(pool.selector, found.labels):
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
        ports = active_ports(member.annotations, target_ports)
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
        names = rank_names(name, target_ports)
        endpoints.append(
            HostEndpoint(
                name=name,
                host=member.host,
                is_dns_name=not is_ip(member.host),
                ports={port: names[port] for port in ports},
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


def _matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


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
