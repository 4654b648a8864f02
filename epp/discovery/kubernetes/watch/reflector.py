"""One collection of the API server, listed once and then watched for ever.

How it goes on after trouble is made so that an API server that comes back after an outage is not
run over by all who have waited for it:

* A watch that ends or breaks goes on from the last version; nothing is listed for that. Only where
  the API server has forgotten that version (410) the collection is listed again, after a pause
  drawn from 0 to ``Pace.relist_spread_s``. While nothing can be had, the last state stays.
* Pauses between failures grow to 30 s, with full jitter
  (:mod:`~epp.discovery.kubernetes.api.backoff`).
* The first list is a consistent read, in pages: an EPP that starts must not begin with a state that
  is older than what another, or it before its restart, has acted upon, which is what a list "at any
  version" may give. A later list asks for a state not older than the last version, and for no
  pages: that is what an API server answers from its memory, without asking etcd, and the last
  version keeps time from running backwards.
* Versions go back where etcd was restored, and a watch from one that is still to come just says
  nothing. So after an outage one object is asked for: if that is of a lower version, or a list of
  the last version cannot be had, the next list is a consistent one again.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import Final, Generic, TypeVar

import msgspec

from epp.discovery.kubernetes.api.backoff import Backoff
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import (
    AnswerTooLarge,
    ApiError,
    ClusterError,
    StreamBroken,
    StreamSilent,
    error_of,
    one_line,
)
from epp.discovery.kubernetes.api.statistics import WatchStatistics, restart_reason
from epp.discovery.kubernetes.watch.collection import Collection
from epp.discovery.kubernetes.watch.decoding import (
    ListMeta,
    ObjectDecoder,
    Unreadable,
    decode_event,
    identity,
)
from epp.discovery.kubernetes.watch.mirror import Changes, Key, KubernetesObject, Mirror, key_of
from epp.discovery.kubernetes.watch.pace import Pace

__all__ = ["Reflector"]

logger = logging.getLogger(__name__)

_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_GONE: Final = 410
_TIMEOUT: Final = 504  # also says that a version has not been reached yet

_NEEDED: Final = "expected a role that allows list and watch"
_PAGE: Final = "500"
# A watch that fails so often in a row for what is answered does so for the version that it goes on
# from, or for what comes next: a list gets past both.
_ODD_ANSWERS: Final = 3
# So often in a row it must be said that a kind of which objects are known does not exist, or that
# one that is not needed is forbidden: an API server that has just started may not know better yet.
_ABSENCES: Final = 3

T = TypeVar("T", bound=KubernetesObject)


class _OddAnswer(ClusterError):
    """An answer that is not what the API promises."""


class _ShortWatch(ClusterError):
    """A watch ended in order, but so soon that the same at once again would be a busy loop."""


class Reflector(Generic[T]):
    """Follows the collection at ``path`` (``/api/v1/namespaces/x/pods``), each object decoded as
    ``kind``, and calls ``on_changes`` with every difference, in order.

    ``params`` are selectors (``{"labelSelector": "app=x"}``). Without ``is_needed`` it is empty as
    long as it may not be listed, instead of unknown. The first call of ``on_changes`` is
    for the first list, even where that is empty; it must neither wait nor raise. A kind that is not
    installed is an empty collection, which is looked at again once a minute. An object that does
    not decode is left out, or stays as it was last known, and is logged once.

    ``name`` (of the class, if not given) and ``cluster`` are what :attr:`statistics` call it.
    ``rng``, ``clock`` (monotonic, seconds) and ``sleep`` are for tests.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        path: str,
        kind: type[T],
        on_changes: Callable[[Changes[T]], None],
        *,
        params: Mapping[str, str] | None = None,
        is_needed: bool = True,
        name: str | None = None,
        cluster: str = "",
        pace: Pace = Pace(),  # noqa: B008 - frozen
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.statistics = WatchStatistics(kind=name or kind.__name__, cluster=cluster)
        self._connection = connection
        self._path = path
        collection = Collection.of(path)
        self._title = f"cluster {cluster}: {collection}" if cluster else str(collection)
        self._params = dict(params or {})
        self._is_needed = is_needed
        self._on_changes = on_changes
        self._pace = pace
        self._rng = rng or random.Random()
        self._clock = clock
        self._sleep = sleep
        self._decoder = ObjectDecoder(kind)
        self._mirror: Mirror[T] = Mirror()
        self._unreadable: dict[Key, str] = {}
        self._backoff = Backoff(
            self._rng, first_s=pace.first_pause_s, longest_s=pace.longest_pause_s
        )
        self._is_list_due = True
        self._is_next_list_consistent = True
        self._is_version_doubted = False
        self._odd_answers = 0
        self._absences = 0
        self._known = asyncio.Event()
        self._problem = ""
        self._logged = ""
        self._last_reason = ""

    @property
    def objects(self) -> Mapping[Key, T]:
        """What is known now. The mapping is as of this call; a later list makes another."""
        return self._mirror.objects

    @property
    def problem(self) -> str:
        """Why the collection is not being followed at this moment, one line; empty if it is."""
        return self._problem

    @property
    def is_known(self) -> bool:
        """Whether the first list is there, or it was said that there is no such kind."""
        return self._known.is_set()

    async def known(self) -> None:
        """Wait until :attr:`is_known`."""
        await self._known.wait()

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        while True:
            try:
                if self._is_list_due or await self._is_ahead():
                    await self._list()
                await self._watch()
            except ClusterError as error:
                await self._sleep(self._take_error(error))

    # The list

    async def _list(self) -> None:
        params = dict(self._params)
        if self._is_next_list_consistent or not self._mirror.version:
            params["limit"] = _PAGE
        else:
            params["resourceVersion"] = self._mirror.version
            params["resourceVersionMatch"] = "NotOlderThan"
        version, items = await self._read_list(params)
        self._is_list_due = False
        self._is_next_list_consistent = self._is_version_doubted = False
        self._odd_answers = 0
        if self.is_known:
            self.statistics.relists += 1
        self._heard()
        self._replace(version, items)

    async def _is_ahead(self) -> bool:
        """Whether an API server that was away has come back with older versions than are known."""
        if not self._is_version_doubted:
            return False
        metadata, _ = await self._read_page(self._params | {"limit": "1"})
        self._is_version_doubted = False
        if not self._mirror.is_ahead_of(metadata.resource_version):
            return False
        self._is_next_list_consistent = self._is_list_due = True
        return True

    async def _read_list(self, params: dict[str, str]) -> tuple[str, list[T | Unreadable]]:
        """Read all pages; return the version and the objects."""
        items: list[T | Unreadable] = []
        while True:
            try:
                metadata, page = await self._read_page(params)
            except ApiError as error:
                if error.status != _GONE or "continue" not in params:
                    raise
                # The snapshot of the first pages is gone: too slow for pages, so all of it at once.
                del params["continue"], params["limit"]
                items.clear()
                continue
            items += page
            if not metadata.next_page:
                break
            params["continue"] = metadata.next_page
        if not metadata.resource_version:
            raise _OddAnswer(f"GET {self._path}: a list without a resourceVersion")
        return metadata.resource_version, items

    async def _read_page(self, params: dict[str, str]) -> tuple[ListMeta, list[T | Unreadable]]:
        body = await self._connection.get(self._path, params, verb="list")
        try:
            return await self._decoder.decode_list(body)
        except msgspec.DecodeError as error:
            raise _OddAnswer(f"GET {self._path}: no list: {one_line(error)}") from None

    def _replace(self, version: str, items: list[T | Unreadable]) -> None:
        unreadable = [item for item in items if isinstance(item, Unreadable)]
        keys = {item.key for item in unreadable}
        self._forget_unreadable(*(self._unreadable.keys() - keys))
        for item in unreadable:
            self._leave_out(item)
        changes = self._mirror.replace(
            (item for item in items if not isinstance(item, Unreadable)), version, kept=keys
        )
        if any(changes) or not self.is_known:
            self._tell(changes)
        self._known.set()

    # The watch

    async def _watch(self) -> None:
        pace = self._pace
        params = self._params | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._mirror.version,
            "timeoutSeconds": str(max(1, round(self._rng.uniform(*pace.watch_s)))),
        }
        opened_at_s = inf

        def opened() -> None:
            nonlocal opened_at_s
            opened_at_s = self._clock()
            self._heard()

        stream = self._connection.stream(
            self._path, params, idle_limit_s=pace.idle_limit_s, on_open=opened
        )
        try:
            async with contextlib.aclosing(stream) as lines:
                async for line in lines:
                    self._take_line(line)
        finally:
            has_lasted = self._clock() - opened_at_s >= pace.shortest_watch_s
            if has_lasted:
                self._backoff.reset()
        if not has_lasted:
            raise _ShortWatch(f"GET {self._path}: the watch ended at once")
        self._odd_answers = 0
        self.statistics.restarts["timeout"] += 1

    def _take_line(self, line: bytes) -> None:
        try:
            event = decode_event(line)
            match event.type:
                case "ADDED" | "MODIFIED":
                    self.statistics.events += 1
                    changes = self._put(self._decoder.decode(event.object))
                case "DELETED":
                    self.statistics.events += 1
                    metadata = identity(event.object)
                    self._forget_unreadable(key_of(metadata))
                    changes = self._mirror.delete(metadata)
                case "BOOKMARK":
                    self._mirror.bookmark(identity(event.object).resource_version)
                    changes = None
                case "ERROR":
                    raise error_of(f"watch of {self._path}", event.object)
                case _:
                    raise _OddAnswer(f"watch of {self._path}: event of type {event.type!r}")
        except msgspec.DecodeError as error:
            raise _OddAnswer(f"watch of {self._path}: no event: {one_line(error)}") from None
        self._odd_answers = 0
        self.statistics.last_contact_s = self._clock()
        self._tell(changes)

    def _put(self, item: T | Unreadable) -> Changes[T] | None:
        if isinstance(item, Unreadable):
            if self._mirror.bookmark(item.metadata.resource_version):
                self._leave_out(item)
            return None
        changes = self._mirror.put(item)
        if changes is not None and self._unreadable:
            self._forget_unreadable(key_of(item.metadata))
        return changes

    # What is told and counted

    def _heard(self) -> None:
        """The API server answers, as it should."""
        self._absences = 0
        self._problem = ""
        if self._logged:
            logger.info("%s: followed again", self._title)
            self._logged = ""
        self.statistics.last_contact_s = self._clock()

    def _tell(self, changes: Changes[T] | None) -> None:
        if changes is not None:
            self.statistics.objects = len(self._mirror.objects)
            self._on_changes(changes)

    def _leave_out(self, item: Unreadable) -> None:
        if self._unreadable.get(item.key) != item.reason:
            self._unreadable[item.key] = item.reason
            name = item.metadata.name
            logger.warning("%s: %s cannot be read: %s", self._title, name, item.reason)
        self.statistics.unreadable = len(self._unreadable)

    def _forget_unreadable(self, *keys: Key) -> None:
        for key in keys:
            self._unreadable.pop(key, None)
        self.statistics.unreadable = len(self._unreadable)

    # Trouble

    def _take_error(self, error: ClusterError) -> float:
        """Decide how to go on; return how long to wait before, seconds."""
        status = error.status if isinstance(error, ApiError) else None
        before, self._last_reason = self._last_reason, restart_reason(error)
        self.statistics.restarts[self._last_reason] += 1
        self._is_version_doubted |= self._last_reason == "unreachable"
        self._complain(error, status)
        if status == _NOT_FOUND:
            return self._take_absence()
        if status == _FORBIDDEN and not (self._is_needed or self.is_known):
            self._absences += 1
            if self._absences >= _ABSENCES:
                self._replace("", [])
        if status == _GONE and before != "expired":
            self._backoff.reset()  # an API server that knows what it has forgotten is well
        elif status is not None and before == "unreachable":
            self._backoff.ease(self._pace.answered_s)
        pause_s = self._backoff.next_s()
        if self._is_list_due:
            if status in (_BAD_REQUEST, _GONE, _TIMEOUT):
                self._is_next_list_consistent = True
        elif status == _GONE:
            self._is_list_due = True
            pause_s += self._rng.uniform(0.0, self._pace.relist_spread_s)
        elif status in (_BAD_REQUEST, _TIMEOUT) or isinstance(error, (_OddAnswer, AnswerTooLarge)):
            self._odd_answers += 1
            self._is_list_due = self._odd_answers >= _ODD_ANSWERS
        if isinstance(error, ApiError) and error.retry_after_s is not None:
            pause_s += min(error.retry_after_s, self._pace.longest_retry_after_s)
        return pause_s

    def _take_absence(self) -> float:
        """There is no such kind, it says; where there was, that is not believed at once."""
        self._is_list_due = True
        self._absences += 1
        pause_s = self._pace.absent_s
        if self._mirror.objects and self._absences < _ABSENCES:
            pause_s = self._pace.doubtful_s
        else:
            self._replace("", [])
            self.statistics.last_contact_s = self._clock()
        return pause_s * self._rng.uniform(0.5, 1.5)

    def _complain(self, error: ClusterError, status: int | None) -> None:
        """Say what is wrong, once for each kind of trouble in a row."""
        text = one_line(error)
        if status == _FORBIDDEN:
            verb = "list" if self._is_list_due else "watch"
            so = "" if self._is_needed or self.is_known else ", so there is nothing of it here"
            text = f"may not {verb} it{so}: {_NEEDED} ({text})"
        elif status == _NOT_FOUND:
            text = f"there is no such kind ({text})"
        self._problem = f"{self._title}: {text}"
        kind = f"{type(error).__name__} {status}"
        if isinstance(error, StreamSilent):
            logger.debug("%s", self._problem)
        elif kind != self._logged:
            self._logged = kind
            is_usual = status in (_GONE, _NOT_FOUND) or isinstance(error, StreamBroken)
            logger.log(logging.INFO if is_usual else logging.WARNING, "%s", self._problem)
