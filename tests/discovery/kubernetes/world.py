"""A cluster without an API server: objects are put straight into a view, which tells a listener."""

from collections.abc import Callable
from typing import Any

import msgspec

from epp.core.resources import EndpointChanges, PoolResources
from epp.discovery.declared import POOL_GROUP
from epp.discovery.kubernetes.objects import (
    InferenceModelRewrite,
    InferenceObjective,
    InferencePool,
    Pod,
)
from epp.discovery.kubernetes.view import ClusterView, Scope
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.label_selector import parse_label_selector
from tests.apiserver import pool

Object = dict[str, Any]

_TYPES: dict[str, type[Any]] = {
    "Pod": Pod,
    "InferencePool": InferencePool,
    "InferenceObjective": InferenceObjective,
    "InferenceModelRewrite": InferenceModelRewrite,
}


def decoded(item: Object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(item), type=_TYPES[item["kind"]])


class Told:
    """A listener that keeps what it was told, and checks that it makes sense."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolResources] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.rejections = 0

    def pool_applied(self, resources: PoolResources) -> None:
        key = resources.pool.key
        self.calls.append(("applied", key, resources))
        names = [endpoint.name for endpoint in resources.endpoints]
        assert names == sorted(names)
        assert len({endpoint.destination for endpoint in resources.endpoints}) == len(names)
        self.pools[key] = resources

    def endpoints_changed(self, key: str, changes: EndpointChanges) -> None:
        self.calls.append(("changed", key, changes))
        known = {endpoint.destination: endpoint for endpoint in self.pools[key].endpoints}
        for destination in changes.gone:
            del known[destination]
        for endpoint in changes.present:
            assert known.get(endpoint.destination) != endpoint, "nothing has changed"
            known[endpoint.destination] = endpoint
        assert changes.gone or changes.present
        endpoints = tuple(sorted(known.values(), key=lambda endpoint: endpoint.name))
        self.pools[key] = msgspec.structs.replace(self.pools[key], endpoints=endpoints)

    def pool_gone(self, key: str) -> None:
        self.calls.append(("gone", key, None))
        del self.pools[key]

    def rejected(self) -> None:
        self.rejections += 1

    def take(self) -> list[tuple[str, str, Any]]:
        """Return the calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    def endpoints(self, key: str = "default/pool") -> dict[str, str]:
        """Return the destinations of a pool's endpoints by their names."""
        return {found.name: found.destination for found in self.pools[key].endpoints}


class World:
    """A view of the namespace ``default``, and the objects that are there.

    With ``answers`` False, pods are not listed for pools that are new or have a new selector, until
    :meth:`answer` is called.
    """

    def __init__(
        self,
        *names: str,
        selector: str = "",
        group: str = POOL_GROUP,
        standalone: bool = False,
        answers: bool = True,
    ) -> None:
        labels = parse_label_selector(selector, "selector") if selector else None
        scope = Scope(
            namespace="default", group=group, names=frozenset(names or ("pool",)), selector=labels
        )
        self.view = ClusterView("default", None if standalone else scope)
        self.told = Told()
        self.answers = answers
        self.objects: dict[tuple[str, str, str], Object] = {}
        self._lists: dict[str, str] = {}

    def put(self, *items: Object) -> None:
        for item in items:
            before = self.objects.get(_key(item))
            self.objects[_key(item)] = item
            self._tell(item, (decoded(item),), before)

    def delete(self, *items: Object) -> None:
        for item in items:
            before = self.objects.pop(_key(item), None)
            if before is not None:
                self._tell(before, (), before)

    def answer(self) -> None:
        """Answer the lists of pods that were asked for."""
        wanted = self.view.wanted_pods
        self._lists = {key: each for key, each in self._lists.items() if wanted.get(key) == each}
        pods = [decoded(item) for item in self.objects.values() if item["kind"] == "Pod"]
        for key, selector in wanted.items():
            if key not in self._lists:
                self._lists[key] = selector
                self.view.pods_listed(key, selector, tuple(filter(_matched_by(selector), pods)))

    def flush(self, limit: int = 1000) -> "Told":
        while self.view.flush(self.told, limit):
            pass
        return self.told

    def _tell(self, item: Object, present: tuple[Any, ...], before: Object | None) -> None:
        changes: Changes[Any] = Changes(present, () if present else (decoded(item),))
        group = item["apiVersion"].partition("/")[0]
        if item["kind"] == "Pod":
            self._tell_pod(present, before)
        elif item["kind"] == "InferencePool":
            self.view.pools_changed(changes)
        elif item["kind"] == "InferenceObjective":
            self.view.objectives_changed(group, changes)
        else:
            self.view.rewrites_changed(group, changes)
        wanted = self.view.wanted_pods
        self._lists = {key: each for key, each in self._lists.items() if wanted.get(key) == each}
        if self.answers:
            self.answer()

    def _tell_pod(self, present: tuple[Pod, ...], before: Object | None) -> None:
        """Tell what the watches tell by which pods are followed: objects that are not selected any
        more are gone to them."""
        for key, selector in self._lists.items():
            is_selected = _matched_by(selector)
            now = tuple(filter(is_selected, present))
            known = decoded(before) if before is not None else None
            gone = () if now or known is None or not is_selected(known) else (known,)
            if now or gone:
                self.view.pods_changed(key, Changes(now, gone))


def changed(item: Object, **metadata: Any) -> Object:
    return {**item, "metadata": {**item["metadata"], **metadata}}


def served(*items: Object) -> World:
    world = World()
    world.put(pool(), *items)
    world.flush()
    world.told.take()
    return world


def _key(item: Object) -> tuple[str, str, str]:
    return item["kind"], item["apiVersion"], item["metadata"]["name"]


def _matched_by(selector: str) -> Callable[[Pod], bool]:
    if not selector:
        return lambda _pod: True
    parsed = parse_label_selector(selector, "selector")
    return lambda pod: parsed.matches(pod.metadata.labels)
