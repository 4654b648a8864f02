"""Who leads, by a Lease: what is known of it → what to do next. No I/O, no clock.

The rules are those of every leader election on Kubernetes, so that other programs understand the
Lease. Who wants to lead writes its identity into it and then renews it; who writes says which
version of the Lease it has seen, so of two that write at once one is refused. The Lease is free to
take once its renewals have not been seen to change for as long as it says, by the own monotonic
clock and since it was seen: clocks of different machines are never compared.

There are two questions, with different answers while the API server cannot be reached:

* :attr:`Election.is_leader`, whether to serve traffic: until another is *seen* to hold the Lease.
  Nobody can take what nobody can write, and no request is lost for want of an API server.
* :meth:`Election.may_write`, whether to write what only one may: no longer than others must wait
  before they take the Lease, counted from when the last renewal that was acknowledged was *sent*.
  Never true of two at once.
"""

import random
from math import inf
from typing import Final

import msgspec

from epp.discovery.cluster import LONGEST_LEASE_S

__all__ = ["Election", "LeaseRecord", "Read", "Step", "Wait", "Write"]

_VACANCY_JITTER_S: Final = 0.05
_HOLDER_FIRST_INTERVALS: Final = 2.0
_REFUSED_RETRY_S: Final = 30.0
_LONGEST_RETRY_AFTER_S: Final = 10.0


class LeaseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a Lease says. ``holder`` is empty when it is free, ``version`` its resourceVersion.

    ``duration_s`` is 0 where it does not say. ``acquired`` and ``renewed`` are compared with
    themselves only; where empty in a record to write, they stand for the time of the write.
    """

    holder: str = ""
    duration_s: float = 0.0
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    version: str = ""


class Read(msgspec.Struct, frozen=True):
    """Read the Lease."""


class Write(msgspec.Struct, frozen=True):
    """Write this if the Lease still has its version; without a version there is no Lease, and it
    is to be created."""

    record: LeaseRecord


class Wait(msgspec.Struct, frozen=True):
    """Do nothing until then, in seconds of the clock of ``now``, or until something is seen."""

    until_s: float


Step = Read | Write | Wait


class Election:
    """One candidate. ``identity`` is unlike those of all others that live at the same time.

    Whoever drives it asks :meth:`next` what to do, and tells what came of it or was seen in the
    meantime. While :attr:`is_watched` is not set, nobody tells it when the Lease changes, and it
    asks to read it every ``renew_interval_s``. All times are those of one monotonic clock.
    """

    def __init__(
        self,
        identity: str,
        *,
        lease_duration_s: float,
        renew_interval_s: float,
        rng: random.Random,
    ) -> None:
        self.is_watched = False
        self.is_leader = False
        self.is_resigned = False
        self._identity = identity
        self._lease_duration_s = lease_duration_s
        self._renew_interval_s = renew_interval_s
        self._rng = rng
        self._record: LeaseRecord | None = None
        self._is_absent = False
        self._needs_read = True
        self._is_version_trusted = True
        self._changed_at_s = -inf
        self._seen_at_s = -inf
        self._sent_at_s = -inf
        self._expires_at_s = -inf
        self._retry_at_s = -inf
        self._is_refused = False
        self._is_cut_off = False
        self._back_at_s = -inf
        self._jitter_ratio = 0.0

    @property
    def record(self) -> LeaseRecord | None:
        """The Lease as it was last seen; None: never."""
        return self._record

    def may_write(self, now: float) -> bool:
        """Whether it is certain that nobody else leads."""
        return self.is_leader and now < self._expires_at_s

    # What has been seen

    def observed(self, record: LeaseRecord | None, now: float) -> None:
        """The Lease was read, or a watch has told of it; None: there is none.

        What is older than what is known is passed over: a watch may lag behind.
        """
        self._needs_read = False
        self._seen_at_s = now
        if self._is_cut_off:
            self._is_cut_off = False
            self._back_at_s = now
        if not self._is_refused:
            self._retry_at_s = -inf
        if record is None:
            self._is_absent = True
            self._expires_at_s = -inf
            return
        known = self._record
        is_comparable = self._is_version_trusted and not self._is_absent
        if known is not None and is_comparable and not _is_newer(record.version, known.version):
            return
        self._is_absent = False
        self._is_version_trusted = True
        self._take_in(record, now)
        if record.holder != self._identity:
            self._expires_at_s = -inf
            if record.holder:
                self.is_leader = False

    def doubted(self) -> None:
        """The Lease may have gone: it has to be read."""
        self._needs_read = True

    def wrote(self, record: LeaseRecord, *, sent_at_s: float, now: float) -> None:
        """A write was acknowledged; ``record`` is what the Lease says since then."""
        known = self._record
        if (
            known is not None
            and known.holder != self._identity
            and _is_newer(known.version, record.version)
        ):
            return  # another has written since, and that has been seen already
        self._is_absent = False
        self._is_version_trusted = True
        self._is_refused = False
        self._is_cut_off = False
        self._retry_at_s = -inf
        self._take_in(record, now)
        if record.holder == self._identity and not self.is_resigned:
            self.is_leader = True
            self._sent_at_s = sent_at_s
            self._expires_at_s = sent_at_s + self._lease_duration_s

    def conflicted(self, now: float) -> None:
        """A write was refused because the Lease is not what it was: it has to be read.

        From then on any version will do: that of an API server which was restored from a backup is
        lower.
        """
        self._needs_read = True
        self._is_version_trusted = False
        self._retry_at_s = now + self._rng.random() * _VACANCY_JITTER_S

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """There was no good answer, and a write may have been done or not."""
        self._needs_read = True
        self._is_cut_off = True
        delay_s = self._renew_interval_s * (0.5 + 0.5 * self._rng.random())
        asked_s = min(retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S)
        self._retry_at_s = now + max(delay_s, asked_s)

    def refused(self, now: float) -> None:
        """This candidate is not allowed to do what it tried to. What it sees changes nothing."""
        self._needs_read = True
        self._is_refused = True
        self._retry_at_s = now + _REFUSED_RETRY_S * (1.0 + 0.2 * self._rng.random())

    # What to do

    def next(self, now: float) -> Step:
        """Return what to do now."""
        if self.is_resigned:
            return Wait(inf)
        if now < self._retry_at_s:
            return Wait(self._retry_at_s)
        poll_at_s = inf if self._is_told_of_changes else self._seen_at_s + self._renew_interval_s
        if self._needs_read or now >= poll_at_s:
            return Read()
        take_at_s = self._take_at_s()
        if now < take_at_s:
            return Wait(min(take_at_s, poll_at_s))
        return Write(self._claim())

    def resign(self) -> None:
        """Lead no more, and never again."""
        self.is_resigned = True
        self.is_leader = False
        self._expires_at_s = -inf

    def vacancy(self) -> LeaseRecord | None:
        """Return what to write after :meth:`resign`, None where it is not this one's to give."""
        known = self._record
        if known is None or self._is_absent or known.holder != self._identity:
            return None
        return msgspec.structs.replace(known, holder="", duration_s=1.0, renewed="")

    @property
    def _is_told_of_changes(self) -> bool:
        # Who leads is told by its own renewals.
        return self.is_watched or self.is_leader

    def _take_in(self, record: LeaseRecord, now: float) -> None:
        known = self._record
        if known is None or msgspec.structs.replace(known, version=record.version) != record:
            self._changed_at_s = now
            self._jitter_ratio = self._rng.random()
        self._record = record

    def _take_at_s(self) -> float:
        """Return when the Lease is to be written next if nothing is seen until then."""
        known = self._record
        if known is None:
            return -inf
        if known.holder == self._identity:
            is_held = self.is_leader and not self._is_absent
            return self._sent_at_s + self._renew_interval_s if is_held else -inf
        if not known.holder:
            jitter_s = 0.0 if self.is_leader else self._jitter_ratio * _VACANCY_JITTER_S
            return self._changed_at_s + jitter_s
        # Also where the Lease was deleted since: its holder may not know that yet.
        duration_s = min(known.duration_s or self._lease_duration_s, LONGEST_LEASE_S)
        # An API server that was away, was so for the holder too: it shall keep what it has.
        back_at_s = self._back_at_s + _HOLDER_FIRST_INTERVALS * self._renew_interval_s
        jitter_s = 0.5 * self._jitter_ratio * self._renew_interval_s
        return max(self._changed_at_s + duration_s, back_at_s) + jitter_s

    def _claim(self) -> LeaseRecord:
        known = self._record
        if known is None:
            return LeaseRecord(holder=self._identity, duration_s=self._lease_duration_s)
        is_own = known.holder == self._identity
        return LeaseRecord(
            holder=self._identity,
            duration_s=self._lease_duration_s,
            acquired=known.acquired if is_own else "",
            transitions=known.transitions + (not is_own),
            version="" if self._is_absent else known.version,
        )


def _is_newer(version: str, than: str) -> bool:
    """Whether a resourceVersion is later. They are numbers, though the API says so only since
    Kubernetes 1.35; of what is none, only equality is known."""
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than
