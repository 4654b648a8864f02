"""What is followed of one cluster: the reflectors, and the tasks that run them."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.statistics import WatchStatistics
from epp.discovery.kubernetes.objects import Pod
from epp.discovery.kubernetes.view import ClusterView
from epp.discovery.kubernetes.watch.mirror import Changes, KubernetesObject
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watch.reflector import Reflector

__all__ = ["Watching"]

_T = TypeVar("_T", bound=KubernetesObject)


class _PodWatch:
    """Who follows the pods of a pool by one selector."""

    def __init__(self, selector: str) -> None:
        self.selector = selector
        self.is_listed = False
        self.reflector: Reflector[Pod]
        self.task: asyncio.Task[None]


class Watching:
    """Follows collections of one namespace of a cluster until it is closed.

    ``cluster`` is the name of a member, empty for the cluster that this runs for. ``wake`` is
    called after each change, and when a task has failed, which is a mistake of ours and no trouble
    with the API server.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        namespace: str,
        *,
        cluster: str = "",
        pace: Pace,
        wake: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._cluster = cluster
        self._pace = pace
        self._wake = wake
        self._reflectors: list[Reflector[Any]] = []
        self._pods: dict[str, _PodWatch] = {}
        self._retired = WatchStatistics(kind="Pod", cluster=cluster)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    @property
    def is_known(self) -> bool:
        """Whether the first list of all that is followed is there."""
        return all(reflector.is_known for reflector in self._all())

    def problem(self) -> str:
        """Why something of it is not being followed at this moment; empty if all is."""
        return next((each.problem for each in self._all() if each.problem), "")

    def statistics(self) -> tuple[WatchStatistics, ...]:
        """Return what there is to tell of each collection, and, in one item, of the pods of pools
        that are followed no more."""
        return (*(reflector.statistics for reflector in self._all()), self._retired)

    def raise_failure(self) -> None:
        """Raise what a task has failed with."""
        if self._failure is not None:
            raise self._failure

    def follow(
        self,
        group_version: str,
        plural: str,
        kind: type[_T],
        on_changes: Callable[[Changes[_T]], None],
        name: str = "",
        *,
        is_needed: bool = True,
    ) -> Reflector[_T]:
        """Follow a collection of the namespace; ``name`` is that of the kind, if it is not that of
        the class. One that is not ``is_needed`` is empty where it may not be listed."""
        reflector = Reflector(
            self._connection,
            f"/apis/{group_version}/namespaces/{self._namespace}/{plural}",
            kind,
            partial(self._changed, on_changes),
            is_needed=is_needed,
            name=f"{name or kind.__name__}.{group_version.partition('/')[0]}",
            cluster=self._cluster,
            pace=self._pace,
        )
        self._reflectors.append(reflector)
        self._spawn(reflector)
        return reflector

    def follow_pods(self, view: ClusterView) -> None:
        """Follow the pods of the pools that the view wants now, by their selectors, and no
        others."""
        wanted = view.wanted_pods
        for key, watch in list(self._pods.items()):
            if wanted.get(key) != watch.selector:
                del self._pods[key]
                watch.task.cancel()
                _add_up(self._retired, watch.reflector.statistics)
        for key, selector in wanted.items():
            if key not in self._pods:
                watch = self._pods[key] = _PodWatch(selector)
                watch.reflector = Reflector(
                    self._connection,
                    f"/api/v1/namespaces/{self._namespace}/pods",
                    Pod,
                    partial(self._pods_changed, view, key, watch),
                    params={"labelSelector": selector} if selector else None,
                    cluster=self._cluster,
                    pace=self._pace,
                )
                watch.task = self._spawn(watch.reflector)

    async def close(self) -> None:
        """Follow nothing any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _all(self) -> Iterator[Reflector[Any]]:
        yield from self._reflectors
        for watch in self._pods.values():
            yield watch.reflector

    def _changed(self, on_changes: Callable[[Changes[_T]], None], changes: Changes[_T]) -> None:
        on_changes(changes)
        self._wake()

    def _pods_changed(
        self, view: ClusterView, key: str, watch: _PodWatch, changes: Changes[Pod]
    ) -> None:
        if watch.is_listed:
            view.pods_changed(key, changes)
        else:
            watch.is_listed = True
            view.pods_listed(key, watch.selector, changes.present)
        self._wake()

    def _spawn(self, reflector: Reflector[_T]) -> asyncio.Task[None]:
        task = asyncio.create_task(reflector.run(), name=f"follow {reflector.statistics.kind}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._wake()


def _add_up(total: WatchStatistics, other: WatchStatistics) -> None:
    """Add what has been counted, so that counts never fall."""
    total.events += other.events
    total.relists += other.relists
    for reason, count in other.restarts.items():
        total.restarts[reason] = total.restarts.get(reason, 0) + count
