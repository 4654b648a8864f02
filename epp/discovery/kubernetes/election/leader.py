"""Leader election on a cluster: asks the API server what the election wants to know and do.

Which of several EPPs leads is decided in :mod:`~epp.discovery.kubernetes.election.election`.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

import msgspec

from epp.discovery.cluster import LONGEST_LEASE_S
from epp.discovery.kubernetes.api.connection import ClusterConnection
from epp.discovery.kubernetes.api.errors import ApiError, ClusterError
from epp.discovery.kubernetes.election.election import (
    Election,
    LeaseRecord,
    Read,
    Wait,
    Write,
)
from epp.discovery.kubernetes.election.lease import (
    Lease,
    LeaseMeta,
    lease_of,
    lease_path,
    record_of,
)
from epp.discovery.kubernetes.waiting import wait_at_most
from epp.discovery.kubernetes.watch.mirror import Changes
from epp.discovery.kubernetes.watch.pace import Pace
from epp.discovery.kubernetes.watch.reflector import Reflector
from epp.errors import UsageError

__all__ = ["RESULTS", "LeaderElector"]

logger = logging.getLogger(__name__)

OK: Final = "ok"
ABSENT: Final = "absent"
CONFLICT: Final = "conflict"
REFUSED: Final = "refused"
UNREACHABLE: Final = "unreachable"
ERROR: Final = "error"

RESULTS: Final = (OK, ABSENT, CONFLICT, REFUSED, UNREACHABLE, ERROR)
"""What may come of a read or a write of the Lease: done, there was none, it was not what it had
been or there any more, not allowed (403), no answer, any other error."""

_RELEASE_ATTEMPTS: Final = 3
_SHORTEST_SILENCE_S: Final = 10.0


class LeaderElector:
    """Takes part in the election by the Lease ``name`` until it is cancelled or released.

    ``identity`` names this process and no other that lives; a process that comes back with the same
    one, like a container that was restarted, takes up at once what it had. The Lease is another's
    ``lease_duration_s`` after its last renewal, which are ``renew_interval_s`` apart: at most
    half of it, or UsageError is raised. ``clock`` is monotonic, ``utc_now`` what the Lease says for
    people to read. Where there is no Lease, it is created.

    :attr:`on_change` is called with :attr:`is_leader` whenever that has changed, :attr:`results`
    counts reads and writes by one of :data:`RESULTS`.
    """

    def __init__(
        self,
        connection: ClusterConnection,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_duration_s: float,
        renew_interval_s: float,
        rng: random.Random,
        clock: Callable[[], float],
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        _check(identity, lease_duration_s, renew_interval_s)
        self.on_change: Callable[[bool], None] = lambda _is_leader: None
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self._lease_duration_s = lease_duration_s
        self._renew_interval_s = renew_interval_s
        self._clock = clock
        self._utc_now = utc_now
        self._election = Election(
            identity,
            lease_duration_s=lease_duration_s,
            renew_interval_s=renew_interval_s,
            rng=rng,
        )
        self._reflector = Reflector(
            connection,
            lease_path(namespace),
            Lease,
            self._see_changes,
            params={"fieldSelector": f"metadata.name={name}"},
            # Who leads renews the Lease all the time: a silence tells that nobody is there.
            pace=Pace(idle_limit_s=max(_SHORTEST_SILENCE_S, 2.0 * lease_duration_s)),
            rng=rng,
            clock=clock,
        )
        self._decoder = msgspec.json.Decoder(Lease)
        self._metadata = LeaseMeta(name=name, namespace=namespace)
        self._asking = asyncio.Lock()
        self._poke = asyncio.Event()
        self._was_leader = False
        self._known_holder = ""
        self._complaints: dict[str, str] = {}

    @property
    def is_leader(self) -> bool:
        """Whether this process is to serve traffic. Stays so while the API server is away."""
        return self._election.is_leader

    @property
    def may_write(self) -> bool:
        """Whether this process may write what only one may: it leads, and nobody else can."""
        return self._election.may_write(self._clock())

    @property
    def holder(self) -> str:
        """Who holds the Lease as far as is known; empty: nobody."""
        record = self._election.record
        return "" if record is None else record.holder

    @property
    def transitions(self) -> int:
        """How often the Lease has gone from one to another, as it says itself."""
        record = self._election.record
        return 0 if record is None else record.transitions

    async def run(self) -> None:
        """Take part until cancelled or released."""
        watching = asyncio.create_task(self._reflector.run(), name="watch lease")
        watching.add_done_callback(_tell_failure)
        try:
            while not self._election.is_resigned:
                self._poke.clear()
                self._election.is_watched = not (self._reflector.problem or watching.done())
                async with self._asking:
                    step = self._election.next(self._clock())
                    if not isinstance(step, Wait):
                        await self._ask(step)
                        continue
                await self._wait(step.until_s)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def release(self) -> None:
        """Lead no more, and let another take over at once. :meth:`run` ends.

        Returns when the Lease is free, or after the lease duration: without an API server others
        take over in their own time.
        """
        self._election.resign()
        self._tell()
        self._poke.set()
        try:
            async with asyncio.timeout(self._lease_duration_s), self._asking:
                for _ in range(_RELEASE_ATTEMPTS):
                    record = self._election.vacancy()
                    if record is None:
                        return
                    if await self._ask(Write(record)) == CONFLICT:
                        await self._ask(Read())
        except TimeoutError:
            pass
        if self._election.vacancy() is not None:
            text = "lease %s/%s could not be released, others take it in %g s"
            logger.warning(text, self._namespace, self._name, self._lease_duration_s)

    async def _wait(self, until_s: float) -> None:
        # Never for long, because nobody tells when the watch has broken or is back.
        delay_s = min(until_s - self._clock(), self._renew_interval_s)
        await wait_at_most(self._poke, delay_s)

    async def _ask(self, step: Read | Write) -> str:
        """Do a step, tell the election what came of it, and return that."""
        sent_at_s = self._clock()
        try:
            # Twice within the lease duration, because one answer may fail to come.
            async with asyncio.timeout(0.5 * self._lease_duration_s):
                lease = await (self._read() if isinstance(step, Read) else self._write(step.record))
        except ApiError as error:
            result = self._take_error(step, error)
        except (ClusterError, TimeoutError) as error:
            result = UNREACHABLE
            self._election.failed(self._clock())
            self._complain(UNREACHABLE, f"unreachable: {str(error) or 'no answer in time'}")
        except msgspec.DecodeError as error:
            result = ERROR
            self._election.failed(self._clock())
            self._complain(ERROR, f"answered with what is no Lease: {error}")
        else:
            result = OK
            self._metadata = lease.metadata
            if isinstance(step, Read):
                self._election.observed(record_of(lease), self._clock())
            else:
                record = record_of(lease)
                self._election.wrote(record, sent_at_s=sent_at_s, now=self._clock())
            self._be_content(_verb(step))
        self.results[result] += 1
        self._tell()
        return result

    async def _read(self) -> Lease:
        path = lease_path(self._namespace, self._name)
        return self._decoder.decode(await self._connection.get(path))

    async def _write(self, record: LeaseRecord) -> Lease:
        body = lease_of(record, self._metadata, self._utc_now())
        if record.version:
            path = lease_path(self._namespace, self._name)
            return self._decoder.decode(await self._connection.replace(path, body))
        path = lease_path(self._namespace)
        return self._decoder.decode(await self._connection.create(path, body))

    def _take_error(self, step: Read | Write, error: ApiError) -> str:
        now = self._clock()
        verb = _verb(step)
        if error.status == HTTPStatus.FORBIDDEN:
            self._election.refused(now)
            text = "may not {} leases of coordination.k8s.io in namespace {}: {}"
            self._complain(verb, text.format(verb, self._namespace, error))
            return REFUSED
        is_gone = error.status == HTTPStatus.NOT_FOUND and verb == "update"
        if is_gone or error.status == HTTPStatus.CONFLICT:
            self._election.conflicted(now)
            return CONFLICT
        if error.status == HTTPStatus.NOT_FOUND and verb == "get":
            self._metadata = LeaseMeta(name=self._name, namespace=self._namespace)
            self._election.observed(None, now)
            self._be_content(verb)
            return ABSENT
        self._election.failed(now, error.retry_after_s)
        self._complain(ERROR, f"could not {verb} the lease: {error}")
        return ERROR

    # What the watch tells

    def _see_changes(self, changes: Changes[Lease]) -> None:
        for lease in changes.present:
            self._metadata = lease.metadata
            self._election.observed(record_of(lease), self._clock())
        if not changes.present:
            self._election.doubted()  # gone, or not there yet: what was listed may be out of date
        self._tell()
        self._poke.set()

    # What others are told

    def _tell(self) -> None:
        if self.is_leader != self._was_leader:
            self._was_leader = self.is_leader
            text = "leads, lease=%s/%s" if self.is_leader else "leads no more, lease=%s/%s"
            logger.info(text, self._namespace, self._name)
            self.on_change(self.is_leader)
        if self.holder != self._known_holder:
            self._known_holder = self.holder
            lease = f"{self._namespace}/{self._name}"
            logger.info("lease=%s is held by %s", lease, self.holder or "nobody")

    def _complain(self, what: str, text: str) -> None:
        if self._complaints.get(what) != text:
            self._complaints[what] = text
            logger.warning("leader election: %s", text)

    def _be_content(self, verb: str) -> None:
        for what in (verb, UNREACHABLE, ERROR):
            if self._complaints.pop(what, None) is not None:
                logger.info("leader election goes on after: %s", what)


def _verb(step: Read | Write) -> str:
    """Return what a step is called where permissions are given."""
    if isinstance(step, Read):
        return "get"
    return "update" if step.record.version else "create"


def _check(identity: str, lease_duration_s: float, renew_interval_s: float) -> None:
    if not identity:
        raise UsageError("leader election: found no identity; expected the name of the pod")
    if not 1.0 <= lease_duration_s <= LONGEST_LEASE_S:
        found = f"found a lease duration of {lease_duration_s:g} s"
        raise UsageError(f"leader election: {found}; expected 1 to {LONGEST_LEASE_S:g} s")
    if not 0.0 < renew_interval_s <= 0.5 * lease_duration_s:
        found = f"found a renew interval of {renew_interval_s:g} s"
        expected = f"at most half of the lease duration, {lease_duration_s:g} s"
        raise UsageError(f"leader election: {found}; expected {expected}")


def _tell_failure(watching: asyncio.Task[None]) -> None:
    """Say so where the watch has ended for good: the Lease is read again and again from then on."""
    error = None if watching.cancelled() else watching.exception()
    if error is not None:
        logger.error("the watch of the lease has failed and goes on no more", exc_info=error)
