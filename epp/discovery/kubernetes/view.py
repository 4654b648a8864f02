"""What the API server tells of pools, pods, objectives and rewrites → what becomes of each pool.

No I/O, no clock. Changes of objects go in, and are only noted; :meth:`ClusterView.flush` works them
off bit by bit and tells a listener.
"""

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec

from epp.core.resources import PoolResources, PoolSpec
from epp.discovery.belonging import choose, objectives_by_name, refers_to, rules_in_order
from epp.discovery.declared import (
    EXPERIMENTAL_GROUP,
    LLM_D_GROUP,
    DeclaredObjective,
    DeclaredPool,
    DeclaredRewrite,
)
from epp.discovery.kubernetes.members import Members, selector_text
from epp.discovery.kubernetes.objects import (
    CustomObject,
    InferenceModelRewrite,
    InferenceObjective,
    InferencePool,
    Pod,
)
from epp.discovery.kubernetes.reading import read_objective, read_pool, read_rewrite
from epp.discovery.kubernetes.shelf import Difference, Shelf
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.label_selector import LabelSelector
from epp.discovery.source import ResourceListener

__all__ = ["GROUPS", "ClusterView", "KnownPool", "Scope"]

GROUPS: Final = (LLM_D_GROUP, EXPERIMENTAL_GROUP)
"""The API groups of objectives and rewrites; the first has precedence."""

_Object = TypeVar("_Object", bound=CustomObject)
_Referring = TypeVar("_Referring", DeclaredObjective, DeclaredRewrite)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which InferencePools are served: of one namespace and API group, those with one of the
    ``names``, or those that the ``selector`` matches."""

    namespace: str
    group: str
    names: frozenset[str] = frozenset()
    selector: LabelSelector | None = None

    def wants(self, pool: DeclaredPool) -> bool:
        """Tell whether a pool is served."""
        if self.selector is not None:
            return self.selector.matches(pool.labels)
        return pool.spec.name in self.names


class KnownPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool object of the namespace, or an import. ``problem`` says why it is no good, if it is
    not; then it is served as it was before, if at all. ``endpoints`` is None as long as its pods
    are not known."""

    found: CustomObject
    is_wanted: bool
    problem: str = ""
    endpoints: int | None = None


class _ServedPool:
    """A pool that is wanted: ``spec`` is what it shall be, ``told`` what the listener was told.

    As long as the pods of another selector are not known, it stays what it was.
    """

    def __init__(self, spec: PoolSpec, selector: str) -> None:
        self.spec = spec
        self.selector = selector
        self.members: Members | None = None
        self.in_force: PoolSpec | None = None
        self.is_changed = True

    def change(self, spec: PoolSpec, selector: str) -> None:
        """Have the pool be another from now on."""
        self.spec, self.selector = spec, selector
        if self.members is not None and self.members.selector == selector:
            self.members.set_ports(spec.target_ports)
            self._put_in_force()

    def listed(self, pods: tuple[Pod, ...]) -> None:
        """Take what pods there are now, by its present selector."""
        ports = self.spec.target_ports
        if self.members is None:
            self.members = Members(self.spec.namespace, self.selector, ports)
        self.members.replaced(pods, self.selector, ports)
        self._put_in_force()

    def _put_in_force(self) -> None:
        if self.in_force != self.spec:
            self.in_force = self.spec
            self.is_changed = True


