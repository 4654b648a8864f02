"""Events on pools: what ``kubectl describe inferencepool`` shows of what an EPP has noticed.

An Event is news for people, so there are few of them, and none is worth waiting for. What happens
again is counted, and told as a series of the one Event. Source of the fields and of what may change
in an Event: ``events.k8s.io/v1``.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from math import inf
from typing import Any, Final, NamedTuple

import msgspec

from epp.discovery.kubernetes.api.backoff import Backoff
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import ApiError, ClusterError
from epp.discovery.kubernetes.objects import CustomObject
from epp.discovery.kubernetes.text import micro_time
from epp.discovery.kubernetes.waiting import wait_at_most

__all__ = [
    "CONFIGURATION_REJECTED",
    "ENDPOINTS_AVAILABLE",
    "EVENT_RESULTS",
    "NO_ENDPOINTS",
    "OBJECTIVE_REJECTED",
    "POOL_REJECTED",
    "EventSubject",
    "EventWriter",
]

logger = logging.getLogger(__name__)

NO_ENDPOINTS: Final = "NoEndpoints"
ENDPOINTS_AVAILABLE: Final = "EndpointsAvailable"
OBJECTIVE_REJECTED: Final = "ObjectiveRejected"
CONFIGURATION_REJECTED: Final = "ConfigurationRejected"
POOL_REJECTED: Final = "PoolRejected"

_TYPES_AND_ACTIONS: Final = {
    NO_ENDPOINTS: ("Warning", "FollowEndpoints"),
    ENDPOINTS_AVAILABLE: ("Normal", "FollowEndpoints"),
    OBJECTIVE_REJECTED: ("Warning", "ReadObjective"),
    CONFIGURATION_REJECTED: ("Warning", "ReadConfiguration"),
    POOL_REJECTED: ("Warning", "ReadPool"),
}

OK: Final = "ok"
DROPPED: Final = "dropped"
REFUSED: Final = "refused"
FAILED: Final = "failed"

EVENT_RESULTS: Final = (OK, DROPPED, REFUSED, FAILED)
"""What may come of an Event: written, given up before it was, not allowed (403), no good answer
(and tried again where that can help)."""

_CONTROLLER: Final = "inference-epp"
_MAX_SERIES: Final = 256
_REPEAT_AFTER_S: Final = 600.0
_EMPTY_FOR_S: Final = 5.0
_BURST: Final = 25
_REFILL_S: Final = 30.0
_REFUSED_PAUSE_S: Final = 60.0
_LONGEST_WAIT_S: Final = 5.0
_TIMEOUT_S: Final = 10.0
_NOTE_BYTES: Final = 1024
_INSTANCE_CHARACTERS: Final = 128
_NAME_CHARACTERS: Final = 220

_PASSING: Final = (
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_MANY_REQUESTS,
)

_NO_ENDPOINTS_NOTE: Final = "no endpoint of the pool is ready"
_ENDPOINTS_NOTE: Final = "endpoints of the pool are ready again"


class EventSubject(msgspec.Struct, frozen=True, kw_only=True):
    """The pool object that Events are about. ``key`` is ``namespace/name``."""

    api_version: str
    namespace: str
    name: str
    uid: str = ""
    kind: str = "InferencePool"

    @classmethod
    def of(
        cls, pool: CustomObject, api_version: str, kind: str = "InferencePool"
    ) -> "EventSubject":
        """Return that of a pool, or of an import."""
        metadata = pool.metadata
        return cls(
            api_version=api_version,
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            kind=kind,
        )

    @property
    def key(self) -> str:
        """What tells the pools of one EPP apart."""
        return f"{self.namespace}/{self.name}"


class _Told(NamedTuple):
    pool: str
    reason: str
    note: str


class _Series:
    """How often something has happened, and what was written of it: ``written`` times by now."""

    __slots__ = ("body", "count", "last_at", "seen_at_s", "written", "wrote_at_s")

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}
        self.count = 0
        self.written = 0
        self.last_at = ""
        self.seen_at_s = 0.0
        self.wrote_at_s = -inf

    @property
    def due_s(self) -> float:
        """When it is to be written; for what was written already, long after the last time."""
        if self.count == self.written:
            return inf
        return self.wrote_at_s + _REPEAT_AFTER_S if self.written else self.seen_at_s


class EventWriter:
    """Writes Events on the pools that it follows, while ``may_write`` says so.

    What is told in the meantime is written for up to 10 minutes after it has last happened. The
    same of the same pool is written at once, and then as a series every 10 minutes; all together 25
    at once and one more every 30 s. Of 256 different things the one that was told of longest ago is
    forgotten. ``identity`` names this process; ``clock`` is monotonic, ``utc_now`` for the Events.

    Nothing here waits but :meth:`run`. :attr:`results` counts by one of :data:`EVENT_RESULTS`.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        *,
        identity: str,
        may_write: Callable[[], bool],
        rng: random.Random,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.results: Counter[str] = Counter(dict.fromkeys(EVENT_RESULTS, 0))
        self._connection = connection
        self._identity = identity[:_INSTANCE_CHARACTERS]
        self._may_write = may_write
        self._rng = rng
        self._clock = clock
        self._utc_now = utc_now
        self._backoff = Backoff(rng)
        self._subjects: dict[str, EventSubject] = {}
        self._series: dict[_Told, _Series] = {}
        self._empty_since_s: dict[str, float] = {}
        self._told_empty: set[str] = set()
        self._free_at_s = -inf
        self._bucket_full_at_s = -inf
        self._has_complained = False
        self._poke = asyncio.Event()

    # What happens

    def follow_pools(self, pools: Iterable[EventSubject]) -> None:
        """These are the pools that Events can be about; what was told of others is forgotten."""
        self._subjects = {pool.key: pool for pool in pools}
        for told in [told for told in self._series if told.pool not in self._subjects]:
            del self._series[told]
        for key in self._empty_since_s.keys() - self._subjects.keys():
            del self._empty_since_s[key]
        self._told_empty &= self._subjects.keys()

    def follow_endpoints(self, pool: str, count: int) -> None:
        """The pool with this key has so many endpoints that are ready."""
        if count:
            self._empty_since_s.pop(pool, None)
            if pool in self._told_empty:
                self._told_empty.remove(pool)
                self._end_of_emptiness(pool)
        elif pool in self._subjects and pool not in self._empty_since_s:
            self._empty_since_s[pool] = self._clock()
            self._poke.set()

    def tell(self, pool: str, reason: str, note: str) -> None:
        """Something has happened to the pool with this key. ``reason`` is one of this module's;
        ``note`` says what, and is the same when the same happens again."""
        if pool not in self._subjects:
            return
        told = _Told(pool, reason, _cut(note))
        series = self._series.pop(told, None)
        if series is None:
            series = _Series()
            self._make_room()
        self._series[told] = series  # the last one is what was told of last
        series.count += 1
        series.last_at = micro_time(self._utc_now())
        series.seen_at_s = self._clock()
        self._poke.set()

    async def run(self) -> None:
        """Write for ever, or until cancelled."""
        while True:
            self._poke.clear()
            self._notice_emptiness()
            self._give_up_the_old()
            if self._may_write():
                await self._write_what_is_due()
            await self._wait()

    # What is to be written

    def _end_of_emptiness(self, pool: str) -> None:
        told = _Told(pool, NO_ENDPOINTS, _NO_ENDPOINTS_NOTE)
        series = self._series.get(told)
        if series is not None and not series.written:
            del self._series[told]  # it is over, and nobody has heard of it
        else:
            self.tell(pool, ENDPOINTS_AVAILABLE, _ENDPOINTS_NOTE)

    def _notice_emptiness(self) -> None:
        now = self._clock()
        for pool, since_s in self._empty_since_s.items():
            if now >= since_s + _EMPTY_FOR_S and pool not in self._told_empty:
                self._told_empty.add(pool)
                self.tell(pool, NO_ENDPOINTS, _NO_ENDPOINTS_NOTE)

    def _make_room(self) -> None:
        if len(self._series) >= _MAX_SERIES:
            series = self._series.pop(next(iter(self._series)))
            self.results[DROPPED] += series.count > series.written

    def _give_up_the_old(self) -> None:
        """Forget what nobody wants to hear of any more. What is to be written every 10 minutes
        has been told of since it was last written."""
        now = self._clock()
        for told, series in list(self._series.items()):
            if now > max(series.seen_at_s, series.wrote_at_s) + _REPEAT_AFTER_S:
                del self._series[told]
                self.results[DROPPED] += not series.written

    def _due(self) -> Iterator[tuple[float, _Told]]:
        return ((series.due_s, told) for told, series in self._series.items())

    async def _wait(self) -> None:
        now = self._clock()
        empty = (
            since_s + _EMPTY_FOR_S
            for pool, since_s in self._empty_since_s.items()
            if pool not in self._told_empty
        )
        next_s = min(empty, default=inf)
        if self._may_write():
            next_due_s = min((due_s for due_s, _ in self._due()), default=inf)
            next_s = min(next_s, max(next_due_s, self._free_at_s))
        # Now and then in any case: nobody tells when it is allowed.
        delay_s = max(0.0, min(next_s - now, _LONGEST_WAIT_S))
        await wait_at_most(self._poke, delay_s)

    # Writing

    async def _write_what_is_due(self) -> None:
        while self._may_write():
            now = self._clock()
            due_s, told = min(self._due(), default=(inf, None))
            if told is None or due_s > now or now < self._free_at_s:
                return
            await self._write(told, self._series[told])

    async def _write(self, told: _Told, series: _Series) -> None:
        self._take_token()
        count = series.count
        if not series.body:
            series.body = self._event(self._subjects[told.pool], told, series.last_at)
        if count > 1:
            series.body["series"] = {"count": count, "lastObservedTime": series.last_at}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._send(series.body)
        except (ClusterError, TimeoutError) as error:
            self._take_error(told, error)
        else:
            series.written, series.wrote_at_s = count, self._clock()
            self.results[OK] += 1
            self._backoff.reset()
            self._has_complained = False

    async def _send(self, body: dict[str, Any]) -> None:
        # Applied and not created: it may be there already where an answer was lost, and it is made
        # anew where the API server has forgotten it, which it does after an hour.
        metadata = body["metadata"]
        collection = f"/apis/events.k8s.io/v1/namespaces/{metadata['namespace']}/events"
        path = f"{collection}/{metadata['name']}"
        await self._connection.apply(path, body, field_manager=_CONTROLLER)

    def _take_error(self, told: _Told, error: Exception) -> None:
        self.results[FAILED] += 1
        pause_s = max(1.0, self._backoff.next_s())
        if isinstance(error, ApiError):
            pause_s = max(pause_s, min(error.retry_after_s or 0.0, _REFUSED_PAUSE_S))
            if error.status == HTTPStatus.FORBIDDEN:
                self.results[FAILED] -= 1
                self.results[REFUSED] += 1
                pause_s = _REFUSED_PAUSE_S
            elif error.status < 500 and error.status not in _PASSING:
                self._series.pop(told, None)  # it would fail again
        self._free_at_s = self._clock() + pause_s
        if not self._has_complained:
            self._has_complained = True
            logger.warning("an Event on pool %s could not be written: %s", told.pool, error)

    def _take_token(self) -> None:
        """Take one from a bucket of 25 tokens that gets one every 30 s."""
        now = self._clock()
        self._bucket_full_at_s = max(self._bucket_full_at_s, now) + _REFILL_S
        self._free_at_s = max(now, self._bucket_full_at_s - (_BURST - 1) * _REFILL_S)

    def _event(self, subject: EventSubject, told: _Told, at: str) -> dict[str, Any]:
        kind, action = _TYPES_AND_ACTIONS[told.reason]
        unique = f"{self._rng.getrandbits(64):016x}"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{subject.name[:_NAME_CHARACTERS]}.{unique}",
                "namespace": subject.namespace,
            },
            "eventTime": at,
            "reportingController": _CONTROLLER,
            "reportingInstance": self._identity,
            "action": action,
            "reason": told.reason,
            "regarding": {
                "apiVersion": subject.api_version,
                "kind": subject.kind,
                "namespace": subject.namespace,
                "name": subject.name,
                "uid": subject.uid,
            },
            "note": told.note,
            "type": kind,
        }


def _cut(note: str) -> str:
    """Return as much of a note as an Event takes, which is counted in bytes."""
    data = note.encode()
    if len(data) <= _NOTE_BYTES:
        return note
    return data[: _NOTE_BYTES - 3].decode(errors="ignore") + "…"
