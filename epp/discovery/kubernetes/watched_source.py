"""How a source of resources starts, runs and ends that follows API servers."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final

from epp.discovery.kubernetes.objects import InferenceModelRewrite, InferenceObjective
from epp.discovery.kubernetes.view import GROUPS, ClusterView
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.watching import Watching
from epp.discovery.source import ResourceListener

__all__ = ["WatchedSource"]

logger = logging.getLogger(__name__)

_CHUNK: Final = 100
"""How many pods or endpoints are worked off before others get their turn: that takes the view and
the core together less than 2 ms."""


class WatchedSource(ABC):
    """A source of resources (:class:`epp.discovery.source.ResourceSource`).

    What changes within ``coalesce_s`` is told at once. ``on_objectives`` is called with the API
    group and every change of the objectives in the namespace, before the listener hears of it.
    ``sleep`` is for tests. Whoever follows something calls :meth:`_wake` when it has changed.
    """

    def __init__(
        self,
        *,
        coalesce_s: float,
        on_objectives: Callable[[str, Changes[InferenceObjective]], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._coalesce_s = coalesce_s
        self._on_objectives = on_objectives
        self._sleep = sleep
        self._changed = asyncio.Event()
        self._is_loaded = False

    async def load(self, listener: ResourceListener) -> None:
        """Follow the API servers from now on, and return as soon as the listener knows all.

        A pool that is asked for by name and does not exist is none to wait for. The first state may
        be long in coming: without an API server it does not come.
        """
        try:
            self._start()
            await self._wait_until_known()
            await self._flush(listener)
        except BaseException:  # cancelled too: nobody else closes what has not been loaded
            await self.close()
            raise
        self._is_loaded = True

    async def run(self, listener: ResourceListener) -> None:
        """Tell the listener of all that changes, until cancelled; :meth:`load` may have been called
        before."""
        try:
            if not self._is_loaded:
                await self.load(listener)
            while True:
                await self._changed.wait()
                await self._sleep(self._coalesce_s)
                self._take_wake()
                await self._flush(listener)
        finally:
            await self.close()

    async def close(self) -> None:
        """Follow nothing any more."""
        for watching in self._all_watching():
            await watching.close()

    # What sources do each in their own way

    @abstractmethod
    def _all_watching(self) -> Iterable[Watching]:
        """Return all that is followed, of whichever cluster."""

    @abstractmethod
    def _start(self) -> None:
        """Begin to follow all of it."""

    @abstractmethod
    async def _wait_until_known(self) -> None:
        """Wait for as much as the listener is to know first."""

    @abstractmethod
    async def _flush(self, listener: ResourceListener) -> None:
        """Tell the listener what has changed."""

    # What they do alike

    def _wake(self) -> None:
        self._changed.set()

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._changed.wait()
            self._take_wake()

    def _take_wake(self) -> None:
        # Both in one go: what fails after the look would be forgotten with the wake otherwise.
        for watching in self._all_watching():
            watching.raise_failure()
        self._changed.clear()

    def _follow_referring(self, watching: Watching, view: ClusterView) -> None:
        """Follow the objects that refer to pools: objectives and rewrites, of all API groups."""
        for group in GROUPS:
            version = f"{group}/v1alpha2"
            watching.follow(
                version,
                "inferenceobjectives",
                InferenceObjective,
                partial(self._objectives_changed, view, group),
                is_needed=False,
            )
            watching.follow(
                version,
                "inferencemodelrewrites",
                InferenceModelRewrite,
                partial(view.rewrites_changed, group),
                is_needed=False,
            )

    def _objectives_changed(
        self, view: ClusterView, group: str, changes: Changes[InferenceObjective]
    ) -> None:
        view.objectives_changed(group, changes)
        self._on_objectives(group, changes)

    @staticmethod
    def _tell_rejections(rejections: Iterable[str], listener: ResourceListener) -> None:
        for rejection in rejections:
            logger.warning("rejected, what it was before stays: %s", rejection)
            listener.rejected()

    @staticmethod
    async def _work_off(
        flush: Callable[[ResourceListener, int], bool], listener: ResourceListener
    ) -> None:
        """Flush until there is no more, and let others have their turn in between."""
        while flush(listener, _CHUNK):  # noqa: ASYNC110 - this waits for nothing
            await asyncio.sleep(0)