class ClusterView:
    """The pools that are served, and all that belongs to them.

    ``scope`` says which; None where pools are made up by :meth:`serve` alone.
    """

    def __init__(self, namespace: str, scope: Scope | None) -> None:
        self._namespace = namespace
        self._scope = scope
        group = "" if scope is None else scope.group
        self._pools = Shelf("InferencePool", group, read_pool)
        self._objectives = {
            group: Shelf("InferenceObjective", group, read_objective) for group in GROUPS
        }
        self._rewrites = {
            group: Shelf("InferenceModelRewrite", group, read_rewrite) for group in GROUPS
        }
        self._by_pool: dict[str, tuple[list[DeclaredObjective], list[DeclaredRewrite]]] | None = (
            None
        )
        self._served: dict[str, _ServedPool] = {}
        self._touched: dict[str, None] = {}
        self._told: set[str] = set()

    # What there is

    @property
    def wanted_pods(self) -> Mapping[str, str]:
        """The pools whose pods must be told of, by their keys, and the label selectors by which the
        API server is to be asked for them."""
        return {key: pool.selector for key, pool in self._served.items()}

    def pools(self) -> Iterator[KnownPool]:
        """All pool objects, also those that are not served."""
        for name, found in self._pools.objects.items():
            pool = self._served.get(self._key(name))
            members = None if pool is None else pool.members
            yield KnownPool(
                found=found,
                is_wanted=pool is not None,
                problem=self._pools.problems.get(name, ""),
                endpoints=None if members is None else members.count,
            )

    def problems(self) -> dict[str, int]:
        """How many objects of each kind are no good."""
        return {
            "InferencePool": len(self._pools.problems),
            "InferenceObjective": sum(len(each.problems) for each in self._objectives.values()),
            "InferenceModelRewrite": sum(len(each.problems) for each in self._rewrites.values()),
        }

    @property
    def excluded_endpoints(self) -> int:
        """How many endpoints are left out, because pools have too many."""
        members = [pool.members for pool in self._served.values() if pool.members is not None]
        return sum(each.excluded for each in members)

    # What has become of it

    def serve(self, spec: PoolSpec, selector: str) -> None:
        """Serve a pool, or serve it as another than before."""
        pool = self._served.get(spec.key)
        if pool is None:
            self._served[spec.key] = _ServedPool(spec, selector)
        else:
            pool.change(spec, selector)
        self._touched[spec.key] = None

    def withdraw(self, key: str) -> None:
        """Serve a pool no more, if it was."""
        if self._served.pop(key, None) is not None:
            self._touched[key] = None

    def pools_changed(self, changes: Changes[InferencePool]) -> None:
        """Take what has become of the InferencePools of the namespace."""
        assert self._scope is not None
        for difference in self._pools.take(changes):
            pool = difference.after
            if pool is not None and self._scope.wants(pool):
                self.serve(pool.spec, selector_text(pool.spec.selector))
            else:
                self.withdraw(self._key(difference.name))

    def objectives_changed(self, group: str, changes: Changes[InferenceObjective]) -> None:
        """Take what has become of the InferenceObjectives of this API group."""
        self._referring_changed(self._objectives[group].take(changes))

    def rewrites_changed(self, group: str, changes: Changes[InferenceModelRewrite]) -> None:
        """Take what has become of the InferenceModelRewrites of this API group."""
        self._referring_changed(self._rewrites[group].take(changes))

    def pods_listed(self, key: str, selector: str, pods: tuple[Pod, ...]) -> None:
        """Take the first list of a pool's pods by this selector; it is out of date if the pool has
        another meanwhile."""
        pool = self._served.get(key)
        if pool is not None and pool.selector == selector:
            pool.listed(pods)
            self._touched[key] = None

    def pods_changed(self, key: str, changes: Changes[Pod]) -> None:
        """Take what has become of a pool's pods since they were listed."""
        pool = self._served.get(key)
        if pool is None or pool.members is None:
            return
        for gone in changes.gone:
            pool.members.gone(gone.metadata.name)
        for pod in changes.present:
            pool.members.present(pod)
        self._touched[key] = None

    # What comes of it

    def flush(self, listener: ResourceListener, limit: int) -> bool:
        """Work off what has become of up to so many pods and destinations, and tell the listener;
        returns whether there is more."""
        while self._touched and limit > 0:
            key = next(reversed(self._touched))
            limit -= self._flush_pool(key, listener, limit)
        return bool(self._touched)

    def take_rejections(self) -> list[str]:
        """Return a line for each object that was found to be no good since the last call."""
        rejections = self._pools.take_rejections()
        for group in GROUPS:
            rejections += self._objectives[group].take_rejections()
            rejections += self._rewrites[group].take_rejections()
        return rejections

    def _flush_pool(self, key: str, listener: ResourceListener, limit: int) -> int:
        """Do something for a pool and return how much it was."""
        pool = self._served.get(key)
        if pool is None or pool.members is None or pool.in_force is None:
            del self._touched[key]
            if pool is None and key in self._told:
                self._told.remove(key)
                listener.pool_gone(key)
            return 1
        if not pool.members.is_settled:
            return pool.members.work(limit)
        changes = pool.members.changes(limit)
        is_whole = pool.is_changed
        if not pool.members.has_changes:
            del self._touched[key]
            if is_whole:
                pool.is_changed = False
                self._told.add(key)
                listener.pool_applied(self._resources(pool.in_force, pool.members))
        if not is_whole and (changes.present or changes.gone):
            listener.endpoints_changed(key, changes)
        return limit if is_whole else 1 + len(changes.present) + len(changes.gone)

    def _resources(self, spec: PoolSpec, members: Members) -> PoolResources:
        if self._by_pool is None:
            self._by_pool = {}
            for objective in _all_declared(self._objectives):
                self._by_pool.setdefault(objective.pool_ref.name, ([], []))[0].append(objective)
            for rewrite in _all_declared(self._rewrites):
                self._by_pool.setdefault(rewrite.pool_ref.name, ([], []))[1].append(rewrite)
        objectives, rewrites = self._by_pool.get(spec.name, ([], []))
        return PoolResources(
            pool=spec,
            objectives=objectives_by_name(choose(objectives, spec).chosen),
            rewrites=rules_in_order(choose(rewrites, spec).chosen),
            endpoints=members.all(),
        )

    def _referring_changed(self, differences: Iterator[Difference[_Referring]]) -> None:
        for difference in differences:
            self._by_pool = None
            for found in (difference.before, difference.after):
                if found is None:
                    continue
                key = self._key(found.pool_ref.name)
                pool = self._served.get(key)
                if pool is not None and refers_to(found.pool_ref, found.namespace, pool.spec):
                    pool.is_changed = True
                    self._touched[key] = None

    def _key(self, pool_name: str) -> str:
        return f"{self._namespace}/{pool_name}"


def _all_declared(shelves: Mapping[str, Shelf[_Object, _Referring]]) -> Iterator[_Referring]:
    for shelf in shelves.values():
        yield from shelf.declared.values()
