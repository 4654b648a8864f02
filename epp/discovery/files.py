"""Resources from files: a directory of manifests, watched for ever."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from epp.core.resources import PoolResources
from epp.discovery.directory import Entry, Snapshot, read_directories, scan
from epp.discovery.label_selector import parse_label_selector
from epp.discovery.manifests import parse_manifests
from epp.discovery.problems import ManifestError
from epp.discovery.resolve import Lookup, Resolver, system_lookup
from epp.discovery.selection import Selection, WantedPools, place, select
from epp.discovery.source import ResourceListener

__all__ = ["FileSource"]

logger = logging.getLogger(__name__)

# A change is read once it has stood still for this long: a file is seldom written in one go.
_SETTLE_S = 0.1
_SETTLE_ROUNDS = 20
# ... and read again after this long, because a second write within the same tick of a file system's
# clock, of the same length, leaves no trace in the signature.
_CONFIRM_S = 2.0


class FileSource:
    """The resources of some pools, from the manifest files of some directories.

    ``pool_names``, or ``pool_selector``, a label selector on pools, and ``pool_namespace`` choose
    the pools; without either there must be one. Raises UsageError for what is no selector.

    The files are polled every ``poll_interval_s``; DNS names are looked up again every
    ``resolve_interval_s``, by ``lookup``; ``on_lookup_failure`` is called with the name each time
    that one fails.

    What does not validate is not applied, not even in part: the last good state stays. A DNS name
    that gets no answer can hold up the next poll by 5 s. :meth:`load` and :meth:`run` must not be
    under way at the same time.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        *,
        pool_names: tuple[str, ...] = (),
        pool_selector: str = "",
        pool_namespace: str | None = None,
        poll_interval_s: float = 0.5,
        resolve_interval_s: float = 10.0,
        lookup: Lookup = system_lookup,
        on_lookup_failure: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._directories = tuple(directories)
        selector = None
        if pool_selector:
            selector = parse_label_selector(pool_selector, "--pool-selector")
        self._wanted = WantedPools(names=pool_names, selector=selector, namespace=pool_namespace)
        self._poll_interval_s = poll_interval_s
        self._resolve_interval_s = resolve_interval_s
        self._resolver = Resolver(lookup=lookup, on_failure=on_lookup_failure)
        self._signature: tuple[Entry, ...] | None = None
        self._digest = b""
        self._confirm_at_s: float | None = None
        self._resolve_at_s = 0.0
        self._selections: tuple[Selection, ...] = ()
        self._resources: dict[str, PoolResources] = {}
        self._notes: frozenset[str] = frozenset()

    async def load(self) -> tuple[PoolResources, ...]:
        """Read everything now and return it: a state for each pool, in the order of their keys.

        Raises :class:`~epp.discovery.problems.ManifestError`; what was loaded before stays then. A
        DNS name that cannot be looked up is no error: it contributes no endpoint until it can.
        """
        snapshot = await self._read()
        await self._select(snapshot)
        await self._resolve()
        self._resources = await self._place()
        return tuple(self._resources.values())

    async def run(self, listener: ResourceListener) -> None:
        """Watch the files and names until cancelled; :meth:`load` may have been called before.

        The listener gets every pool's state that differs from the one before, that of :meth:`load`
        included, and hears of pools that are gone, and once per change of what is no good.
        """
        try:
            while True:
                try:
                    changed = await self._reload()
                except ManifestError as error:
                    changed = False
                    logger.warning("manifests rejected: %s", error)
                    listener.rejected()
                await self._update(changed, listener)
                await asyncio.sleep(self._poll_interval_s)
        finally:
            self._resolver.close()

    async def _reload(self) -> bool:
        """Whether the directories' contents changed and were taken. Raises ManifestError."""
        if self._signature is not None:
            signature = await asyncio.to_thread(scan, self._directories)
            if signature != self._signature:
                await self._settle(signature)
            elif self._confirm_at_s is None or self._now_s() < self._confirm_at_s:
                return False
        known = self._digest
        snapshot = await self._read()
        if snapshot.digest == known:
            return False
        await self._select(snapshot)
        return True

    async def _settle(self, signature: tuple[Entry, ...]) -> None:
        for _ in range(_SETTLE_ROUNDS):
            await asyncio.sleep(min(_SETTLE_S, self._poll_interval_s))
            before, signature = signature, await asyncio.to_thread(scan, self._directories)
            if signature == before:
                return

    async def _read(self) -> Snapshot:
        snapshot = await asyncio.to_thread(read_directories, self._directories)
        is_confirmed = snapshot.signature == self._signature
        self._confirm_at_s = None if is_confirmed else self._now_s() + _CONFIRM_S
        self._signature = snapshot.signature
        self._digest = snapshot.digest
        return snapshot

    async def _select(self, snapshot: Snapshot) -> None:
        """Make the snapshot the state to serve. Raises ManifestError if it is no good."""
        self._selections = await asyncio.to_thread(self._parse, snapshot)
        for selection in self._selections:
            logger.info(
                "manifests accepted: pool %s, %d objectives, %d rewrite rules, %d endpoint entries",
                selection.pool.key,
                len(selection.objectives),
                len(selection.rewrites),
                len(selection.endpoints),
            )

    def _parse(self, snapshot: Snapshot) -> tuple[Selection, ...]:
        if snapshot.problems:
            raise ManifestError(snapshot.problems)
        names = ", ".join(str(directory) for directory in self._directories)
        source = f"{names} (files: {len(snapshot.files)})"
        return select(parse_manifests(snapshot.files), self._wanted, source)

    async def _resolve(self) -> bool:
        """Look up the names that are new, or all when it is time; whether any address changed."""
        is_due = self._now_s() >= self._resolve_at_s
        if is_due:
            self._resolve_at_s = self._now_s() + self._resolve_interval_s
        names = frozenset().union(*(selection.dns_names for selection in self._selections))
        return await self._resolver.refresh(names, only_new=not is_due)

    async def _update(self, changed: bool, listener: ResourceListener) -> None:
        """Tell what differs from the last state."""
        if not self._selections or not (await self._resolve() or changed):
            return
        before, self._resources = self._resources, await self._place()
        for key in before.keys() - self._resources.keys():
            listener.pool_gone(key)
        for key, resources in self._resources.items():
            if resources != before.get(key):
                listener.pool_applied(resources)

    async def _place(self) -> dict[str, PoolResources]:
        placed: dict[str, PoolResources] = {}
        notes: list[str] = []
        for selection in self._selections:
            # In a thread, because thousands of endpoints take tens of milliseconds.
            resources, found = await asyncio.to_thread(place, selection, self._resolver.addresses)
            placed[selection.pool.key] = resources
            notes += (*found, *selection.notes)
        for note in dict.fromkeys(notes):
            if note not in self._notes:
                logger.info("%s", note)
        self._notes = frozenset(notes)
        return placed

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
